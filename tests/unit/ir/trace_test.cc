#include "meshard/ir/trace.h"

#include <catch2/catch.hpp>

#include <map>

#include "meshard/ir/parse.h"
#include "meshard/ir/verify.h"
#include "op_table.h"

namespace meshard {
namespace {

const OpTable& table() { return test::op_table(); }

Value gelu(Value x) { return apply("gelu", {x}); }
Value add(Value a, Value b) { return apply("add", {a, b}); }
Value product(std::string_view rule, Value a, Value b) {
  return apply("einsum", {a, b}, {{"rule", std::string(rule)}});
}

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

// The message without its place, which is a line of this file.
template <class F>
std::string text_of(F f) {
  const std::string what = error_of(f);
  const size_t at = what.find(": ");
  return what.starts_with("trace_test.cc:") ? what.substr(at + 2) : what;
}

// Printed, without the version line; parsed again it must be the same.
std::string text(const Trace& trace) {
  const std::string printed = print(trace.program());
  CHECK(print(parse_program(printed, "p.mesh", table())) == printed);
  return printed.substr(printed.find('\n') + 2);
}

// x + gelu(x w), with the parameter declared inside.
std::vector<Value> residual(Scope& s, const std::vector<Value>& in) {
  const Value w = s.param("w", {7, 7}, {Init::normal, 0.5});
  return {add(in[0], gelu(product("b d, d f -> b f", in[0], w))).named("y")};
}

TEST_CASE("expressions become a program") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::f32, {5, 7});
  const Value w = s.param("w", {7, 3}, {Init::normal, 0.02});
  const Value h = product("b d, d f -> b f", x, w);
  const Value g = gelu(h);
  trace.result(add(g, gelu(gelu(h))).named("y"));
  CHECK(text(trace) ==
        "func main(%x: f32[5,7], %w: f32[7,3] param init=normal(0.02)) {\n"
        "  %w.use = use %w : f32[7,3]\n"
        "  %einsum = einsum %x, %w.use {rule = \"b d, d f -> b f\"} : f32[5,3]\n"
        "  %gelu = gelu %einsum : f32[5,3]\n"
        "  %gelu.1 = gelu %einsum : f32[5,3]\n"
        "  %gelu.2 = gelu %gelu.1 : f32[5,3]\n"
        "  %y = add %gelu, %gelu.2 : f32[5,3]\n"
        "  return %y\n"
        "}\n");
}

TEST_CASE("names") {
  Trace trace(table(), Dtype::bf16);
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::bf16, {5, 7});
  const Value w = s.param("norm", {7}, {Init::ones});
  const std::vector<Value> a = apply_all("rms_norm", {x, w}), b = apply_all("rms_norm", {x, w});
  CHECK(a[1].name() == "rms_norm.rstd");
  CHECK(b[0].name() == "rms_norm.1");
  CHECK(b[1].name() == "rms_norm.1.rstd");
  CHECK(b[0].named("a").name() == "a");
  CHECK(b[1].name() == "a.rstd");
  CHECK(a[0].named("a").name() == "a.1");
  CHECK(a[1].name() == "a.1.rstd");
  CHECK(a[0].named("a.1").name() == "a.1");
  CHECK(a[1].named("r").name() == "r");
  CHECK(a[0].name() == "a.1");
  CHECK(a[0].type().str() == "bf16[5,7]");
  Builder& builder = trace.main();
  CHECK(builder.fresh_name("a") == "a.2");
  CHECK(builder.fresh_name("b") == "b");
  builder.apply(table().get("gelu"), {x}, {}, {}, "a.3");
  CHECK(builder.fresh_name("a") == "a.2");
  CHECK(builder.apply(table().get("gelu"), {x}, {}, {}, "a.01")[0].name() == "a.01");

  CHECK(text_of([&] { gelu(x).named("a b"); }) ==
        "\"a b\" is no name; a name is words of letters, digits and _ with dots between them");
  for (std::string_view bad : {"", ".a", "a.", "a..b", "a@1", "%a"}) CHECK(text_of([&] { gelu(x).named(bad); }) != "");
  CHECK(text_of([&] { x.named("y"); }) == "%x is a parameter of func main and can't be renamed to %y");
}

