// One value, element by element, without attributes. Gradients read the result where that is cheaper than the operand.
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/ops.h"
#include "meshard/ops/unary.h"

namespace meshard {

OpDef unary(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = "... -> ...";
  def.in_place = {{0, 0}};
  def.reference = reference;
  def.cpu = cpu;
  def.cases = {{"f32[5,3]", "", "f32[5,3]"}, {"f32[1,5]"},   {"f32[0,3]"},
               {"f32[]", "", "f32[]"},       {"f32[3,2,4]"}, {"f32[29,67]"}};
  return def;
}

OpDef unary_vjp(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu) {
  OpDef def = unary(name, purpose, reference, cpu);
  def.rule = "..., ... -> ...";
  def.in_place = {{0, 0}, {0, 1}};
  def.linear = {{1}};
  def.cases = {
      {"f32[5,3], f32[5,3]", "", "f32[5,3]"}, {"f32[1], f32[1]"}, {"f32[0,3], f32[0,3]"}, {"f32[29,67], f32[29,67]"}};
  return def;
}

namespace {

void neg_vjp(Vjp& v) { v.set(0, neg(v.cotangent())); }
void exp_vjp(Vjp& v) { v.set(0, mul(v.cotangent(), v.result())); }
void log_vjp(Vjp& v) { v.set(0, div(v.cotangent(), v.operand())); }
void sqrt_vjp(Vjp& v) { v.set(0, scale(div(v.cotangent(), v.result()), 0.5)); }
void rsqrt_vjp(Vjp& v) { v.set(0, scale(mul(mul(v.cotangent(), v.result()), square(v.result())), -0.5)); }
void square_vjp(Vjp& v) { v.set(0, scale(mul(v.cotangent(), v.operand()), 2)); }
void tanh_vjp(Vjp& v) { v.set(0, sub(v.cotangent(), mul(v.cotangent(), square(v.result())))); }
void sigmoid_vjp(Vjp& v) {
  Value part = mul(v.cotangent(), v.result());
  v.set(0, sub(part, mul(part, v.result())));
}
void reciprocal_vjp(Vjp& v) { v.set(0, neg(mul(v.cotangent(), square(v.result())))); }
void gelu_gradient(Vjp& v) { v.set(0, v.builder().apply(gelu_vjp_op(), {v.operand(), v.cotangent()})[0]); }
void silu_gradient(Vjp& v) { v.set(0, v.builder().apply(silu_vjp_op(), {v.operand(), v.cotangent()})[0]); }

void zero_vjp(Vjp& v) { v.set(0, fill(v.builder(), 0, v.operand().type())); }
void abs_vjp(Vjp& v) { v.set(0, mul(v.cotangent(), sign(v.operand()))); }
void sin_vjp(Vjp& v) { v.set(0, mul(v.cotangent(), cos(v.operand()))); }
void cos_vjp(Vjp& v) { v.set(0, neg(mul(v.cotangent(), sin(v.operand())))); }

// Ops on one value that differ only in formula and gradient.
OpDef smooth(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu, void (*vjp)(Vjp&),
             double flops) {
  OpDef def = unary(name, purpose, reference, cpu);
  def.vjp = vjp;
  def.flops_per_point = flops;
  return def;
}

// In f32 in a program of mixed precision: a few bits of the operand are many of the result, or the other way round.
OpDef wide(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu, void (*vjp)(Vjp&),
           double flops) {
  OpDef def = smooth(name, purpose, reference, cpu, vjp, flops);
  def.precision = Precision::keeps;
  return def;
}

}  // namespace

const OpDef& neg_op() {
  static const OpDef def = [] {
    OpDef d = smooth("neg", "-x", reference::neg, cpu::neg, neg_vjp, 1);
    d.integers = true;
    d.linear = {{0}};
    return d;
  }();
  return def;
}

const OpDef& exp_op() {
  static const OpDef def = wide("exp", "e^x", reference::exp, cpu::exp, exp_vjp, 8);
  return def;
}

const OpDef& log_op() {
  static const OpDef def = wide("log", "the natural logarithm of x", reference::log, cpu::log, log_vjp, 8);
  return def;
}

const OpDef& sqrt_op() {
  static const OpDef def = wide("sqrt", "the square root of x", reference::sqrt, cpu::sqrt, sqrt_vjp, 2);
  return def;
}

const OpDef& rsqrt_op() {
  static const OpDef def = wide("rsqrt", "1 / sqrt(x)", reference::rsqrt, cpu::rsqrt, rsqrt_vjp, 2);
  return def;
}

const OpDef& square_op() {
  static const OpDef def = smooth("square", "x^2", reference::square, cpu::square, square_vjp, 1);
  return def;
}

const OpDef& tanh_op() {
  static const OpDef def = smooth("tanh", "the hyperbolic tangent of x", reference::tanh, cpu::tanh, tanh_vjp, 10);
  return def;
}

const OpDef& sigmoid_op() {
  static const OpDef def = smooth("sigmoid", "1 / (1 + e^-x)", reference::sigmoid, cpu::sigmoid, sigmoid_vjp, 10);
  return def;
}

const OpDef& reciprocal_op() {
  static const OpDef def = wide("reciprocal", "1 / x", reference::reciprocal, cpu::reciprocal, reciprocal_vjp, 1);
  return def;
}

const OpDef& gelu_op() {
  static const OpDef def = [] {
    OpDef d = smooth("gelu", "x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2", reference::gelu, cpu::gelu,
                     gelu_gradient, 14);
    d.activation = true;
    d.remake = true;  // its operand is kept for the gradient anyway
    return d;
  }();
  return def;
}

const OpDef& gelu_vjp_op() {
  static const OpDef def = [] {
    OpDef d = unary_vjp("gelu_vjp", "dy times the derivative of gelu at x", reference::gelu_vjp, cpu::gelu_vjp);
    d.flops_per_point = 22;
    return d;
  }();
  return def;
}

const OpDef& silu_op() {
  static const OpDef def = [] {
    OpDef d = smooth("silu", "x sigmoid(x)", reference::silu, cpu::silu, silu_gradient, 11);
    d.activation = true;
    d.remake = true;  // its operand is kept for the gradient anyway
    return d;
  }();
  return def;
}

const OpDef& silu_vjp_op() {
  static const OpDef def = [] {
    OpDef d = unary_vjp("silu_vjp", "dy times the derivative of silu at x", reference::silu_vjp, cpu::silu_vjp);
    d.flops_per_point = 15;
    return d;
  }();
  return def;
}

const OpDef& abs_op() {
  static const OpDef def = smooth("abs", "the magnitude of x", reference::abs, nullptr, abs_vjp, 1);
  return def;
}

const OpDef& sign_op() {
  static const OpDef def = smooth("sign", "-1, 0 or 1; no gradient flows", reference::sign, nullptr, zero_vjp, 1);
  return def;
}

const OpDef& floor_op() {
  static const OpDef def =
      smooth("floor", "the largest integer up to x; no gradient flows", reference::floor, nullptr, zero_vjp, 1);
  return def;
}

const OpDef& sin_op() {
  static const OpDef def = smooth("sin", "the sine of x", reference::sin, nullptr, sin_vjp, 10);
  return def;
}

const OpDef& cos_op() {
  static const OpDef def = smooth("cos", "the cosine of x", reference::cos, nullptr, cos_vjp, 10);
  return def;
}

}  // namespace meshard
