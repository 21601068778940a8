// Ops that move elements and compute nothing.
#include <array>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

std::string transpose_rule(std::span<const Type>, const Attributes& attributes) {
  check_none_lost("transpose", attributes.text("rule"));
  check_none_made("transpose", attributes.text("rule"));
  return std::string(attributes.text("rule"));
}

// The letters of a term one after the other; those of "..." are one.
std::vector<std::string> letters(const Rule::Term& term) {
  std::vector<std::string> out;
  for (const auto& dim : term.dims) out.insert(out.end(), dim.begin(), dim.end());
  return out;
}

// The elements keep their order only where the letters do.
std::string same_letters(std::span<const Type>, std::span<const Type>, const Attributes& attributes) {
  const std::string_view text = attributes.text("rule");
  check_none_lost("reshape", text);
  check_none_made("reshape", text);
  const Rule rule = Rule::parse(text);
  if (letters(rule.operands[0]) == letters(rule.results[0])) return "";
  return "\"" + std::string(text) + "\" has the letters in another order; transpose changes the order";
}

std::string no_letter_lost(std::span<const Type>, std::span<const Type>, const Attributes& attributes) {
  check_none_lost("broadcast", attributes.text("rule"));
  return "";
}

std::string turned_round(std::string_view text) {
  Rule rule = Rule::parse(text);
  std::swap(rule.operands, rule.results);
  return rule.str();
}

void broadcast_vjp(Vjp& v) { v.set(0, sum(v.cotangent(), turned_round(v.attributes().text("rule")))); }

void reshape_vjp(Vjp& v) {
  const BoundRule rule =
      bind_rule(reshape_op(), v.attributes(), std::array{v.operand().type()}, {}, v.builder().source());
  // Dimensions of several factors in the result are taken apart again, which needs the sizes of all but one.
  Attributes sizes;
  for (const BoundRule::Dim& dim : rule.results[0])
    for (size_t i = 0; i + 1 < dim.size(); ++i)
      sizes.set(rule.factors[static_cast<size_t>(dim[i])].name, rule.factors[static_cast<size_t>(dim[i])].size);
  v.set(0, reshape(v.cotangent(), turned_round(v.attributes().text("rule")), sizes));
}

void transpose_vjp(Vjp& v) { v.set(0, transpose(v.cotangent(), turned_round(v.attributes().text("rule")))); }

void take_vjp(Vjp& v) {
  if (v.needs(0)) v.set(0, scatter_add(v.operand(1), v.cotangent(), ", ... -> k ...", v.operand(0).shape()[0]));
}

}  // namespace

const OpDef& reshape_op() {
  static const OpDef def = {
      .name = "reshape",
      .purpose = "the same elements in the same order: dimensions split into factors, merged, or of size 1",
      .attributes = {{"rule", std::string(), true}},
      .integers = true,
      .check = same_letters,
      .linear = {{0}},
      .in_place = {{0, 0}},
      .remake = true,
      .flops_per_point = 0,
      .vjp = reshape_vjp,
      .reference = reference::reshape,
      .cpu = cpu::reshape,
      .cases = {{"i32[5,6]", "{h = 3, rule = \"t (h e) -> t h e\"}", "i32[5,3,2]"},
                {"f32[5,6]", "{h = 2, rule = \"t (h e) -> t h e\"}", "f32[5,2,3]"},
                {"f32[5,2,3]", "{rule = \"t h e -> t (h e)\"}", "f32[5,6]"},
                {"f32[3,4,5]", "{rule = \"b h e -> (b h) e\"}", "f32[12,5]"},
                {"f32[12]", "{h = 2, rule = \"(h e) -> h 1 e\"}", "f32[2,1,6]"},
                {"f32[5,1,3]", "{rule = \"t 1 d -> t d\"}", "f32[5,3]"},
                {"f32[5,3]", "{rule = \"... d -> ... d 1\"}", "f32[5,3,1]"},
                {"f32[0,6]", "{h = 2, rule = \"t (h e) -> t h e\"}", "f32[0,2,3]"},
                {"f32[17,48]", "{h = 3, rule = \"t (h e) -> t h e\"}"}},
  };
  return def;
}

const OpDef& transpose_op() {
  static const OpDef def = {
      .name = "transpose",
      .purpose = "the dimensions in another order",
      .rule_for = transpose_rule,
      .attributes = {{"rule", std::string(), true}},
      .integers = true,
      .linear = {{0}},
      .flops_per_point = 0,
      .vjp = transpose_vjp,
      .reference = reference::transpose,
      .cpu = cpu::transpose,
      .cases = {{"i32[5,3]", "{rule = \"a b -> b a\"}", "i32[3,5]"},
                {"f32[5,3]", "{rule = \"a b -> b a\"}", "f32[3,5]"},
                {"f32[2,5,3,1]", "{rule = \"b t h e -> b h t e\"}", "f32[2,3,5,1]"},
                {"f32[2,5,3]", "{rule = \"... a b -> ... b a\"}", "f32[2,3,5]"},
                {"f32[2,3,4]", "{rule = \"a b c -> c a b\"}", "f32[4,2,3]"},
                {"f32[0,3]", "{rule = \"a b -> b a\"}", "f32[3,0]"},
                {"f32[67,35]", "{rule = \"a b -> b a\"}"},
                {"f32[2,9,5,16]", "{rule = \"b t h e -> b h t e\"}"}},
  };
  return def;
}

const OpDef& broadcast_op() {
  static const OpDef def = {
      .name = "broadcast",
      .purpose = "repeated along the names that only the result has, whose sizes are attributes",
      .attributes = {{"rule", std::string(), true}},
      .integers = true,
      .check = no_letter_lost,
      .linear = {{0}},
      .remake = true,
      .flops_per_point = 0,
      .vjp = broadcast_vjp,
      .reference = reference::transpose,
      .cpu = cpu::transpose,
      .cases = {{"i32[5,3]", "{rule = \"b d -> b t d\", t = 2}", "i32[5,2,3]"},
                {"f32[5,3]", "{rule = \"b d -> b t d\", t = 4}", "f32[5,4,3]"},
                {"f32[5,3]", "{rule = \"b d -> d t b\", t = 1}", "f32[3,1,5]"},
                {"f32[5,1]", "{rule = \"b 1 -> b t\", t = 3}", "f32[5,3]"},
                {"f32[5,3]", "{rule = \"b d -> b t d\", t = 0}", "f32[5,0,3]"},
                {"f32[33,65]", "{rule = \"b d -> b t d\", t = 3}"}},
  };
  return def;
}

const OpDef& take_op() {
  static const OpDef def = {
      .name = "take",
      .purpose = "element i of the first dimension, 0 <= i < k; split over k it leaves a pending sum",
      .rule = "k ..., -> ...",
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .integers = true,
      .linear = {{0}},
      .flops_per_point = 0,
      .vjp = take_vjp,
      .reference = reference::take,
      .cpu = cpu::take,
      .cases = {{"f32[4,5,3], i32[]", "", "f32[5,3]"},
                {"f32[5], i32[]", "", "f32[]"},
                {"f32[1,3], i32[]", "", "f32[3]", 1},
                {"f32[4,0], i32[]", "", "f32[0]"},
                {"f32[4,33,65], i32[]"}},
  };
  return def;
}

}  // namespace meshard
