// Norms over the last dimension. Their gradients need the statistics of the forward pass but give no cotangent for
// them.
#include "meshard/base/error.h"
#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
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

}  // namespace

const OpDef& rms_norm_op() {
  static const OpDef def = {
      .name = "rms_norm",
      .purpose = "x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps) over the last dimension",
      .rule = "... d, d -> ... d, ... | whole(d)",
      .attributes = {{"eps", 1e-5}},
      .results = 2,
      .result_names = {"", "rstd"},
      .in_place = {{0, 0}},
      .flops_per_point = 4,
      .vjp = rms_norm_gradient,
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
      .rule = "... d, d, ..., ... d -> ... d, d | whole(d)",
      .results = 2,
      .result_names = {"", "w"},
      .flops_per_point = 10,
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
      .rule = "... d, d, d -> ... d, ..., ... | whole(d)",
      .attributes = {{"eps", 1e-5}},
      .results = 3,
      .result_names = {"", "mean", "rstd"},
      .in_place = {{0, 0}},
      .flops_per_point = 7,
      .vjp = layer_norm_gradient,
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
      .rule = "... d, d, ..., ..., ... d -> ... d, d, d | whole(d)",
      .results = 3,
      .result_names = {"", "w", "b"},
      .flops_per_point = 13,
      .reference = reference::layer_norm_vjp,
      .cpu = cpu::layer_norm_vjp,
      .cases = {{"f32[2,5,3], f32[3], f32[2,5], f32[2,5], f32[2,5,3]", "", "f32[2,5,3], f32[3], f32[3]"},
                {"f32[3], f32[3], f32[], f32[], f32[3]"},
                {"f32[0,3], f32[3], f32[0], f32[0], f32[0,3]"},
                {"f32[19,131], f32[131], f32[19], f32[19], f32[19,131]"}},
  };
  return def;
}

}  // namespace meshard
