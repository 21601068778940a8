// Pairs of values, repeated over leading dimensions and over dimensions of size 1, and a value with a constant.
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

constexpr std::string_view kPair = "..., ... -> ...";

void set_pair(Vjp& v, int i, Value cotangent) { v.set(i, unbroadcast(cotangent, v.operand(i).shape())); }

void add_vjp(Vjp& v) {
  if (v.needs(0)) set_pair(v, 0, v.cotangent());
  if (v.needs(1)) set_pair(v, 1, v.cotangent());
}

void sub_vjp(Vjp& v) {
  if (v.needs(0)) set_pair(v, 0, v.cotangent());
  if (v.needs(1)) set_pair(v, 1, neg(v.cotangent()));
}

void mul_vjp(Vjp& v) {
  if (v.needs(0)) set_pair(v, 0, mul(v.cotangent(), v.operand(1)));
  if (v.needs(1)) set_pair(v, 1, mul(v.operand(0), v.cotangent()));
}

void div_vjp(Vjp& v) {
  Value da = div(v.cotangent(), v.operand(1));
  if (v.needs(0)) set_pair(v, 0, da);
  if (v.needs(1)) set_pair(v, 1, neg(mul(da, v.result())));
}

// The larger, or the smaller, takes the cotangent; of two that are equal each takes half.
void choice_vjp(Vjp& v, bool first) {
  Value dy = v.cotangent(), zero = fill(v.builder(), 0, dy.type());
  Value tied = select(equal_to(v.operand(0), v.operand(1)), scale(dy, 0.5), zero);
  const auto part = [&](bool a_first) {
    return select(less(v.operand(a_first ? 0 : 1), v.operand(a_first ? 1 : 0)), dy, tied);
  };
  if (v.needs(0)) set_pair(v, 0, part(first));
  if (v.needs(1)) set_pair(v, 1, part(!first));
}
void maximum_vjp(Vjp& v) { choice_vjp(v, false); }
void minimum_vjp(Vjp& v) { choice_vjp(v, true); }

void pow_vjp(Vjp& v) {
  Value a = v.operand(0), b = v.operand(1), dy = v.cotangent();
  if (v.needs(0)) set_pair(v, 0, mul(dy, mul(b, pow(a, offset(b, -1)))));
  if (v.needs(1)) set_pair(v, 1, mul(dy, mul(v.result(), log(a))));
}

OpDef pair(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = kPair;
  def.in_place = {{0, 0}, {0, 1}};
  def.reference = reference;
  def.cpu = cpu;
  def.repeats = true;
  def.cases = {{"f32[5,3], f32[5,3]", "", "f32[5,3]"},    {"f32[2,5,3], f32[3]", "", "f32[2,5,3]"},
               {"f32[5,1], f32[3]", "", "f32[5,3]"},      {"f32[], f32[4]", "", "f32[4]"},
               {"f32[0,3], f32[3]", "", "f32[0,3]"},      {"f32[7,129], f32[7,129]", "", "f32[7,129]"},
               {"f32[33,65], f32[65]", "", "f32[33,65]"}, {"f32[33,65], f32[33,1]", "", "f32[33,65]"}};
  return def;
}

}  // namespace

const OpDef& add_op() {
  static const OpDef def = [] {
    OpDef d = pair("add", "a + b", reference::add, cpu::add);
    d.integers = true;
    d.cases.push_back({"i32[2,5,3], i32[3]", "", "i32[2,5,3]"});
    d.linear = {{0, 1}};
    d.adds = true;
    d.vjp = add_vjp;
    return d;
  }();
  return def;
}

const OpDef& sub_op() {
  static const OpDef def = [] {
    OpDef d = pair("sub", "a - b", reference::sub, cpu::sub);
    d.integers = true;
    d.linear = {{0, 1}};
    d.vjp = sub_vjp;
    return d;
  }();
  return def;
}

const OpDef& mul_op() {
  static const OpDef def = [] {
    OpDef d = pair("mul", "a b", reference::mul, cpu::mul);
    d.integers = true;
    d.cases.push_back({"i32[5,1], i32[3]", "", "i32[5,3]"});
    d.linear = {{0}, {1}};
    d.remake = true;  // both factors are kept for the gradient anyway
    d.vjp = mul_vjp;
    return d;
  }();
  return def;
}

const OpDef& div_op() {
  static const OpDef def = [] {
    OpDef d = pair("div", "a / b", reference::div, cpu::div);
    d.linear = {{0}};
    d.vjp = div_vjp;
    return d;
  }();
  return def;
}

const OpDef& maximum_op() {
  static const OpDef def = [] {
    OpDef d = pair("maximum", "the larger of a and b", reference::maximum, cpu::maximum);
    d.integers = true;
    d.vjp = maximum_vjp;
    return d;
  }();
  return def;
}

const OpDef& minimum_op() {
  static const OpDef def = [] {
    OpDef d = pair("minimum", "the smaller of a and b", reference::minimum, cpu::minimum);
    d.integers = true;
    d.vjp = minimum_vjp;
    return d;
  }();
  return def;
}

const OpDef& pow_op() {
  static const OpDef def = [] {
    OpDef d = pair("pow", "a^b", reference::pow, nullptr);
    d.vjp = pow_vjp;
    d.precision = Precision::keeps;
    d.flops_per_point = 20;
    return d;
  }();
  return def;
}

}  // namespace meshard
