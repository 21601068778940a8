// Cross-entropy over the last dimension v of the logits. Split over v it becomes a max, a sum and a pick, each with a
// reduction of one number a row; its gradient needs no communication.
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

constexpr std::string_view kRows = "... v -> ...";

void cross_entropy_gradient(Vjp& v) {
  if (!v.needs(0)) return;
  Value logits = v.operand(0), lse = v.result(1);
  Value out;
  if (v.cotangent(0)) out = v.builder().apply(cross_entropy_vjp_op(), {logits, v.operand(1), lse, v.cotangent(0)})[0];
  if (v.cotangent(1)) {
    // The derivative of a row's log-sum-exp is its softmax.
    constexpr std::string_view column = "... -> ... 1";
    Value probabilities = exp(sub(logits, reshape(lse, column)));
    Value through_lse = mul(probabilities, reshape(v.cotangent(1), column));
    out = out ? add(out, through_lse) : through_lse;
  }
  v.set(0, out);
}

Value emit(Lowering& l, const OpDef& op, std::vector<Value> operands, std::string_view part, Attributes attributes = {}) {
  return l.builder().apply(op, std::move(operands), std::move(attributes), {}, l.name() + std::string(part))[0];
}

void cross_entropy_lower(Lowering& l) {
  Value logits = l.operand(0), targets = l.operand(1);
  Value largest = emit(l, max_op(), {logits}, ".max", {{"rule", std::string(kRows)}});
  Value sum = emit(l, sum_exp_op(), {logits, largest}, ".sum");
  Value lse = emit(l, log_add_op(), {largest, sum}, ".lse");
  Value hit = emit(l, pick_op(), {logits, targets}, ".hit");
  l.set({emit(l, sub_op(), {lse, hit}, ""), lse});
}

void logsumexp_lower(Lowering& l) {
  Value x = l.operand(0);
  Value largest = emit(l, max_op(), {x}, ".max", {{"rule", std::string(kRows)}});
  Value sum = emit(l, sum_exp_op(), {x, largest}, ".sum");
  l.set({emit(l, log_add_op(), {largest, sum}, "")});
}

// The derivative of a row's log-sum-exp is its softmax.
void logsumexp_vjp(Vjp& v) {
  constexpr std::string_view column = "... -> ... 1";
  Value softmax = exp(sub(v.operand(), reshape(v.result(), column)));
  v.set(0, mul(softmax, reshape(v.cotangent(), column)));
}

void sum_exp_vjp(Vjp& v) {
  constexpr std::string_view column = "... -> ... 1";
  if (v.needs(0)) {
    Value terms = exp(sub(v.operand(0), reshape(v.operand(1), column)));
    v.set(0, mul(terms, reshape(v.cotangent(), column)));
  }
  if (v.needs(1)) v.set(1, neg(mul(v.result(), v.cotangent())));
}

void log_add_vjp(Vjp& v) {
  if (v.needs(0)) v.set(0, v.cotangent());
  if (v.needs(1)) v.set(1, div(v.cotangent(), v.operand(1)));
}

void pick_vjp(Vjp& v) {
  if (!v.needs(0)) return;
  Value hit = one_hot(v.operand(1), v.operand(0).shape().dims.back(), v.operand(0).type().dtype);
  v.set(0, mul(hit, reshape(v.cotangent(), "... -> ... 1")));
}

}  // namespace

const OpDef& logsumexp_op() {
  static const OpDef def = {
      .name = "logsumexp",
      .purpose = "log(sum(e^x)) over the last dimension",
      .rule = "... v -> ... | lower(v)",
      .wide_results = {0},
      .flops_per_point = 10,
      .vjp = logsumexp_vjp,
      .lower = logsumexp_lower,
      .reference = reference::logsumexp,
      .cases = {{"f32[2,3,5]", "", "f32[2,3]"}, {"f32[5,1]"}, {"f32[0,3]"}, {"f32[4]", "", "f32[]"}},
  };
  return def;
}