TEST_CASE("a value knows the line that made it") {
  Trace trace(table());
  Scope s = trace.scope();
  const int line = __LINE__ + 1;
  const Value x = s.input("x", Dtype::f32, {2});
  const Value y = apply("gelu", {x});
  const Function& f = trace.main().function();
  CHECK(f.value(x.id()).source == Place{"trace_test.cc", line, 0});
  CHECK(f.value(y.id()).source == Place{"trace_test.cc", line + 1, 0});
  CHECK(f.ops[0].source == Place{"trace_test.cc", line + 1, 0});
  trace.main().set_source({"model.cc", 7, 0});
  CHECK(f.value(apply("gelu", {x}).id()).source == Place{"model.cc", 7, 0});
}

TEST_CASE("a function called under two prefixes") {
  Trace trace(table());
  Scope s = trace.scope();
  Value x = s.input("x", Dtype::f32, {5, 7});
  x = s.call("block", "block.0", {{"x", x}}, residual)[0];
  x = s.call("block", "block.1", {{"x", x}}, residual)[0];
  trace.result(x);
  CHECK(text(trace) ==
        "func block(%x: f32[5,7], %w: f32[7,7]) {\n"
        "  %w.use = use %w : f32[7,7]\n"
        "  %einsum = einsum %x, %w.use {rule = \"b d, d f -> b f\"} : f32[5,7]\n"
        "  %gelu = gelu %einsum : f32[5,7]\n"
        "  %y = add %x, %gelu : f32[5,7]\n"
        "  return %y\n"
        "}\n"
        "\n"
        "func main(%x: f32[5,7], %block.0..1.w: f32[7,7] param init=normal(0.5)) {\n"
        "  call block as block.0..1 (x = %block.#-1.y first %x)\n"
        "  return %block.1.y\n"
        "}\n");
  CHECK(trace.params().size() == 2);
  CHECK(trace.params()[1].name() == "block.1.w");
  CHECK(text_of([&] { x.named("y"); }) ==
        "%block.1.y is a result of a call and can't be renamed to %y; name it inside func block");
}

TEST_CASE("parameters rise through nested calls to main") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::f32, {5, 7});
  const auto pair = [](Scope& inner, const std::vector<Value>& in) {
    const Value a = inner.call("block", "first", {{"x", in[0]}}, residual)[0];
    const Value b = inner.call("block", "second", {{"x", a}}, residual)[0];
    return std::vector{add(b, inner.param("bias", {7}, {})).named("z")};
  };
  Value y = s.call("pair", "p.0", {{"x", x}}, pair)[0];
  y = s.call("pair", "p.1", {{"x", y}}, pair)[0];
  trace.result(y);
  const Program p = trace.program();
  REQUIRE(p.functions.size() == 3);
  CHECK(p.functions[0].name == "block");
  CHECK(p.functions[1].name == "pair");
  CHECK(p.main().name == "main");
  std::vector<std::string> names;
  for (ValueId v : p.main().params) names.push_back(p.main().value(v).name);
  CHECK(names == std::vector<std::string>{"x", "p.0.first.w", "p.0.second.w", "p.0.bias", "p.1.first.w", "p.1.second.w",
                                          "p.1.bias"});
  CHECK(p.main().param_info[1].kind == ParamInfo::param);
  CHECK(p.main().param_info[1].init == Init{Init::normal, 0.5});
  CHECK(p.functions[1].param_info[1].kind == ParamInfo::input);
  CHECK(run_counts(p) == std::vector<int64_t>{4, 2, 1});
  text(trace);
}

TEST_CASE("tied weights") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::f32, {5, 7});
  const Value w = s.param("w", {7, 7}, {Init::normal, 0.5}), again = s.param("w", {7, 7}, {Init::normal, 0.5});
  CHECK(w.name() == "w.use");
  CHECK(again.name() == "w.use.1");
  CHECK(trace.params().size() == 1);
  // A call whose prefix gives the name of a parameter of main shares it too.
  const Value shared = s.param("block.w", {7, 7}, {});
  trace.result(add(s.call("block", "block", {{"x", x}}, residual)[0], product("b d, d e -> b e", x, shared)));
  CHECK(trace.params().size() == 2);
  CHECK(text_of([&] { s.param("w", {7}, {}); }).starts_with("parameter w is f32[7,7] at trace_test.cc:"));
  CHECK(text_of([&] { s.param("w", {7}, {}); }).ends_with(", here f32[7]; tied weights have one shape"));
  CHECK(text_of([&] { s.param("x", {5, 7}, {}); }).starts_with("%x is another value of func main at trace_test.cc:"));
  trace.program();
}

