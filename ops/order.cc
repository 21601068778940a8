// Rows in order. Where a row is split, top_k takes the best of each block and then the best of those, and argmax asks for
// the largest first and then where it stands: what travels is a few numbers a row.
#include <fmt/format.h>

#include <algorithm>

#include "meshard/base/error.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/emit.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/line.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

constexpr std::string_view kRows = "... v -> ...";

// Cotangents go where the elements came from.
void scatter_back(Vjp& v) {
  if (!v.cotangent(0)) return;
  v.set(0, scatter_add(v.result(1), v.cotangent(0), "... i, ... i -> ... k", v.operand().shape().dims.back()));
}

int64_t checked_k(std::string_view op, std::span<const Type> operands, const Attributes& attributes) {
  const int64_t k = attributes.integer("k");
  if (operands.empty() || operands[0].shape.rank() == 0) throw UserError(fmt::format("{}: no operand with a dimension", op));
  if (k < 1 || k > operands[0].shape.dims.back())
    throw UserError(fmt::format("{}: k is {}, but a row of {} has {}", op, k, operands[0].str(), operands[0].shape.dims.back()));
  return k;
}

std::string top_k_rule(std::span<const Type> operands, const Attributes& attributes) {
  checked_k("top_k", operands, attributes);
  return "... v -> ... k, ... k | lower(v), whole(k)";
}

std::string merge_rule(std::span<const Type> operands, const Attributes& attributes) {
  checked_k("merge_top_k", operands, attributes);
  return "... v, ... v -> ... k, ... k | whole(v,k)";
}

std::string block_rule(std::span<const Type>, const Attributes& attributes) {
  const int64_t k = attributes.integer("k"), parts = attributes.integer("parts");
  if (k < 1 || parts < 1) throw UserError(fmt::format("block_top_k: k is {} and parts {}; both are 1 or more", k, parts));
  return fmt::format("... v~ -> ... v, ... v | size(v={})", k * parts);
}

// The blocks whose candidates lie in the result's.
Block block_reach(const Reach& r) {
  const int64_t k = r.attributes.integer("k"), parts = r.attributes.integer("parts"), n = r.extent();
  const int64_t begin = part_begin(n, parts, r.block.begin / k), end = part_begin(n, parts, (r.block.end() + k - 1) / k);
  return {begin, end - begin};
}

void top_k_lower(Lowering& l) {
  const int64_t k = l.attributes().integer("k");
  const int last = l.operand(0).shape().rank() - 1;
  const Attributes in_parts{{"k", k}, {"parts", parts_of(l.operand(0), last)}};
  const auto best = l.builder().apply(block_top_k_op(), {l.operand(0)}, in_parts, {}, l.name() + ".best");
  l.set(l.builder().apply(merge_top_k_op(), {best[0], best[1]}, {{"k", k}}, {}, l.name()));
}

void arg_lower(Lowering& l, const OpDef& extreme) {
  const Attributes rule{{"rule", std::string(kRows)}};
  Value top = l.builder().apply(extreme, {l.operand(0)}, rule, {}, l.name() + ".top")[0];
  l.set({l.builder().apply(index_of_op(), {l.operand(0), top}, {}, {}, l.name())[0]});
}
void argmax_lower(Lowering& l) { arg_lower(l, max_op()); }
void argmin_lower(Lowering& l) { arg_lower(l, min_op()); }

OpDef arg(std::string_view name, std::string_view purpose, PrepareFn reference, void (*lower)(Lowering&)) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = "... v -> ... | lower(v)";
  def.result_dtype = {kInteger};
  def.integers = true;
  def.lower = lower;
  def.reference = reference;
  def.cases = {{"f32[2,3,5]", "", "i32[2,3]"}, {"i32[5,7]", "", "i32[5]", 3}, {"f32[5,1]"}, {"f32[0,3]"}, {"f32[4]", "", "i32[]"}};
  return def;
}

}  // namespace

const OpDef& sort_op() {
  static const OpDef def = {
      .name = "sort",
      .purpose = "each row over the last dimension in order, and where its elements stood; equal ones keep their order",
      .rule = "... v -> ... v, ... v | whole(v)",
      .attributes = {{"descending", false}},
      .results = 2,
      .result_dtype = {-1, kInteger},
      .integers = true,
      .result_names = {"", "ids"},
      .flops_per_point = 10,
      .vjp = scatter_back,
      .reference = reference::sort,
      .cases = {{"f32[5,3]", "", "f32[5,3], i32[5,3]"},
                {"f32[2,3,4]", "{descending = true}", "f32[2,3,4], i32[2,3,4]"},
                {"i32[3,7]", "", "i32[3,7], i32[3,7]", 3},
                {"f32[4]"},
                {"f32[0,3]"},
                {"f32[5,1]"}},
  };
  return def;
}