const OpDef& cross_entropy_op() {
  static const OpDef def = {
      .name = "cross_entropy",
      .purpose = "lse - logits[target], lse = log(sum(e^logits)) over the last dimension",
      .rule = "... v, ... -> ..., ... | lower(v)",
      .results = 2,
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .result_names = {"", "lse"},
      .wide_results = {0, 1},
      .flops_per_point = 10,
      .vjp = cross_entropy_gradient,
      .lower = cross_entropy_lower,
      .reference = reference::cross_entropy,
      .cpu = cpu::cross_entropy,
      .cases = {{"f32[2,3,5], i32[2,3]", "", "f32[2,3], f32[2,3]", 5},
                {"f32[5,3], i32[5]", "", "f32[5], f32[5]", 3},
                {"f32[5,1], i32[5]", "", "", 1},
                {"f32[0,3], i32[0]", "", "", 3},
                {"f32[4], i32[]", "", "f32[], f32[]", 4},
                {"f32[19,131], i32[19]", "", "", 131}},
  };
  return def;
}

const OpDef& cross_entropy_vjp_op() {
  static const OpDef def = {
      .name = "cross_entropy_vjp",
      .purpose = "dnll (e^(logits - lse) - (v = target)): the cotangent of the logits",
      .rule = "... v, ..., ..., ... -> ... v",
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .linear = {{3}},
      .in_place = {{0, 0}},
      .wide_operands = {2, 3},
      .flops_per_point = 10,
      .reference = reference::cross_entropy_vjp,
      .cpu = cpu::cross_entropy_vjp,
      .cases = {{"f32[2,3,5], i32[2,3], f32[2,3], f32[2,3]", "", "f32[2,3,5]", 5},
                {"f32[5,1], i32[5], f32[5], f32[5]", "", "", 1},
                {"f32[0,3], i32[0], f32[0], f32[0]", "", "", 3},
                {"f32[4], i32[], f32[], f32[]", "", "", 4},
                {"f32[19,131], i32[19], f32[19], f32[19]", "", "", 131}},
  };
  return def;
}

const OpDef& sum_exp_op() {
  static const OpDef def = {
      .name = "sum_exp",
      .purpose = "sum(e^(x - m)) over the last dimension, m a number a row",
      .rule = "... v, ... -> ...",
      .wide_operands = {1},
      .wide_results = {0},
      .flops_per_point = 9,
      .vjp = sum_exp_vjp,
      .reference = reference::sum_exp,
      .cpu = cpu::sum_exp,
      .cases = {{"f32[2,3,5], f32[2,3]", "", "f32[2,3]"},
                {"f32[5,1], f32[5]"},
                {"f32[0,3], f32[0]"},
                {"f32[4], f32[]"},
                {"f32[19,131], f32[19]"}},
  };
  return def;
}

const OpDef& log_add_op() {
  static const OpDef def = {
      .name = "log_add",
      .purpose = "m + log(s)",
      .rule = "..., ... -> ...",
      .in_place = {{0, 0}, {0, 1}},
      .precision = Precision::keeps,
      .flops_per_point = 9,
      .vjp = log_add_vjp,
      .reference = reference::log_add,
      .cpu = cpu::log_add,
      .cases = {{"f32[5,3], f32[5,3]", "", "f32[5,3]"},
                {"f32[1], f32[1]"},
                {"f32[0], f32[0]"},
                {"f32[19,31], f32[19,31]"}},
  };
  return def;
}

const OpDef& pick_op() {
  static const OpDef def = {
      .name = "pick",
      .purpose = "logits[target] over the last dimension",
      .rule = "... v, ... -> ...",
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .linear = {{0}},
      .flops_per_point = 0,
      .vjp = pick_vjp,
      .reference = reference::pick,
      .cpu = cpu::pick,
      .cases = {{"f32[2,3,5], i32[2,3]", "", "f32[2,3]", 5},
                {"f32[5,1], i32[5]", "", "", 1},
                {"f32[0,3], i32[0]", "", "", 3},
                {"f32[4], i32[]", "", "", 4},
                {"f32[19,131], i32[19]", "", "", 131}},
  };
  return def;
}

}  // namespace meshard
