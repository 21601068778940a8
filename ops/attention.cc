// Attention by blocks: the scores are never stored. Rope turns its queries and keys.
#include "meshard/base/error.h"
#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

// Queries of rank 5 are grouped: r query heads share a head g of keys and values.
std::string attention_rule(std::span<const Type> operands, const Attributes&) {
  const bool grouped = !operands.empty() && operands[0].shape.rank() == 5;
  return grouped ? "b g r t e, b g s e, b g s e -> b g r t e, b g r t | whole(s, e)"
                 : "b h t e, b h s e, b h s e -> b h t e, b h t | whole(s, e)";
}

// dk and dv are summed over t: with t split they are pending.
std::string attention_vjp_rule(std::span<const Type> operands, const Attributes&) {
  const bool grouped = !operands.empty() && operands[0].shape.rank() == 5;
  return grouped
             ? "b g r t e, b g s e, b g s e, b g r t e, b g r t, b g r t e -> b g r t e, b g s e, b g s e | whole(s, e)"
             : "b h t e, b h s e, b h s e, b h t e, b h t, b h t e -> b h t e, b h s e, b h s e | whole(s, e)";
}

void attention_gradient(Vjp& v) {
  if (v.cotangent(1))
    throw UserError(v.builder().source(),
                    "attention: no gradient through its result lse, the log-sum-exp of the scores");
  auto out = v.builder().apply(attention_vjp_op(),
                               {v.operand(0), v.operand(1), v.operand(2), v.result(0), v.result(1), v.cotangent()},
                               v.attributes());
  for (int i = 0; i < 3; ++i) v.set(i, out[static_cast<size_t>(i)]);
}

void rope_gradient(Vjp& v) {
  Attributes back = v.attributes();
  back.set("inverse", !v.attributes().flag("inverse"));
  v.set(0, v.builder().apply(rope_op(), {v.cotangent()}, back)[0]);
}

std::string even_rows(std::span<const Type> operands, std::span<const Type>, const Attributes&) {
  const int64_t e = operands[0].shape.dims.back();
  if (e % 2 == 0) return "";
  return "the last dimension of operand 0 " + operands[0].str() + " is " + std::to_string(e) + ", it must be even";
}

// scale 0 stands for 1 / sqrt(e).
std::vector<AttributeSpec> attention_attributes() { return {{"causal", true}, {"scale", 0.0}}; }

}  // namespace

const OpDef& attention_op() {
  static const OpDef def = {
      .name = "attention",
      .purpose = "softmax(q k^T / sqrt(e)) v; causal: position t sees s <= t",
      .rule_for = attention_rule,
      .attributes = attention_attributes(),
      .results = 2,
      .result_names = {"", "lse"},
      .precision = Precision::computes,
      .wide_results = {1},
      .flops_per_point = 4,
      .vjp = attention_gradient,
      .reference = reference::attention,
      .cpu = cpu::attention,
      .cases = {{"f32[2,3,5,2], f32[2,3,5,2], f32[2,3,5,2]", "{causal = true}", "f32[2,3,5,2], f32[2,3,5]"},
                {"f32[1,3,5,2], f32[1,3,4,2], f32[1,3,4,2]", "{causal = false}", "f32[1,3,5,2], f32[1,3,5]"},
                {"f32[1,2,3,4,2], f32[1,2,4,2], f32[1,2,4,2]", "{causal = true}", "f32[1,2,3,4,2], f32[1,2,3,4]"},
                {"f32[1,1,3,2], f32[1,1,3,2], f32[1,1,3,2]", "{causal = true, scale = 0.3}"},
                {"f32[0,3,5,2], f32[0,3,5,2], f32[0,3,5,2]", "{causal = true}"},
                {"f32[2,2,37,16], f32[2,2,37,16], f32[2,2,37,16]", "{causal = true}"},
                {"f32[1,2,3,40,8], f32[1,2,40,8], f32[1,2,40,8]", "{causal = true}"},
                {"f32[1,2,19,24], f32[1,2,70,24], f32[1,2,70,24]", "{causal = false}"}},
  };
  return def;
}

const OpDef& attention_vjp_op() {
  static const OpDef def = {
      .name = "attention_vjp",
      .purpose = "the cotangents of q, k and v from q, k, v, o, lse and do",
      .rule_for = attention_vjp_rule,
      .attributes = attention_attributes(),
      .results = 3,
      .result_names = {"", "k", "v"},
      .precision = Precision::computes,
      .wide_operands = {4},
      .flops_per_point = 10,
      .reference = reference::attention_vjp,
      .cpu = cpu::attention_vjp,
      .cases = {{"f32[2,3,5,2], f32[2,3,5,2], f32[2,3,5,2], f32[2,3,5,2], f32[2,3,5], f32[2,3,5,2]", "{causal = true}",
                 "f32[2,3,5,2], f32[2,3,5,2], f32[2,3,5,2]"},
                {"f32[1,3,5,2], f32[1,3,4,2], f32[1,3,4,2], f32[1,3,5,2], f32[1,3,5], f32[1,3,5,2]",
                 "{causal = false}"},
                {"f32[1,2,3,4,2], f32[1,2,4,2], f32[1,2,4,2], f32[1,2,3,4,2], f32[1,2,3,4], f32[1,2,3,4,2]",
                 "{causal = true}"},
                {"f32[0,3,5,2], f32[0,3,5,2], f32[0,3,5,2], f32[0,3,5,2], f32[0,3,5], f32[0,3,5,2]", "{causal = true}"},
                {"f32[2,2,37,16], f32[2,2,37,16], f32[2,2,37,16], f32[2,2,37,16], f32[2,2,37], f32[2,2,37,16]",
                 "{causal = true}"},
                {"f32[1,2,3,40,8], f32[1,2,40,8], f32[1,2,40,8], f32[1,2,3,40,8], f32[1,2,3,40], f32[1,2,3,40,8]",
                 "{causal = true}"}},
  };
  return def;
}

const OpDef& rope_op() {
  static const OpDef def = {
      .name = "rope",
      .purpose = "the pairs (j, j + e/2) turned by the angle t theta^(-2j/e); back with inverse",
      .rule = "... t e -> ... t e | whole(e)",
      .attributes = {{"theta", 10000.0}, {"inverse", false}},
      .check = even_rows,
      .linear = {{0}},
      .flops_per_point = 6,
      .vjp = rope_gradient,
      .reference = reference::rope,
      .cpu = cpu::rope,
      .cases = {{"f32[2,3,5,4]", "{theta = 10000.0}", "f32[2,3,5,4]"},
                {"f32[5,2]", "{inverse = true, theta = 100.0}"},
                {"f32[1,6]", "{theta = 100.0}"},
                {"f32[2,0,4]", "{theta = 100.0}"},
                {"f32[2,3,19,24]", "{theta = 10000.0}"}},
  };
  return def;
}

}  // namespace meshard
