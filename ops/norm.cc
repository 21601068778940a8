// Norms over the last dimension d. Their gradients need the statistics of the forward pass but give no cotangent for
// them. Split over d they become the sums of each row: rms_norm one, layer_norm two, their gradients as many.
#include "meshard/base/error.h"
#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/lowering.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

void refuse_statistics(const Vjp& v, int first, int last, std::string_view op) {
  for (int r = first; r <= last; ++r)
    if (v.cotangent(r))
      throw UserError(v.builder().source(), std::string(op) + ": no gradient through result " + std::to_string(r) +
                                                "; compute that statistic with mean or sum_squares");
}

void rms_norm_gradient(Vjp& v) {
  refuse_statistics(v, 1, 1, "rms_norm");
  auto out = v.builder().apply(rms_norm_vjp_op(), {v.operand(0), v.operand(1), v.result(1), v.cotangent()});
  v.set(0, out[0]);
  v.set(1, out[1]);
}

void layer_norm_gradient(Vjp& v) {
  refuse_statistics(v, 1, 2, "layer_norm");
  auto out =
      v.builder().apply(layer_norm_vjp_op(), {v.operand(0), v.operand(1), v.result(1), v.result(2), v.cotangent()});
  for (int i = 0; i < 3; ++i) v.set(i, out[static_cast<size_t>(i)]);
}

constexpr std::string_view kMean = "... d -> ... 1", kColumn = "... -> ... 1", kDropped = "... 1 -> ...";

Value mean_square(const LoweredOps& emit, Value x) {
  return emit.by_rule(mean_op(), emit(square_op(), {x}, ".square"), kMean, ".variance");
}

// 1 / sqrt(variance + eps), [..., 1].
Value inverse_root(const LoweredOps& emit, Value variance, const Attributes& attributes) {
  return emit(rsqrt_op(), {emit(offset_op(), {variance}, ".floor", {{"amount", attributes.number("eps", 1e-5)}})},
              ".column");
}

void rms_norm_lower(Lowering& l) {
  const LoweredOps emit(l);
  Value rstd = inverse_root(emit, mean_square(emit, l.operand(0)), l.attributes());
  Value y = emit(mul_op(), {emit(mul_op(), {l.operand(0), rstd}, ".unit"), l.operand(1)}, "");
  l.set({y, emit.by_rule(reshape_op(), rstd, kDropped, ".rstd")});
}

// rstd (g - unit mean(g unit)), g the cotangent of the rows of length 1.
Value without_length(const LoweredOps& emit, Value g, Value unit, Value rstd) {
  Value along = emit.by_rule(mean_op(), emit(mul_op(), {g, unit}, ".product"), kMean, ".along");  // [..., 1]
  return emit(mul_op(), {emit(sub_op(), {g, emit(mul_op(), {unit, along}, ".part")}, ".rest"), rstd}, "");
}

void rms_norm_vjp_lower(Lowering& l) {
  const LoweredOps emit(l);
  Value x = l.operand(0), dy = l.operand(3);                             // [..., d]
  Value rstd = emit.by_rule(reshape_op(), l.operand(2), kColumn, ".column");  // [..., 1]
  Value unit = emit(mul_op(), {x, rstd}, ".unit");
  Value dx = without_length(emit, emit(mul_op(), {dy, l.operand(1)}, ".g"), unit, rstd);
  l.set({dx, emit.by_rule(sum_op(), emit(mul_op(), {dy, unit}, ".w_terms"), "... d -> d", ".w")});
}

void layer_norm_lower(Lowering& l) {
  const LoweredOps emit(l);
  Value mean = emit.by_rule(mean_op(), l.operand(0), kMean, ".middle");  // [..., 1]
  Value centered = emit(sub_op(), {l.operand(0), mean}, ".centered");
  Value rstd = inverse_root(emit, mean_square(emit, centered), l.attributes());
  Value scaled = emit(mul_op(), {emit(mul_op(), {centered, rstd}, ".unit"), l.operand(1)}, ".scaled");
  Value y = emit(add_op(), {scaled, l.operand(2)}, "");
  l.set({y, emit.by_rule(reshape_op(), mean, kDropped, ".mean"), emit.by_rule(reshape_op(), rstd, kDropped, ".rstd")});
}

void layer_norm_vjp_lower(Lowering& l) {
  const LoweredOps emit(l);
  Value x = l.operand(0), dy = l.operand(4);                             // [..., d]
  Value mean = emit.by_rule(reshape_op(), l.operand(2), kColumn, ".middle");  // [..., 1]
  Value rstd = emit.by_rule(reshape_op(), l.operand(3), kColumn, ".column");  // [..., 1]
  Value unit = emit(mul_op(), {emit(sub_op(), {x, mean}, ".centered"), rstd}, ".unit");
  Value g = emit(mul_op(), {dy, l.operand(1)}, ".g");
  Value even = emit(sub_op(), {g, emit.by_rule(mean_op(), g, kMean, ".g_mean")}, ".even");
  // mean(even unit) is mean(g unit), since a row of unit adds up to 0: both sums of a row are of g and can be one
  // message.
  Value along = emit.by_rule(mean_op(), emit(mul_op(), {g, unit}, ".product"), kMean, ".along");
  Value rest = emit(sub_op(), {even, emit(mul_op(), {unit, along}, ".part")}, ".rest");
  l.set({emit(mul_op(), {rest, rstd}, ""),
         emit.by_rule(sum_op(), emit(mul_op(), {dy, unit}, ".w_terms"), "... d -> d", ".w"),
         emit.by_rule(sum_op(), dy, "... d -> d", ".b")});
}

}  // namespace