TEST_CASE("functions come in order of use and unused ones not at all") {
  Trace trace(table());
  Scope s = trace.scope();
  trace.add_function("unused");
  CHECK(trace.building().functions[static_cast<size_t>(trace.add_function("unused"))].name == "unused.1");
  const Value x = s.input("x", Dtype::f32, {5, 7});
  // inner is traced after outer has begun, and stands before it.
  const Value y = s.call("outer", "o", {{"x", x}}, [](Scope& o, const std::vector<Value>& in) {
    return std::vector{gelu(o.call("inner", "i", {{"a", in[0]}},
                                   [](Scope&, const std::vector<Value>& a) { return std::vector{gelu(a[0])}; })[0])};
  })[0];
  trace.result(y);
  const Program p = trace.program();
  REQUIRE(p.functions.size() == 3);
  CHECK(p.functions[0].name == "inner");
  CHECK(p.functions[1].name == "outer");
  CHECK(p.functions[1].ops[0].callee == 0);
  CHECK(p.main().ops[0].callee == 1);
  // The trace goes on after that.
  trace.result(gelu(x));
  CHECK(trace.program().main().returns.size() == 2);
}

TEST_CASE("mistakes with functions") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::f32, {5, 7}), ids = s.input("ids", Dtype::i32, {5}, 13),
              other = s.input("other", Dtype::i32, {5}, 12);
  const Value y = s.call("block", "b", {{"x", x}}, residual)[0];
  Value inside;
  CHECK(text_of([&] {
          s.call("block", "b", {{"x", y}}, residual);
        }) == "call block as b: func main has a value %b.y already; a call needs a prefix of its own");
  CHECK(text_of([&] {
          s.call("block", "c", {{"z", x}}, residual);
        }) == "call block as c: argument 0 is z, but it was traced with x");
  CHECK(text_of([&] {
          s.call("block", "c", {{"x", x}, {"y", x}}, residual);
        }) == "call block as c: 2 arguments, but it was traced with 1");
  CHECK(text_of([&] {
          s.call("block", "c", {{"x", s.param("v", {7}, {})}}, residual);
        }) == "call block as c: argument x is f32[7], but it was traced with f32[5,7]");
  CHECK(text_of([&] {
          s.call("block", "c", {{"x", Value()}}, residual);
        }) == "call block as c: argument x is none; a Value comes from an input, a parameter or an op");
  CHECK(text_of([&] {
          s.call("block", "a b", {{"x", x}}, residual);
        }) == "\"a b\" is no name; a name is words of letters, digits and _ with dots between them");
  const auto keep = [&](Scope&, const std::vector<Value>& in) {
    inside = in[0];
    return std::vector{gelu(in[0])};
  };
  s.call("keep", "k", {{"a", x}}, keep);
  CHECK(text_of([&] { add(x, inside); }) ==
        "add: operand 1 is %a of func keep, which func main can't read; pass it as an argument");
  CHECK(text_of([&] { add(inside, x); }) ==
        "add: operand 1 is %x of func main, which func keep can't read; pass it as an argument");
  CHECK(error_of([&] { trace.result(inside); }) ==
        "a result is %a of func keep, which func main can't read; pass it as an argument");
  const auto bounded = [](Scope& scope, const std::vector<Value>& in) {
    return std::vector{apply("embedding", {in[0], scope.param("t", {13, 2}, {})})};
  };
  s.call("bounded", "n", {{"ids", ids}}, bounded);
  CHECK(text_of([&] {
          s.call("bounded", "o", {{"ids", other}}, bounded);
        }) == "call bounded as o: argument ids has below=12, but it was traced with below=13");
  CHECK(text_of([&] {
          s.call("main", "m", {{"x", x}}, residual);
        }) == "func main is there already; give the function another name");
  CHECK(text_of([&] {
          s.call("deep", "d", {{"x", x}}, [&](Scope& d, const std::vector<Value>& in) {
            return d.call("deep", "d", {{"x", in[0]}}, residual);
          });
        }) == "call deep as d: func deep calls itself");
  CHECK(text_of([&] {
          s.call("reads", "r", {{"x", x}}, [](Scope& r, const std::vector<Value>& in) {
            r.input("late", Dtype::f32, {2});
            return in;
          });
        }) == "input late is declared inside func reads; declare it in main and pass it as an argument");
  CHECK(text_of([&] { s.input("x", Dtype::f32, {2}); }) == "func main has a value %x already");
}

