// Comparisons, select and bits. A truth value is an i32, 0 or 1.
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"
#include "meshard/ops/unary.h"

namespace meshard {
namespace {

constexpr std::string_view kPair = "..., ... -> ...";

OpDef comparison(std::string_view name, std::string_view purpose, PrepareFn reference) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = kPair;
  def.result_dtype = {kInteger};
  def.integers = true;
  def.repeats = true;
  def.remake = true;
  def.reference = reference;
  def.cases = {{"f32[5,3], f32[5,3]", "", "i32[5,3]"},
               {"i32[2,5,3], i32[3]", "", "i32[2,5,3]"},
               {"f32[5,1], f32[3]", "", "i32[5,3]"},
               {"i32[], i32[4]", "", "i32[4]"},
               {"f32[0,3], f32[3]", "", "i32[0,3]"}};
  return def;
}

OpDef bits(std::string_view name, std::string_view purpose, PrepareFn reference) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = kPair;
  def.result_dtype = {kInteger};
  def.operand_dtypes = {Dtype::i32, Dtype::i32};
  def.repeats = true;
  def.in_place = {{0, 0}, {0, 1}};
  def.reference = reference;
  def.cases = {{"i32[5,3], i32[5,3]", "", "i32[5,3]", 100},
               {"i32[2,5,3], i32[3]", "", "i32[2,5,3]", 40},
               {"i32[], i32[4]", "", "i32[4]", 20},
               {"i32[0,3], i32[3]", "", "i32[0,3]", 20}};
  return def;
}

void select_vjp(Vjp& v) {
  Value c = v.operand(0), zero = fill(v.builder(), 0, v.cotangent().type());
  if (v.needs(1)) v.set(1, unbroadcast(select(c, v.cotangent(), zero), v.operand(1).shape()));
  if (v.needs(2)) v.set(2, unbroadcast(select(c, zero, v.cotangent()), v.operand(2).shape()));
}

}  // namespace

const OpDef& less_op() {
  static const OpDef def = comparison("less", "1 where a < b, else 0", reference::less);
  return def;
}

const OpDef& less_equal_op() {
  static const OpDef def = comparison("less_equal", "1 where a <= b, else 0", reference::less_equal);
  return def;
}

const OpDef& equal_to_op() {
  static const OpDef def = comparison("equal_to", "1 where a = b, else 0", reference::equal_to);
  return def;
}

const OpDef& not_equal_op() {
  static const OpDef def = comparison("not_equal", "1 where a and b differ, else 0", reference::not_equal);
  return def;
}

const OpDef& select_op() {
  static const OpDef def = {
      .name = "select",
      .purpose = "a where c is not 0, else b",
      .rule = "..., ..., ... -> ...",
      .operand_dtypes = {Dtype::i32},
      .integers = true,
      .repeats = true,
      .linear = {{1, 2}},
      .in_place = {{0, 1}, {0, 2}},
      .vjp = select_vjp,
      .reference = reference::select,
      .cases = {{"i32[5,3], f32[5,3], f32[5,3]", "", "f32[5,3]", 2},
                {"i32[3], f32[2,5,3], f32[]", "", "f32[2,5,3]", 2},
                {"i32[5,1], f32[5,3], f32[3]", "", "f32[5,3]", 2},
                {"i32[4], i32[4], i32[4]", "", "i32[4]", 2},
                {"i32[0,3], f32[0,3], f32[3]", "", "f32[0,3]", 2}},
  };
  return def;
}

const OpDef& bit_and_op() {
  static const OpDef def = bits("bit_and", "the bits that both have", reference::bit_and);
  return def;
}

const OpDef& bit_or_op() {
  static const OpDef def = bits("bit_or", "the bits that either has", reference::bit_or);
  return def;
}

const OpDef& bit_xor_op() {
  static const OpDef def = bits("bit_xor", "the bits that one of them has", reference::bit_xor);
  return def;
}

const OpDef& bit_not_op() {
  static const OpDef def = [] {
    OpDef d = unary("bit_not", "the bits that it has not", reference::bit_not, nullptr);
    d.result_dtype = {kInteger};
    d.operand_dtypes = {Dtype::i32};
    d.cases = {{"i32[5,3]", "", "i32[5,3]"}, {"i32[]"}, {"i32[0,3]"}, {"i32[3,2,4]"}};
    return d;
  }();
  return def;
}

const OpDef& shift_left_op() {
  static const OpDef def = bits("shift_left", "a 2^b, 0 <= b < 32", reference::shift_left);
  return def;
}

const OpDef& shift_right_op() {
  static const OpDef def = bits("shift_right", "floor(a / 2^b), 0 <= b < 32", reference::shift_right);
  return def;
}

}  // namespace meshard
