#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

void softmax_gradient(Vjp& v) { v.set(0, v.builder().apply(softmax_vjp_op(), {v.result(), v.cotangent()})[0]); }

}  // namespace

const OpDef& softmax_op() {
  static const OpDef def = {
      .name = "softmax",
      .purpose = "e^x / sum e^x over the last dimension",
      .rule = "... c -> ... c | whole(c)",
      .in_place = {{0, 0}},
      .flops_per_point = 11,
      .vjp = softmax_gradient,
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
      .rule = "... c, ... c -> ... c | whole(c)",
      .linear = {{1}},
      .in_place = {{0, 0}, {0, 1}},
      .flops_per_point = 4,
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