TEST_CASE("mistakes with ops") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::f32, {5, 7}), half = s.input("half", Dtype::bf16, {5, 7});
  CHECK(text_of([&] { apply("gleu", {x}); }) == "no op \"gleu\"; did you mean \"gelu\"?");
  CHECK(text_of([&] { apply("gelu", {Value()}); }) ==
        "gelu: operand 0 is none; a Value comes from an input, a parameter or an op");
  CHECK(text_of([&] { apply("fill", {}); }) == "fill: apply needs an operand to know the function; use Builder::apply");
  CHECK(text_of([&] { apply("add", {x}); }) == "add takes 2 operands, got 1");
  CHECK(text_of([&] { apply("scale", {x}); }) == "scale: attribute factor is missing; it is a number");
  CHECK(text_of([&] { add(x, half); }) == "add: operand 0 is f32[5,7] but operand 1 is bf16[5,7]; convert one of them");
  CHECK(text_of([&] { apply("gelu", {x}, {}, {Type{Dtype::f32, {5}}}); }) == "gelu gives f32[5,7], not f32[5]");
  CHECK(text_of([&] { product("b m k, b k n -> b m n", x, x); }) ==
        "einsum \"b m k, b k n -> b m n\": operand 0 f32[5,7] has 2 dimensions, the rule expects 3: \"b m k\"");
  // Nothing was left behind.
  CHECK(trace.main().function().ops.empty());
  CHECK(trace.main().function().values.size() == 2);
}

TEST_CASE("state and in-place results") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value g = s.input("g", Dtype::f32, {7});
  s.param("w", {7}, {Init::uniform, 0.25});
  const Value w = trace.params()[0];
  const Value m = trace.state("w.m", w, {7}, {});
  trace.result(add(m, g).named("w.m.new"), m);
  trace.result(add(w, g).named("w.new"), w);
  const std::string printed = text(trace);
  CHECK(printed.find("%w.m: f32[7] state of %w") != std::string::npos);
  CHECK(printed.find("return %w.m.new -> %w.m, %w.new -> %w") != std::string::npos);
  CHECK(text_of([&] { trace.state("g.m", g, {7}, {}); }) == "state g.m is of %g, which is no parameter of the model");
  const Value a = add(w, g);
  CHECK(text_of([&] { trace.result(add(w, g), a); }) ==
        "%add.1 can't be returned in place of %add, which is no parameter of func main");
  const Value half = s.input("half", Dtype::bf16, {7});
  CHECK(text_of([&] { trace.result(gelu(half), w); }) == "%gelu bf16[7] can't be returned in place of %w f32[7]");
}

