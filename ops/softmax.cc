// Softmax over the last dimension c. Split over c it becomes a maximum and a sum of each row, its gradient one sum of
// each row.
#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/lowering.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

void softmax_gradient(Vjp& v) { v.set(0, v.builder().apply(softmax_vjp_op(), {v.result(), v.cotangent()})[0]); }

constexpr std::string_view kRow = "... c -> ... 1";

void softmax_lower(Lowering& l) {
  const LoweredOps emit(l);
  Value largest = emit.by_rule(max_op(), l.operand(0), kRow, ".max");            // [..., 1]
  Value e = emit(exp_op(), {emit(sub_op(), {l.operand(0), largest}, ".low")}, ".exp");  // [..., c]
  l.set({emit(div_op(), {e, emit.by_rule(sum_op(), e, kRow, ".sum")}, "")});
}

void softmax_vjp_lower(Lowering& l) {
  const LoweredOps emit(l);
  Value y = l.operand(0), dy = l.operand(1);  // [..., c]
  Value dot = emit.by_rule(sum_op(), emit(mul_op(), {y, dy}, ".product"), kRow, ".dot");  // [..., 1]
  l.set({emit(mul_op(), {y, emit(sub_op(), {dy, dot}, ".centered")}, "")});
}

}  // namespace

const OpDef& softmax_op() {
  static const OpDef def = {
      .name = "softmax",
      .purpose = "e^x / sum e^x over the last dimension",
      .rule = "... c -> ... c | lower(c)",
      .in_place = {{0, 0}},
      .wide_results = {0},
      .flops_per_point = 11,
      .vjp = softmax_gradient,
      .lower = softmax_lower,
      .reference = reference::softmax,
      .cpu = cpu::softmax,
      .cases = {{"f32[5,3]", "", "f32[5,3]"}, {"f32[2,3,5]"}, {"f32[4]"}, {"f32[5,1]"}, {"f32[0,3]"}, {"f32[19,131]"}},
  };
  return def;
}

const OpDef& softmax_vjp_op() {
  static const OpDef def = {
      .name = "softmax_vjp",
      .purpose = "y (dy - sum(y dy)) over the last dimension",
      .rule = "... c, ... c -> ... c | lower(c)",
      .linear = {{1}},
      .in_place = {{0, 0}, {0, 1}},
      .flops_per_point = 4,
      .lower = softmax_vjp_lower,
      .reference = reference::softmax_vjp,
      .cpu = cpu::softmax_vjp,
      .cases = {{"f32[5,3], f32[5,3]", "", "f32[5,3]"},
                {"f32[4], f32[4]"},
                {"f32[0,3], f32[0,3]"},
                {"f32[19,131], f32[19,131]"}},
  };
  return def;
}

}  // namespace meshard
