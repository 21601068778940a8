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
  const std::string start = operands.size() == 4 ? "," : "";
  return grouped ? "b g r t e, b g s e, b g s e" + start + " -> b g r t e, b g r t | whole(s, e)"
                 : "b h t e, b h s e, b h s e" + start + " -> b h t e, b h t | whole(s, e)";
}

std::string rope_rule(std::span<const Type> operands, const Attributes&) {
  return operands.size() == 2 ? "... t e, -> ... t e | whole(e)" : "... t e -> ... t e | whole(e)";
}

// dk and dv are summed over t: with t split they are pending.
std::string attention_vjp_rule(std::span<const Type> operands, const Attributes&) {
  const bool grouped = !operands.empty() && operands[0].shape.rank() == 5;
  const std::string start = operands.size() == 7 ? "," : "";
  return grouped ? "b g r t e, b g s e, b g s e, b g r t e, b g r t, b g r t e" + start +
                       " -> b g r t e, b g s e, b g s e | whole(s, e)"
                 : "b h t e, b h s e, b h s e, b h t e, b h t, b h t e" + start +
                       " -> b h t e, b h s e, b h s e | whole(s, e)";
}

void attention_gradient(Vjp& v) {
  if (v.cotangent(1))
    throw UserError(v.builder().source(),
                    "attention: no gradient through its result lse, the log-sum-exp of the scores");
  std::vector<Value> operands{v.operand(0), v.operand(1), v.operand(2), v.result(0), v.result(1), v.cotangent()};
  if (v.operand_count() == 4) operands.push_back(v.operand(3));
  auto out = v.builder().apply(attention_vjp_op(), std::move(operands), v.attributes());
  for (int i = 0; i < 3; ++i) v.set(i, out[static_cast<size_t>(i)]);
}