TEST_CASE("repeat") {
  Trace trace(table());
  Scope s = trace.scope();
  const Value x = s.input("x", Dtype::f32, {7});
  const int micro = trace.add_function("micro");
  Builder& inside = trace.builder(micro);
  const Value i = inside.param("i", {Dtype::i32, {}}, {}, 3), total = inside.param("total", {Dtype::f32, {7}});
  const Value rows = inside.param("rows", {Dtype::f32, {3, 7}});
  const Value row = inside.apply(table().get("embedding"), {i, rows}, {}, {}, "row")[0];
  inside.result(add(total, row).named("total.new"), total);
  inside.result(row);
  const Value table_of_rows = s.input("rows", Dtype::f32, {3, 7});
  const std::vector<Value> out = trace.main().repeat(micro, "micro", 3, {Value(), gelu(x), table_of_rows}, 0);
  REQUIRE(out.size() == 2);
  CHECK(out[0].name() == "micro.total.new");
  CHECK(out[1].name() == "micro.row");
  trace.result(out[0]);
  CHECK(text(trace).find("  repeat 3 call micro as micro (i = index, total = %gelu, rows = %rows)\n") !=
        std::string::npos);
  CHECK(run_counts(trace.program()) == std::vector<int64_t>{3, 1});
  CHECK(text_of([&] {
          trace.main().repeat(micro, "again", 0, {Value(), x, table_of_rows}, 0);
        }) == "repeat 0: a call is repeated once or more");
  CHECK(text_of([&] {
          trace.main().repeat(micro, "again", 2, {Value(), x, table_of_rows}, 1);
        }) == "call micro as again: argument i is none; a Value comes from an input, a parameter or an op");
  CHECK(text_of([&] {
          trace.main().repeat(micro, "again", 2, {x, Value(), table_of_rows}, 1);
        }) == "call micro as again: argument i is %x f32[7], the function takes i32[]");
  CHECK(text_of([&] { trace.main().call(micro, "again", {x}); }) ==
        "call micro as again: 1 arguments, the function takes 3");
  CHECK(text_of([&] { trace.main().call(0, "again", {}); }) == "call main as again: a function can't call itself");
}

TEST_CASE("helpers of programs") {
  CHECK(join_name("", "wq") == "wq");
  CHECK(join_name("block.0", "wq") == "block.0.wq");
  CHECK(base_name("block.0.wq@12") == "block.0.wq");
  CHECK(base_name("wq") == "wq");
  CHECK(base_name("wq@") == "wq@");
  CHECK(base_name("wq@a") == "wq@a");
  Trace trace(table());
  const Value x = trace.scope().input("x", Dtype::f32, {2});
  const Value y = add(x, x);
  gelu(y);
  const Function& f = trace.main().function();
  CHECK(users(f) == std::vector<std::vector<int>>{{0, 0}, {1}, {}});
  CHECK(f.find("add") == y.id());
  CHECK(f.find("sub") == ValueId::none);
  CHECK(f.param_index(x.id()) == 0);
  CHECK(f.param_index(y.id()) == -1);
}

TEST_CASE("a parameter that is updated is returned in place, through functions too") {
  Trace trace(table());
  Scope s = trace.scope();
  Value x = s.input("x", Dtype::f32, {4});
  for (const char* prefix : {"a", "b"}) {
    x = s.call("outer", prefix, {{"x", x}}, [](Scope& outer, const std::vector<Value>& given) {
      return outer.call("inner", "i", {{"x", given[0]}}, [](Scope& inner, const std::vector<Value>& in) {
        Value mean = inner.param("mean", {4}, {});
        Value next = add(gelu(mean), in[0]).named("mean.new");
        inner.update("mean", next);
        return std::vector<Value>{add(in[0], next)};
      });
    })[0];
  }
  trace.result(x);
  const Program p = trace.program();
  std::map<std::string, std::string> returned;
  for (const Function& f : p.functions) {
    for (const Return& r : f.returns) {
      if (r.in_place != ValueId::none) returned[f.name + " " + f.value(r.in_place).name] = f.value(r.value).name;
    }
  }
  CHECK(returned == std::map<std::string, std::string>{{"inner mean", "mean.new"},
                                                       {"outer i.mean", "i.mean.new"},
                                                       {"main a.i.mean", "a.i.mean.new"},
                                                       {"main b.i.mean", "b.i.mean.new"}});
  CHECK(p.main().returns.size() == 3);
}

TEST_CASE("wrong updates of parameters") {
  Trace trace(table());
  Scope s = trace.scope();
  Value x = s.input("x", Dtype::f32, {4});
  Value w = s.param("w", {4}, {});
  CHECK_THROWS_WITH(s.update("v", x), Catch::Contains("func main has no parameter v of the model that could be updated"));
  CHECK_THROWS_WITH(s.update("x", w), Catch::Contains("func main has no parameter x of the model"));
  CHECK_THROWS_WITH(s.update("w", s.param("one", {}, {})), Catch::Contains("parameter w is f32[4], its new value f32[]"));
  s.update("w", add(x, w));
  CHECK_THROWS_WITH(s.update("w", x), Catch::Contains("parameter w is updated already; a run gives it one value"));
}

}  // namespace
}  // namespace meshard