const OpDef& rms_norm_op() {
  static const OpDef def = {
      .name = "rms_norm",
      .purpose = "x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps) over the last dimension",
      .rule = "... d, d -> ... d, ... | lower(d)",
      .attributes = {{"eps", 1e-5}},
      .results = 2,
      .result_names = {"", "rstd"},
      .in_place = {{0, 0}},
      .wide_operands = {1},
      .wide_results = {1},
      .flops_per_point = 4,
      .vjp = rms_norm_gradient,
      .lower = rms_norm_lower,
      .reference = reference::rms_norm,
      .cpu = cpu::rms_norm,
      .cases = {{"f32[2,5,3], f32[3]", "{eps = 1e-05}", "f32[2,5,3], f32[2,5]"},
                {"f32[5,4], f32[4]", "{eps = 0.1}"},
                {"f32[3], f32[3]", "", "f32[3], f32[]"},
                {"f32[5,1], f32[1]"},
                {"f32[0,3], f32[3]"},
                {"f32[19,131], f32[131]"}},
  };
  return def;
}

const OpDef& rms_norm_vjp_op() {
  static const OpDef def = {
      .name = "rms_norm_vjp",
      .purpose = "the cotangents of x and weight from x, weight, rstd and dy",
      .rule = "... d, d, ..., ... d -> ... d, d | lower(d)",
      .results = 2,
      .result_names = {"", "w"},
      .wide_operands = {1, 2},
      .wide_results = {1},
      .flops_per_point = 10,
      .lower = rms_norm_vjp_lower,
      .reference = reference::rms_norm_vjp,
      .cpu = cpu::rms_norm_vjp,
      .cases = {{"f32[2,5,3], f32[3], f32[2,5], f32[2,5,3]", "", "f32[2,5,3], f32[3]"},
                {"f32[3], f32[3], f32[], f32[3]"},
                {"f32[5,1], f32[1], f32[5], f32[5,1]"},
                {"f32[0,3], f32[3], f32[0], f32[0,3]"},
                {"f32[19,131], f32[131], f32[19], f32[19,131]"}},
  };
  return def;
}

const OpDef& layer_norm_op() {
  static const OpDef def = {
      .name = "layer_norm",
      .purpose = "(x - mean) rstd weight + bias, rstd = 1 / sqrt(variance + eps) over the last dimension",
      .rule = "... d, d, d -> ... d, ..., ... | lower(d)",
      .attributes = {{"eps", 1e-5}},
      .results = 3,
      .result_names = {"", "mean", "rstd"},
      .in_place = {{0, 0}},
      .wide_operands = {1, 2},
      .wide_results = {1, 2},
      .flops_per_point = 7,
      .vjp = layer_norm_gradient,
      .lower = layer_norm_lower,
      .reference = reference::layer_norm,
      .cpu = cpu::layer_norm,
      .cases = {{"f32[2,5,3], f32[3], f32[3]", "{eps = 1e-05}", "f32[2,5,3], f32[2,5], f32[2,5]"},
                {"f32[5,4], f32[4], f32[4]", "{eps = 0.1}"},
                {"f32[3], f32[3], f32[3]", "", "f32[3], f32[], f32[]"},
                {"f32[0,3], f32[3], f32[3]"},
                {"f32[19,131], f32[131], f32[131]"}},
  };
  return def;
}

const OpDef& layer_norm_vjp_op() {
  static const OpDef def = {
      .name = "layer_norm_vjp",
      .purpose = "the cotangents of x, weight and bias from x, weight, mean, rstd and dy",
      .rule = "... d, d, ..., ..., ... d -> ... d, d, d | lower(d)",
      .results = 3,
      .result_names = {"", "w", "b"},
      .wide_operands = {1, 2, 3},
      .wide_results = {1, 2},
      .flops_per_point = 13,
      .lower = layer_norm_vjp_lower,
      .reference = reference::layer_norm_vjp,
      .cpu = cpu::layer_norm_vjp,
      .cases = {{"f32[2,5,3], f32[3], f32[2,5], f32[2,5], f32[2,5,3]", "", "f32[2,5,3], f32[3], f32[3]"},
                {"f32[3], f32[3], f32[], f32[], f32[3]"},
                {"f32[0,3], f32[3], f32[0], f32[0], f32[0,3]"},
                {"f32[19,131], f32[131], f32[19], f32[19], f32[19,131]"},
                {"f32[401,35], f32[35], f32[401], f32[401], f32[401,35]"}},
  };
  return def;
}

}  // namespace meshard