void rope_gradient(Vjp& v) {
  Attributes back = v.attributes();
  back.set("inverse", !v.attributes().flag("inverse"));
  std::vector<Value> operands{v.cotangent()};
  if (v.operand_count() == 2) operands.push_back(v.operand(1));
  v.set(0, v.builder().apply(rope_op(), std::move(operands), back)[0]);
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
      .purpose = "softmax(q k^T / sqrt(e)) v; causal: position t sees s <= t, or s <= start + t where a start is given",
      .rule_for = attention_rule,
      .attributes = attention_attributes(),
      .results = 2,
      .operand_dtypes = {std::nullopt, std::nullopt, std::nullopt, Dtype::i32},
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
                {"f32[2,3,5,2], f32[2,3,9,2], f32[2,3,9,2], i32[]", "{causal = true}", "", 6},
                {"f32[1,2,1,16], f32[1,2,37,16], f32[1,2,37,16], i32[]", "{causal = true}", "", 37},
                {"f32[1,2,3,2,20], f32[1,2,19,20], f32[1,2,19,20], i32[]", "{causal = true}", "", 19},
                {"f32[1,2,3,40,8], f32[1,2,40,8], f32[1,2,40,8]", "{causal = true}"},
                {"f32[1,2,19,24], f32[1,2,70,24], f32[1,2,70,24]", "{causal = false}"},
                {"f32[1,2,70,64], f32[1,2,70,64], f32[1,2,70,64]", "{causal = true}"},
                {"f32[1,1,130,24], f32[1,1,130,24], f32[1,1,130,24]", "{causal = true}"},
                {"f32[1,1,2,33,80], f32[1,1,77,80], f32[1,1,77,80], i32[]", "{causal = true}", "", 45},
                {"f32[1,1,40,128], f32[1,1,75,128], f32[1,1,75,128]", "{causal = false}"},
                {"f32[1,1,33,256], f32[1,1,33,256], f32[1,1,33,256]", "{causal = true}"},
                {"f32[1,2,5,16], f32[1,2,1,16], f32[1,2,1,16]", "{causal = true}"},
                {"f32[1,1,6,272], f32[1,1,6,272], f32[1,1,6,272]", "{causal = true}"},
                {"f32[1,1,5,16], f32[1,1,7,16], f32[1,1,7,16]", "{causal = true, scale = -0.5}"},
                // Few queries of many keys: a device shares the keys out.
                {"f32[1,2,1,64], f32[1,2,300,64], f32[1,2,300,64], i32[]", "{causal = true}", "", 300},
                {"f32[2,1,3,4,24], f32[2,1,200,24], f32[2,1,200,24], i32[]", "{causal = true}", "", 90},
                {"f32[1,1,16,128], f32[1,1,100,128], f32[1,1,100,128]", "{causal = false}"},
                {"f32[1,1,2,256], f32[1,1,50,256], f32[1,1,50,256]", "{causal = false}"}},
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
      .operand_dtypes = {std::nullopt, std::nullopt, std::nullopt, std::nullopt, std::nullopt, std::nullopt, Dtype::i32},
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
                {"f32[1,2,5,4], f32[1,2,19,4], f32[1,2,19,4], f32[1,2,5,4], f32[1,2,5], f32[1,2,5,4], i32[]",
                 "{causal = true}", "", 14},
                {"f32[1,2,3,40,8], f32[1,2,40,8], f32[1,2,40,8], f32[1,2,3,40,8], f32[1,2,3,40], f32[1,2,3,40,8]",
                 "{causal = true}"},
                {"f32[1,2,70,64], f32[1,2,70,64], f32[1,2,70,64], f32[1,2,70,64], f32[1,2,70], f32[1,2,70,64]", "{causal = true}"},
                {"f32[1,1,130,24], f32[1,1,130,24], f32[1,1,130,24], f32[1,1,130,24], f32[1,1,130], f32[1,1,130,24]", "{causal = true}"},
                {"f32[1,1,2,33,80], f32[1,1,77,80], f32[1,1,77,80], f32[1,1,2,33,80], f32[1,1,2,33], f32[1,1,2,33,80], i32[]", "{causal = true}", "", 45},
                {"f32[1,1,40,128], f32[1,1,75,128], f32[1,1,75,128], f32[1,1,40,128], f32[1,1,40], f32[1,1,40,128]", "{causal = false}"},
                {"f32[1,1,33,256], f32[1,1,33,256], f32[1,1,33,256], f32[1,1,33,256], f32[1,1,33], f32[1,1,33,256]", "{causal = true}"},
                {"f32[1,2,5,16], f32[1,2,1,16], f32[1,2,1,16], f32[1,2,5,16], f32[1,2,5], f32[1,2,5,16]", "{causal = true}"},
                {"f32[1,1,6,272], f32[1,1,6,272], f32[1,1,6,272], f32[1,1,6,272], f32[1,1,6], f32[1,1,6,272]", "{causal = true}"},
                {"f32[1,1,5,16], f32[1,1,7,16], f32[1,1,7,16], f32[1,1,5,16], f32[1,1,5], f32[1,1,5,16]", "{causal = true, scale = -0.5}"}},
  };
  return def;
}

const OpDef& rope_op() {
  static const OpDef def = {
      .name = "rope",
      .purpose = "the pairs (j, j + e/2) turned by the angle t theta^(-2j/e), or (start + t); back with inverse",
      .rule_for = rope_rule,
      .attributes = {{"theta", 10000.0}, {"inverse", false}},
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .check = even_rows,
      .linear = {{0}},
      .flops_per_point = 6,
      .vjp = rope_gradient,
      .reference = reference::rope,
      .cpu = cpu::rope,
      .cases = {{"f32[2,3,5,4]", "{theta = 10000.0}", "f32[2,3,5,4]"},
                {"f32[5,2]", "{inverse = true, theta = 100.0}"},
                {"f32[1,6]", "{theta = 100.0}"},
                {"f32[2,3,4], i32[]", "{theta = 100.0}", "f32[2,3,4]", 9},
                {"f32[2,0,4]", "{theta = 100.0}"},
                {"f32[2,3,19,24]", "{theta = 10000.0}"}},
  };
  return def;
}

}  // namespace meshard
