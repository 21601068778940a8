// The decoder of the worked example (RMS norm, causal attention, gelu, tied embedding), held against its text.
#include <catch2/catch.hpp>

#include "meshard/autodiff/differentiate.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/tests/unit/autodiff/interpreter.h"

namespace meshard {
namespace {

Value block(Scope& s, Value x) {
  const auto weight = [&](const char* name, Shape shape) {
    return s.param(name, std::move(shape), {Init::normal, 0.5});
  };
  Value a = rms_norm(x, weight("norm1", {7})).named("a");
  Value q = einsum("b t d, d h e -> b h t e", a, weight("wq", {7, 3, 2})).named("q");
  Value k = einsum("b s d, d h e -> b h s e", a, weight("wk", {7, 3, 2})).named("k");
  Value v = einsum("b s d, d h e -> b h s e", a, weight("wv", {7, 3, 2})).named("v");
  Value o = attention(q, k, v).named("o");
  Value p = einsum("b h t e, h e d -> b t d", o, weight("wo", {3, 2, 7})).named("p");
  Value r = (x + p).named("r");
  Value c = rms_norm(r, weight("norm2", {7})).named("c");
  Value h = einsum("b t d, d f -> b t f", c, weight("up", {7, 11})).named("h");
  Value m = einsum("b t f, f d -> b t d", gelu(h).named("g"), weight("down", {11, 7})).named("m");
  return (r + m).named("y");
}

struct Decoder {
  explicit Decoder(int layers, Dtype dtype) : trace(op_table(), dtype) {
    const Scope s = trace.scope();
    const auto table = [&] { return s.param("embedding", {13, 7}, {Init::normal, 0.5}); };
    Value tokens = s.input("tokens", Dtype::i32, {3, 5}, 13), targets = s.input("targets", Dtype::i32, {3, 5}, 13);
    Value x = embedding(tokens, table()).named("x");
    for (int i = 0; i < layers; ++i) {
      x = s.call("block", "block." + std::to_string(i), {{"x", x}},
                 [](Scope& in, const std::vector<Value>& a) { return std::vector{block(in, a[0])}; })[0];
    }
    Value z = rms_norm(x, s.param("norm", {7}, {Init::normal, 0.5})).named("z");
    Value logits = einsum("b t d, v d -> b t v", z, table()).named("logits");
    Value loss = mean(cross_entropy(logits, targets).named("nll")).named("loss");
    params = trace.params();
    found = gradients(trace, loss, params);
    trace.result(loss);
    for (const Value& g : found) trace.result(g);
  }
  Trace trace;
  std::vector<Value> params, found;
};

// From `begin` up to the line that is `end`.
std::string part(const std::string& text, const std::string& begin, const std::string& end) {
  const size_t from = text.find(begin), to = text.find(end, from);
  REQUIRE(from != std::string::npos);
  REQUIRE(to != std::string::npos);
  return text.substr(from, to - from);
}

TEST_CASE("the decoder's program is that of the worked example") {
  const Decoder decoder(2, Dtype::f32);
  const std::string text = print(decoder.trace.program());
  INFO(text);
  CHECK(part(text, "  return %y", "}") ==
        "  return %y, %a, %a.rstd, %q, %k, %v, %o, %o.lse,\n      %r, %c, %c.rstd, %h\n");
  CHECK(part(text, "func block_vjp(", "  return") == R"(func block_vjp(
    %x: f32[3,5,7],
    %norm1: f32[7],
    %wq: f32[7,3,2],
    %wk: f32[7,3,2],
    %wv: f32[7,3,2],
    %wo: f32[3,2,7],
    %norm2: f32[7],
    %up: f32[7,11],
    %down: f32[11,7],
    %a: f32[3,5,7],
    %a.rstd: f32[3,5],
    %q: f32[3,3,5,2],
    %k: f32[3,3,5,2],
    %v: f32[3,3,5,2],
    %o: f32[3,3,5,2],
    %o.lse: f32[3,3,5],
    %r: f32[3,5,7],
    %c: f32[3,5,7],
    %c.rstd: f32[3,5],
    %h: f32[3,5,11],
    %y.d: f32[3,5,7]) {
  %down.use.1 = use %down : f32[11,7]
  %g.d = einsum %y.d, %down.use.1 {rule = "b t d, f d -> b t f"} : f32[3,5,11]
  %g.1 = gelu %h : f32[3,5,11]
  %down.d = einsum %g.1, %y.d {rule = "b t f, b t d -> f d"} : f32[11,7]
  %down.grad = grad %down.d : f32[11,7]
  %h.d = gelu_vjp %h, %g.d : f32[3,5,11]
  %up.use.1 = use %up : f32[7,11]
  %c.d = einsum %h.d, %up.use.1 {rule = "b t f, d f -> b t d"} : f32[3,5,7]
  %up.d = einsum %c, %h.d {rule = "b t d, b t f -> d f"} : f32[7,11]
  %up.grad = grad %up.d : f32[7,11]
  %norm2.use.1 = use %norm2 : f32[7]
  %r.d.1, %norm2.d = rms_norm_vjp %r, %norm2.use.1, %c.rstd, %c.d : f32[3,5,7], f32[7]
  %norm2.grad = grad %norm2.d : f32[7]
  %r.d = add %y.d, %r.d.1 : f32[3,5,7]
  %wo.use.1 = use %wo : f32[3,2,7]
  %o.d = einsum %r.d, %wo.use.1 {rule = "b t d, h e d -> b h t e"} : f32[3,3,5,2]
  %wo.d = einsum %o, %r.d {rule = "b h t e, b t d -> h e d"} : f32[3,2,7]
  %wo.grad = grad %wo.d : f32[3,2,7]
  %q.d, %k.d, %v.d = attention_vjp %q, %k, %v, %o, %o.lse, %o.d {causal = true} : f32[3,3,5,2], f32[3,3,5,2], f32[3,3,5,2]
  %wv.use.1 = use %wv : f32[7,3,2]
  %a.d.1 = einsum %v.d, %wv.use.1 {rule = "b h s e, d h e -> b s d"} : f32[3,5,7]
  %wv.d = einsum %a, %v.d {rule = "b s d, b h s e -> d h e"} : f32[7,3,2]
  %wv.grad = grad %wv.d : f32[7,3,2]
  %wk.use.1 = use %wk : f32[7,3,2]
  %a.d.2 = einsum %k.d, %wk.use.1 {rule = "b h s e, d h e -> b s d"} : f32[3,5,7]
  %wk.d = einsum %a, %k.d {rule = "b s d, b h s e -> d h e"} : f32[7,3,2]
  %wk.grad = grad %wk.d : f32[7,3,2]
  %a.d.3 = add %a.d.1, %a.d.2 : f32[3,5,7]
  %wq.use.1 = use %wq : f32[7,3,2]
  %a.d.4 = einsum %q.d, %wq.use.1 {rule = "b h t e, d h e -> b t d"} : f32[3,5,7]
  %wq.d = einsum %a, %q.d {rule = "b t d, b h t e -> d h e"} : f32[7,3,2]
  %wq.grad = grad %wq.d : f32[7,3,2]
  %a.d = add %a.d.3, %a.d.4 : f32[3,5,7]
  %norm1.use.1 = use %norm1 : f32[7]
  %x.d.1, %norm1.d = rms_norm_vjp %x, %norm1.use.1, %a.rstd, %a.d : f32[3,5,7], f32[7]
  %norm1.grad = grad %norm1.d : f32[7]
  %x.d = add %r.d, %x.d.1 : f32[3,5,7]
)");
  CHECK(
      part(text, "  return %x.d", "}") ==
      "  return %x.d, %norm1.grad, %wq.grad, %wk.grad, %wv.grad, %wo.grad, %norm2.grad, %up.grad,\n      %down.grad\n");
  const std::string main = text.substr(text.find("func main("));
  CHECK(part(main, "  %embedding.use", "  return") == R"(  %embedding.use = use %embedding : f32[13,7]
  %x = embedding %tokens, %embedding.use : f32[3,5,7]
  call block as block.0..1 (x = %block.#-1.y first %x)
  %norm.use = use %norm : f32[7]
  %z, %z.rstd = rms_norm %block.1.y, %norm.use {eps = 1e-05} : f32[3,5,7], f32[3,5]
  %embedding.use.1 = use %embedding : f32[13,7]
  %logits = einsum %z, %embedding.use.1 {rule = "b t d, v d -> b t v"} : f32[3,5,13]
  %nll, %nll.lse = cross_entropy %logits, %targets : f32[3,5], f32[3,5]
  %loss = mean %nll {rule = "... -> "} : f32[]
  %nll.d = fill {value = 0.06666666666666667} : f32[3,5]
  %logits.d = cross_entropy_vjp %logits, %targets, %nll.lse, %nll.d : f32[3,5,13]
  %z.d = einsum %logits.d, %embedding.use.1 {rule = "b t v, v d -> b t d"} : f32[3,5,7]
  %embedding.d.1 = einsum %z, %logits.d {rule = "b t d, b t v -> v d"} : f32[13,7]
  %block.1.y.d, %norm.d = rms_norm_vjp %block.1.y, %norm.use, %z.rstd, %z.d : f32[3,5,7], f32[7]
  %norm.grad = grad %norm.d : f32[7]
  call block_vjp as block.1..0 (x = %x first %block.0.y, y.d = %block.#+1.x.d first %block.1.y.d)
  %embedding.d.2 = embedding_vjp %tokens, %block.0.x.d {v = 13} : f32[13,7]
  %embedding.d = add %embedding.d.1, %embedding.d.2 : f32[13,7]
  %embedding.grad = grad %embedding.d : f32[13,7]
)");
}

TEST_CASE("the decoder's gradients are right") {
  const Decoder decoder(2, Dtype::f64);
  const Program program = decoder.trace.program();
  const test::DataMap inputs = test::draw_inputs(program);
  for (size_t i = 0; i < decoder.params.size(); ++i) {
    test::check_gradient(program, inputs, "loss", decoder.params[i].name(), decoder.found[i].name(), 3);
  }
}

}  // namespace
}  // namespace meshard
