// Elements by index along a dimension k of any rank. The rows k may be split, which leaves a pending sum, and so may the
// indices and all other dimensions.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "meshard/base/error.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/emit.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

bool has(const Rule::Term& term, const std::string& name) {
  return std::any_of(term.dims.begin(), term.dims.end(),
                     [&](const auto& dim) { return std::find(dim.begin(), dim.end(), name) != dim.end(); });
}

// `with_k` has k, the others not; each name of the others is in both `all` and `with_k` or the ids.
void check(std::string_view op, std::string_view text, const Rule::Term& ids, const Rule::Term& with_k,
           const Rule::Term& without_k) {
  const auto fail = [&](const std::string& why) { throw UserError(fmt::format("{} \"{}\": {}", op, text, why)); };
  const std::string k = "k";
  if (!has(with_k, k)) fail("the dimension that the ids count is called k");
  if (has(ids, k) || has(without_k, k)) fail("k is the dimension that the ids count; it stands in one tensor only");
  for (const auto& dim : with_k.dims) {
    for (const std::string& name : dim) {
      if (name != k && !has(without_k, name)) fail(fmt::format("{} is in one tensor only; sum reduces a dimension", name));
    }
  }
  for (const auto& dim : ids.dims) {
    for (const std::string& name : dim) {
      if (!has(without_k, name)) fail(fmt::format("{} of the ids is not in what they pick", name));
    }
  }
  for (const auto& dim : without_k.dims) {
    for (const std::string& name : dim) {
      if (!has(ids, name) && !has(with_k, name)) fail(fmt::format("{} is in one tensor only", name));
    }
  }
}

std::string gather_rule(std::span<const Type>, const Attributes& attributes) {
  const std::string_view text = attributes.text("rule");
  const Rule rule = Rule::parse(text);
  if (rule.operands.size() == 2 && rule.results.size() == 1)
    check("gather", text, rule.operands[1], rule.operands[0], rule.results[0]);
  return std::string(text);
}

std::string scatter_rule(std::span<const Type>, const Attributes& attributes) {
  const std::string_view text = attributes.text("rule");
  const Rule rule = Rule::parse(text);
  if (rule.operands.size() == 2 && rule.results.size() == 1)
    check("scatter_add", text, rule.operands[0], rule.results[0], rule.operands[1]);
  return std::string(text);
}

// The rule is that of scatter_add; the base is laid out as the result.
std::string scatter_onto_rule(std::span<const Type> operands, const Attributes& attributes) {
  const std::string text = scatter_rule(operands, attributes);
  const size_t arrow = text.find("->"), marks = text.find('|');
  if (arrow == std::string::npos) return text;
  return fmt::format("{}, {} {}", text.substr(0, arrow), text.substr(arrow + 2, marks - arrow - 2), text.substr(arrow));
}

void gather_vjp(Vjp& v) {
  if (!v.needs(0)) return;
  const std::array<Type, 2> types{v.operand(0).type(), v.operand(1).type()};
  const BoundRule rule = bind_rule(gather_op(), v.attributes(), types, {}, v.builder().source());
  int64_t k = 0;
  for (const Factor& f : rule.factors)
    if (f.name == "k") k = f.size;
  const std::string text =
      bound_text(rule, std::array{rule.operands[1], rule.results[0]}, std::array{rule.operands[0]});
  v.set(0, scatter_add(v.operand(1), v.cotangent(), text, k));
}

void scatter_vjp(Vjp& v) {
  if (!v.needs(1)) return;
  const std::array<Type, 2> types{v.operand(0).type(), v.operand(1).type()};
  const BoundRule rule = bind_rule(scatter_add_op(), v.attributes(), types, {}, v.builder().source());
  const std::string text =
      bound_text(rule, std::array{rule.results[0], rule.operands[0]}, std::array{rule.operands[1]});
  v.set(1, gather(v.cotangent(), v.operand(0), text));
}

}  // namespace