const OpDef& top_k_op() {
  static const OpDef def = {
      .name = "top_k",
      .purpose = "the k largest of each row over the last dimension, largest first, and where they stood",
      .rule_for = top_k_rule,
      .attributes = {{"k", int64_t{0}, true}},
      .results = 2,
      .result_dtype = {-1, kInteger},
      .integers = true,
      .result_names = {"", "ids"},
      .vjp = scatter_back,
      .lower = top_k_lower,
      .reference = reference::top_k,
      .cases = {{"f32[5,3]", "{k = 2}", "f32[5,2], i32[5,2]"},
                {"f32[2,3,7]", "{k = 3}", "f32[2,3,3], i32[2,3,3]"},
                {"i32[3,7]", "{k = 4}", "i32[3,4], i32[3,4]", 3},
                {"f32[4]", "{k = 1}"},
                {"f32[0,3]", "{k = 2}"},
                {"f32[5,1]", "{k = 1}"}},
  };
  return def;
}

const OpDef& block_top_k_op() {
  static const OpDef def = {
      .name = "block_top_k",
      .purpose = "the k largest of each of `parts` blocks of a row, and where they stood; a block of fewer has -inf, too",
      .rule_for = block_rule,
      .attributes = {{"k", int64_t{0}, true}, {"parts", int64_t{0}, true}},
      .results = 2,
      .result_dtype = {-1, kInteger},
      .integers = true,
      .result_names = {"", "ids"},
      .reach = block_reach,
      .reference = reference::block_top_k,
      .cases = {{"f32[5,3]", "{k = 2, parts = 2}", "f32[5,4], i32[5,4]"},
                {"f32[2,7]", "{k = 3, parts = 4}", "f32[2,12], i32[2,12]"},
                {"i32[7]", "{k = 1, parts = 3}", "i32[3], i32[3]"}},
  };
  return def;
}

const OpDef& merge_top_k_op() {
  static const OpDef def = {
      .name = "merge_top_k",
      .purpose = "the k largest of each row, largest first, and what the second operand says of them",
      .rule_for = merge_rule,
      .attributes = {{"k", int64_t{0}, true}},
      .results = 2,
      .result_dtype = {-1, kInteger},
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .integers = true,
      .result_names = {"", "ids"},
      .reference = reference::top_k,
      .cases = {{"f32[5,3], i32[5,3]", "{k = 2}", "f32[5,2], i32[5,2]", 9},
                {"f32[2,8], i32[2,8]", "{k = 3}", "f32[2,3], i32[2,3]", 9},
                {"i32[7], i32[7]", "{k = 7}", "i32[7], i32[7]", 9}},
  };
  return def;
}

const OpDef& argmax_op() {
  static const OpDef def =
      arg("argmax", "where the largest of each row over the last dimension stands, the first of equal ones",
          reference::argmax, argmax_lower);
  return def;
}

const OpDef& argmin_op() {
  static const OpDef def =
      arg("argmin", "where the smallest of each row over the last dimension stands, the first of equal ones",
          reference::argmin, argmin_lower);
  return def;
}

const OpDef& index_of_op() {
  static const OpDef def = {
      .name = "index_of",
      .purpose = "the first index over the last dimension where x is m, a number a row; 2^31 - 1 where it is nowhere",
      .rule = "... v, ... -> ...",
      .result_dtype = {kInteger},
      .integers = true,
      .combine = Reduction::min,
      .reference = reference::index_of,
      .cases = {{"i32[2,3,5], i32[2,3]", "", "i32[2,3]", 3},
                {"f32[5,1], f32[5]", "", "i32[5]"},
                {"i32[0,3], i32[0]", "", "i32[0]"},
                {"i32[4], i32[]", "", "i32[]", 3}},
  };
  return def;
}

std::array<Value, 2> sort(Value x, bool descending, Where where) {
  Attributes a;
  if (descending) a.set("descending", true);
  const auto out = emit_all("sort", {x}, where, a);
  return {out.at(0), out.at(1)};
}

std::array<Value, 2> top_k(Value x, int64_t k, Where where) {
  const auto out = emit_all("top_k", {x}, where, {{"k", k}});
  return {out.at(0), out.at(1)};
}

Value argmax(Value x, Where where) { return emit_one("argmax", {x}, where); }
Value argmin(Value x, Where where) { return emit_one("argmin", {x}, where); }

}  // namespace meshard
