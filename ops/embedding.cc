// Rows of a table by id. The table may be split over v: ids of other blocks give zeros, which leaves a pending sum.
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

void embedding_gradient(Vjp& v) {
  if (!v.needs(1)) return;
  Attributes size{{"v", v.operand(1).shape()[0]}};
  v.set(1, v.builder().apply(embedding_vjp_op(), {v.operand(0), v.cotangent()}, size)[0]);
}

}  // namespace

const OpDef& embedding_op() {
  static const OpDef def = {
      .name = "embedding",
      .purpose = "row ids[...] of the table",
      .rule = "..., v d -> ... d",
      .operand_dtypes = {Dtype::i32},
      .linear = {{1}},
      .precision = Precision::computes,
      .flops_per_point = 0,
      .vjp = embedding_gradient,
      .reference = reference::embedding,
      .cpu = cpu::embedding,
      .cases = {{"i32[2,5], f32[7,3]", "", "f32[2,5,3]", 7},
                {"i32[3], f32[5,1]", "", "f32[3,1]", 5},
                {"i32[], f32[5,3]", "", "f32[3]", 5},
                {"i32[0], f32[5,3]", "", "f32[0,3]", 5},
                {"i32[9,5], f32[50,65]", "", "", 50}},
  };
  return def;
}

const OpDef& embedding_vjp_op() {
  static const OpDef def = {
      .name = "embedding_vjp",
      .purpose = "the rows of dy summed by id into a table of v rows",
      .rule = "..., ... d -> v d",
      .attributes = {{"v", int64_t{0}, true}},
      .result_dtype = {1},
      .operand_dtypes = {Dtype::i32},
      .linear = {{1}},
      .onto = embedding_vjp_onto_op,
      .wide_results = {0},
      .flops_per_point = 0,
      .reference = reference::embedding_vjp,
      .cpu = cpu::embedding_vjp,
      .cases = {{"i32[2,5], f32[2,5,3]", "{v = 7}", "f32[7,3]", 7},
                {"i32[5], f32[5,1]", "{v = 3}", "f32[3,1]", 3},
                {"i32[0], f32[0,3]", "{v = 5}", "f32[5,3]", 5},
                {"i32[9,5], f32[9,5,65]", "{v = 50}", "", 50}},
  };
  return def;
}

const OpDef& embedding_vjp_onto_op() {
  static const OpDef def = {
      .name = "embedding_vjp_onto",
      .purpose = "the rows of dy added by id, in their order, to the rows of a table",
      .rule = "..., ... d, v d -> v d",
      .operand_dtypes = {Dtype::i32},
      .linear = {{1, 2}},
      .in_place = {{0, 2}},
      .base = 2,
      .wide_operands = {2},
      .wide_results = {0},
      .flops_per_point = 0,
      .reference = reference::embedding_vjp_onto,
      .cpu = cpu::embedding_vjp_onto,
      .cases = {{"i32[2,5], f32[2,5,3], f32[7,3]", "", "f32[7,3]", 7},
                {"i32[5], f32[5,1], f32[3,1]", "", "f32[3,1]", 3},
                {"i32[0], f32[0,3], f32[5,3]", "", "f32[5,3]", 5},
                {"i32[9,5], f32[9,5,65], f32[50,65]", "", "", 50}},
  };
  return def;
}

}  // namespace meshard