const OpDef& gather_op() {
  static const OpDef def = {
      .name = "gather",
      .purpose = "the elements of x at k = id, in the order of the rule; zeros where there is no such k",
      .rule_for = gather_rule,
      .attributes = {{"rule", std::string(), true}},
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .integers = true,
      .linear = {{0}},
      .flops_per_point = 0,
      .vjp = gather_vjp,
      .reference = reference::gather,
      .cases = {{"f32[5,3], i32[4]", "{rule = \"k d, i -> i d\"}", "f32[4,3]", 6},
                {"f32[2,5,3], i32[2,4]", "{rule = \"b k d, b i -> b i d\"}", "f32[2,4,3]", 5},
                {"f32[3,5,2], i32[3,4,2]", "{rule = \"a k b, a i b -> a i b\"}", "f32[3,4,2]", 5},
                {"f32[3,5], i32[2,2]", "{rule = \"a k, i j -> i a j\"}", "f32[2,3,2]", 5},
                {"i32[5], i32[]", "{rule = \"k ..., -> ...\"}", "i32[]", 5},
                {"f32[5,3], i32[0]", "{rule = \"k d, i -> i d\"}", "f32[0,3]", 5},
                {"f32[2,1,3], i32[2,4]", "{rule = \"b k d, b i -> b i d\"}", "f32[2,4,3]", 1}},
  };
  return def;
}

const OpDef& scatter_add_op() {
  static const OpDef def = {
      .name = "scatter_add",
      .purpose = "x summed by id into a dimension k of the attribute's size, in the order of the rule",
      .rule_for = scatter_rule,
      .attributes = {{"rule", std::string(), true}, {"k", int64_t{0}, true}},
      .operand_dtypes = {Dtype::i32},
      .integers = true,
      .linear = {{1}},
      .onto = scatter_add_onto_op,
      .wide_results = {0},
      .flops_per_point = 0,
      .vjp = scatter_vjp,
      .reference = reference::scatter_add,
      .cases = {{"i32[4], f32[4,3]", "{k = 5, rule = \"i, i d -> k d\"}", "f32[5,3]", 6},
                {"i32[2,4], f32[2,4,3]", "{k = 5, rule = \"b i, b i d -> b k d\"}", "f32[2,5,3]", 5},
                {"i32[3,4,2], f32[3,4,2]", "{k = 5, rule = \"a i b, a i b -> a k b\"}", "f32[3,5,2]", 5},
                {"i32[], f32[3]", "{k = 5, rule = \", ... -> k ...\"}", "f32[5,3]", 5},
                {"i32[4], i32[4]", "{k = 3, rule = \"i, i -> k\"}", "i32[3]", 3},
                {"i32[0], f32[0,3]", "{k = 5, rule = \"i, i d -> k d\"}", "f32[5,3]", 5}},
  };
  return def;
}

const OpDef& scatter_add_onto_op() {
  static const OpDef def = {
      .name = "scatter_add_onto",
      .purpose = "x added by id, in the order of the rule, to what a base has along its dimension k",
      .rule_for = scatter_onto_rule,
      .attributes = {{"rule", std::string(), true}},
      .operand_dtypes = {Dtype::i32},
      .integers = true,
      .linear = {{1, 2}},
      .in_place = {{0, 2}},
      .base = 2,
      .wide_operands = {2},
      .wide_results = {0},
      .flops_per_point = 0,
      .reference = reference::scatter_add_onto,
      .cases = {{"i32[4], f32[4,3], f32[5,3]", "{rule = \"i, i d -> k d\"}", "f32[5,3]", 6},
                {"i32[2,4], f32[2,4,3], f32[2,5,3]", "{rule = \"b i, b i d -> b k d\"}", "f32[2,5,3]", 5},
                {"i32[3,4,2], f32[3,4,2], f32[3,5,2]", "{rule = \"a i b, a i b -> a k b\"}", "f32[3,5,2]", 5},
                {"i32[], f32[3], f32[5,3]", "{rule = \", ... -> k ...\"}", "f32[5,3]", 5},
                {"i32[4], i32[4], i32[3]", "{rule = \"i, i -> k\"}", "i32[3]", 3},
                {"i32[0], f32[0,3], f32[5,3]", "{rule = \"i, i d -> k d\"}", "f32[5,3]", 5}},
  };
  return def;
}

Value gather(Value x, Value ids, std::string_view rule, Where where) {
  return emit_one("gather", {x, ids}, where, {{"rule", std::string(rule)}});
}

Value scatter_add(Value ids, Value x, std::string_view rule, int64_t k, Where where) {
  return emit_one("scatter_add", {ids, x}, where, {{"k", k}, {"rule", std::string(rule)}});
}

}  // namespace meshard
