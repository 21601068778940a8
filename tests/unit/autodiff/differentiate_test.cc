#include "meshard/autodiff/differentiate.h"

#include <catch2/catch.hpp>

#include "meshard/autodiff/custom.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/tests/unit/autodiff/interpreter.h"

namespace meshard {
namespace {

using test::check_gradient;
using test::draw_inputs;

const Init kDraw{Init::normal, 0.5};

// Traces `loss` in f64, differentiates for all parameters and float inputs, and holds each gradient against
// differences.
Program check_all(const std::function<Value(Trace&, const Scope&)>& body) {
  Trace trace(op_table(), Dtype::f64);
  Value loss = body(trace, trace.scope());
  std::vector<Value> wrt;
  for (ValueId p : trace.main().function().params) {
    Value v(&trace.main(), p);
    if (is_float(v.type().dtype)) wrt.push_back(v);
  }
  const std::vector<Value> found = gradients(trace, loss, wrt);
  trace.result(loss);
  for (const Value& g : found) trace.result(g);
  const Program program = trace.program();
  CHECK(print(parse_program(print(program), "again", op_table())) == print(program));
  const test::DataMap inputs = draw_inputs(program);
  INFO(print(program));
  for (size_t i = 0; i < wrt.size(); ++i) check_gradient(program, inputs, loss.name(), wrt[i].name(), found[i].name());
  return program;
}

std::string message(const std::function<void()>& run) {
  try {
    run();
  } catch (const UserError& e) {
    return e.diagnostic().text;
  }
  return "nothing was thrown";
}

TEST_CASE("values used many times, in any order") {
  check_all([](Trace&, const Scope& s) {
    Value x = s.input("x", Dtype::f64, {5, 3});
    Value w = s.param("w", {3, 3}, kDraw);
    Value h = tanh(einsum("b i, i j -> b j", x, w)).named("h");
    Value y = (h * h + sub(h, x)).named("y");
    return mean(y * einsum("b i, i j -> b j", h, s.param("w", {3, 3}, kDraw)) * h).named("loss");
  });
}

TEST_CASE("sizes of one and none") {
  check_all([](Trace&, const Scope& s) {
    Value x = s.input("x", Dtype::f64, {1, 4});
    return sum(square(x + s.param("w", {4}, kDraw)));
  });
  check_all([](Trace&, const Scope& s) {
    return sum(square(s.input("x", Dtype::f64, {0, 4}) + s.param("w", {4}, kDraw)));
  });
}

TEST_CASE("ops with several results, integer operands, and what is not used") {
  check_all([](Trace& trace, const Scope& s) {
    Value ids = s.input("ids", Dtype::i32, {2, 5}, 7);
    Value x = embedding(ids, s.param("table", {7, 4}, kDraw)).named("x");
    Value z = layer_norm(x, s.param("w", {4}, kDraw), s.param("b", {4}, kDraw)).named("z");
    exp(z);  // a branch that the loss does not read
    apply("softmax_vjp", {z, z});  // nor this one, which has no gradient
    Value nll = cross_entropy(einsum("b t d, v d -> b t v", z, s.param("table", {7, 4}, kDraw)), ids).named("nll");
    const Function& f = trace.main().function();
    Value lse(&trace.main(), f.find("nll.lse"));
    s.param("unused", {3}, kDraw);
    return (mean(nll) + sum(square(lse))).named("loss");
  });
}

TEST_CASE("a gradient for an intermediate value, and zeros where there is no path") {
  Trace trace(op_table(), Dtype::f64);
  const Scope s = trace.scope();
  Value x = s.input("x", Dtype::f64, {3});
  Value w = s.param("w", {3}, kDraw);
  Value h = (x * w).named("h");
  Value loss = sum(square(h)).named("loss");
  Value far = s.param("far", {2}, kDraw);
  const std::vector<Value> g = gradients(trace, loss, {h, w, far, w}, 0.5);
  CHECK(g[0].name() == "h.d");
  CHECK(g[1].name() == "w.grad");
  CHECK(g[2].name() == "far.grad");
  CHECK(g[3].id() == g[1].id());
  for (size_t i = 0; i < 3; ++i) trace.result(g[i]);
  const Program p = trace.program();
  const test::DataMap inputs = draw_inputs(p), out = test::run_program(p, inputs);
  const std::vector<double>&xs = inputs.at("x").x, &ws = inputs.at("w").x;
  for (size_t i = 0; i < 3; ++i) {
    CHECK(out.at("h.d").x[i] == Approx(xs[i] * ws[i]));  // half of 2 h
    CHECK(out.at("w.grad").x[i] == Approx(xs[i] * ws[i] * xs[i]));
  }
  CHECK(out.at("far.grad").x == std::vector<double>{0, 0});
}

// y = gelu(x w1) w2 + x under a prefix; nested: each product is a call of its own.
Value mlp(const Scope& s, const std::string& prefix, Value x) {
  return s.call("mlp", prefix, {{"x", x}}, [](Scope& inner, const std::vector<Value>& a) {
    const auto product = [](Scope& in, const std::vector<Value>& b) {
      return std::vector{tanh(einsum("b i, i j -> b j", b[0], in.param("w", {3, 3}, kDraw))).named("y")};
    };
    Value first = inner.call("product", "one", {{"x", a[0]}}, product)[0];
    Value h = (gelu(first) + a[0]).named("h");
    Value second = inner.call("product", "two", {{"x", h}}, product)[0];
    return std::vector{(second * h).named("y")};
  })[0];
}

TEST_CASE("calls, nested, under several prefixes and with shared parameters") {
  const Program p = check_all([](Trace&, const Scope& s) {
    Value x = s.input("x", Dtype::f64, {5, 3});
    return sum(square(mlp(s, "b.2", mlp(s, "b.1", mlp(s, "b.0", x)))) * mlp(s, "c", x)).named("loss");
  });
  // One vjp function each, though there are four calls and two inside each.
  std::vector<std::string> names;
  for (const Function& f : p.functions) names.push_back(f.name);
  CHECK(names == std::vector<std::string>{"product", "mlp", "product_vjp", "mlp_vjp", "main"});
}

TEST_CASE("calls of which only some operands and results have cotangents") {
  check_all([](Trace&, const Scope& s) {
    Value x = s.input("x", Dtype::f64, {3}), z = s.input("z", Dtype::f64, {3});
    const auto body = [](Scope& in, const std::vector<Value>& a) {
      Value both = (a[0] + a[1]).named("both");  // its cotangent is that of both operands as it stands
      return std::vector{both, (exp(a[0]) * in.param("w", {3}, kDraw)).named("own"), max(a[1]).named("most")};
    };
    const std::vector<Value> a = s.call("f", "a", {{"x", x}, {"z", z}}, body);
    const std::vector<Value> b = s.call("f", "b", {{"x", a[0]}, {"z", fill(x.builder(), 0.5, x.type())}}, body);
    const std::vector<Value> c = s.call("f", "c", {{"x", b[0]}, {"z", a[1]}}, body);
    return sum(c[0] * c[1] + square(b[1])).named("loss");
  });
}

TEST_CASE("a loop is unrolled") {
  check_all([](Trace& trace, const Scope& s) {
    Value x = s.input("x", Dtype::f64, {4});
    Value w = s.param("w", {4}, kDraw);
    Builder& round = trace.builder(trace.add_function("round"));
    round.param("i", Type::parse("i32[]"));
    Value h = round.param("h", x.type()), v = round.param("v", x.type());
    Value next = (tanh(h * v) + scale(h, 0.3)).named("h.new");
    round.result(next, h);
    round.result(sum(square(next)).named("size"));
    const std::vector<Value> out = trace.main().repeat(round.function_index(), "r", 3, {Value(), x, w}, 0);
    return (sum(out[0]) + out[1]).named("loss");
  });
}

TEST_CASE("a loop beside the path stays") {
  Trace trace(op_table(), Dtype::f64);
  Value x = trace.scope().input("x", Dtype::f64, {4}), y = trace.scope().input("y", Dtype::f64, {4});
  Builder& round = trace.builder(trace.add_function("round"));
  Value h = round.param("h", x.type());
  round.result(tanh(h).named("h.new"), h);
  const std::vector<Value> out = trace.main().repeat(round.function_index(), "r", 3, {exp(y)}, -1);
  Value loss = sum(x * out[0]).named("loss");
  trace.result(gradients(trace, loss, {x})[0]);
  CHECK(print(trace.program()).find("repeat 3 call round as r") != std::string::npos);
}

TEST_CASE("a function with a gradient of its own") {
  Trace trace(op_table(), Dtype::f64);
  const Scope s = trace.scope();
  Value x = s.input("x", Dtype::f64, {3});
  const auto body = [](Scope& in, const std::vector<Value>& a) {
    return std::vector{(a[0] * in.param("w", {3}, kDraw)).named("y")};
  };
  int traced = 0;
  const auto rule = [&](const VjpBody& v) {
    ++traced;
    CHECK(v.arguments[1].name() == "w");
    return std::vector{scale(v.cotangents[0], 10), v.results[0] * v.arguments[0]};
  };
  Value y = custom_call(s, "f", "a", {{"x", x}}, body, rule)[0];
  y = custom_call(s, "f", "b", {{"x", y}}, body, rule)[0];
  Value loss = sum(y).named("loss");
  const std::vector<Value> params = trace.params();
  const std::vector<Value> g = gradients(trace, loss, {x, params[0], params[1]});
  CHECK(traced == 1);
  for (const Value& v : g) trace.result(v);
  trace.result(y);
  const Program p = trace.program();
  const test::DataMap in = draw_inputs(p), out = test::run_program(p, in);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(out.at(g[0].name()).x[i] == Approx(100));
    CHECK(out.at("b.w.grad").x[i] == Approx(out.at("b.y").x[i] * in.at("x").x[i] * in.at("a.w").x[i]));
  }
}

TEST_CASE("what gradients() refuses") {
  Trace trace(op_table(), Dtype::f64);
  const Scope s = trace.scope();
  Value x = s.input("x", Dtype::f64, {3}), ids = s.input("ids", Dtype::i32, {3}, 5);
  Value y = square(x).named("y");
  CHECK(message([&] { gradients(trace, y, {x}); }) ==
        "gradients: the loss %y is f64[3]; it must be one float: take a mean or a sum");
  Value loss = sum(y).named("loss");
  CHECK(message([&] { gradients(trace, loss, {ids}); }) == "gradients: %ids is i32[3]; only floats have gradients");
  CHECK(message([&] { gradients(trace, loss, {x, Value()}); }) == "gradients: value 1 to differentiate for is none");
  CHECK(message([&] { gradients(trace, Value(), {x}); }) ==
        "gradients: the loss is none; it must be a value of the program");
  Value inner;
  s.call("f", "f", {{"x", x}}, [&](Scope&, const std::vector<Value>& a) {
    inner = a[0];
    return std::vector{exp(a[0]).named("y")};
  });
  CHECK(message([&] { gradients(trace, loss, {inner}); }) ==
        "gradients: %x is a value of func f but the loss %loss of func main; pass it into or out of the function");
  Value top = apply("softmax_vjp", {y, y}).named("top");
  Value bad = sum(top).named("bad");
  CHECK(message([&] { gradients(trace, bad, {x}); }) ==
        "softmax_vjp has no gradient, but the loss depends on %y through it (%top = softmax_vjp ...)");
}

}  // namespace
}  // namespace meshard
