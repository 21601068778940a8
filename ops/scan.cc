// Running sums and the recurrence h_t = a_t h_{t-1} + b_t along a dimension. Where it is split into blocks, each device
// makes the total of its block, all get all totals, and each block begins with what the blocks before it made: one number
// a line travels from each device, not the dimension.
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

template <int kLines>
std::string whole_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int d = line_dimension(kLines == 1 ? "cumsum" : "scan", attributes, operands);
  const std::string t = line_term(operands[0].shape.rank(), d, "t");
  return kLines == 1 ? fmt::format("{0} -> {0} | lower(t)", t) : fmt::format("{0}, {0} -> {0} | lower(t)", t);
}

// The same with the carry of each block as the last operand.
template <int kLines>
std::string carried_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int d = line_dimension(kLines == 1 ? "cumsum_from" : "scan_from", attributes, operands);
  const int rank = operands[0].shape.rank();
  if (operands.size() != kLines + 1) {
    throw UserError(fmt::format("{} takes {} operands, got {}", kLines == 1 ? "cumsum_from" : "scan_from", kLines + 1,
                                operands.size()));
  }
  const std::string x = line_term(rank, d, "t~"), y = line_term(rank, d, "t");
  const int64_t size = operands[0].shape[d], parts = attributes.integer("parts");
  const Type& carry = operands.back();
  if (parts < 1 || carry.shape.rank() != rank || carry.shape[d] != parts || operands[kLines - 1].shape != operands[0].shape)
    throw UserError(fmt::format("{}: the carry is {}, with parts = {} of {}", kLines == 1 ? "cumsum_from" : "scan_from",
                                carry.str(), parts, operands[0].str()));
  return kLines == 1 ? fmt::format("{0}, {0} -> {1} | size(t={2})", x, y, size)
                     : fmt::format("{0}, {0}, {0} -> {1} | size(t={2})", x, y, size);
}

template <int kLines>
std::string totals_rule(std::span<const Type> operands, const Attributes& attributes) {
  const std::string_view op = kLines == 1 ? "block_sum" : "block_scan";
  const int d = line_dimension(op, attributes, operands), rank = operands[0].shape.rank();
  const int64_t parts = attributes.integer("parts");
  if (parts < 1) throw UserError(fmt::format("{}: parts is {}; it is 1 or more", op, parts));
  const std::string x = line_term(rank, d, "t~"), y = line_term(rank, d, "t");
  return kLines == 1 ? fmt::format("{} -> {} | size(t={})", x, y, parts)
                     : fmt::format("{0}, {0} -> {1}, {1} | size(t={2})", x, y, parts);
}

template <int kLines>
std::string before_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int d = line_dimension(kLines == 1 ? "exclusive_sum" : "exclusive_scan", attributes, operands);
  const std::string t = line_term(operands[0].shape.rank(), d, "t");
  return kLines == 1 ? fmt::format("{0} -> {0} | whole(t)", t) : fmt::format("{0}, {0} -> {0} | whole(t)", t);
}

// For its block of t an op reads the blocks that t lies in: the carry of each, and the elements from the first one's
// beginning on, since a running sum starts there.
template <int kLines>
Block whole_reach(const Reach& r) {
  const int64_t n = r.size, parts = r.attributes.integer("parts", 1);
  const int64_t first = part_of(n, parts, r.block.begin), last = part_of(n, parts, r.block.end() - 1);
  if (r.operand == kLines) return {first, last + 1 - first};
  const bool reverse = r.attributes.flag("reverse");
  const int64_t begin = reverse ? r.block.begin : part_begin(n, parts, first);
  const int64_t end = reverse ? part_begin(n, parts, last + 1) : r.block.end();
  return {begin, end - begin};
}

Block totals_reach(const Reach& r) {
  const int64_t begin = part_begin(r.extent(), r.size, r.block.begin), end = part_begin(r.extent(), r.size, r.block.end());
  return {begin, end - begin};
}

Attributes line_attributes(const Attributes& a) {
  Attributes out{{"dimension", a.integer("dimension")}};
  if (a.flag("reverse")) out.set("reverse", true);
  return out;
}

void cumsum_lower(Lowering& l) {
  Attributes a = line_attributes(l.attributes()), in_parts = a;
  in_parts.set("parts", parts_of(l.operand(0), static_cast<int>(a.integer("dimension"))));
  const auto emit = [&](const OpDef& op, std::vector<Value> operands, const Attributes& attributes, const char* part) {
    return l.builder().apply(op, std::move(operands), attributes, {}, l.name() + part)[0];
  };
  Value totals = emit(block_sum_op(), {l.operand(0)}, in_parts, ".totals");
  Value before = emit(exclusive_sum_op(), {totals}, a, ".before");
  l.set({emit(cumsum_from_op(), {l.operand(0), before}, in_parts, "")});
}

void scan_lower(Lowering& l) {
  Attributes a = line_attributes(l.attributes()), in_parts = a;
  const auto d = static_cast<int>(a.integer("dimension"));
  in_parts.set("parts", std::max(parts_of(l.operand(0), d), parts_of(l.operand(1), d)));
  const auto emit = [&](const OpDef& op, std::vector<Value> operands, const Attributes& attributes, const char* part) {
    return l.builder().apply(op, std::move(operands), attributes, {}, l.name() + part);
  };
  const std::vector<Value> totals = emit(block_scan_op(), {l.operand(0), l.operand(1)}, in_parts, ".totals");
  Value before = emit(exclusive_scan_op(), {totals[0], totals[1]}, a, ".before")[0];
  l.set({emit(scan_from_op(), {l.operand(0), l.operand(1), before}, in_parts, "")[0]});
}

void cumsum_vjp(Vjp& v) {
  const auto d = static_cast<int>(v.attributes().integer("dimension"));
  v.set(0, cumsum(v.cotangent(), d, !v.attributes().flag("reverse")));
}

// g_t = dh_t + a_{t+1} g_{t+1}: the recurrence backwards, with a one further on.
void scan_vjp(Vjp& v) {
  const auto d = static_cast<int>(v.attributes().integer("dimension"));
  const bool reverse = v.attributes().flag("reverse");
  const int64_t n = v.result().shape()[d], ahead = reverse ? -1 : 1;
  const auto shifted = [&](Value x, int64_t by) { return slice(pad(x, d, 1, 1), d, 1 + by, 1 + by + n); };
  Value g = scan(shifted(v.operand(0), ahead), v.cotangent(), d, !reverse);
  if (v.needs(0)) v.set(0, mul(g, shifted(v.result(), -ahead)));
  if (v.needs(1)) v.set(1, g);
}

OpDef line_op(std::string_view name, std::string_view purpose, std::string (*rule)(std::span<const Type>, const Attributes&),
              PrepareFn reference) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule_for = rule;
  def.attributes = {{"dimension", int64_t{0}, true}, {"reverse", false}};
  def.precision = Precision::keeps;
  def.reference = reference;
  return def;
}

OpDef in_parts(OpDef def) {
  def.attributes.push_back({"parts", int64_t{1}, true});
  return def;
}

}  // namespace

const OpDef& cumsum_op() {
  static const OpDef def = [] {
    OpDef d = line_op("cumsum", "the sum up to each element along a dimension, it included", whole_rule<1>, reference::cumsum);
    d.integers = true;
    d.linear = {{0}};
    d.vjp = cumsum_vjp;
    d.lower = cumsum_lower;
    d.cases = {{"f32[5,3]", "{dimension = 0}", "f32[5,3]"},
               {"f32[2,5]", "{dimension = 1, reverse = true}", "f32[2,5]"},
               {"f32[2,3,4]", "{dimension = 1}", "f32[2,3,4]"},
               {"i32[7]", "{dimension = 0}", "i32[7]"},
               {"f32[0,3]", "{dimension = 0}", "f32[0,3]"}};
    return d;
  }();
  return def;
}

const OpDef& block_sum_op() {
  static const OpDef def = [] {
    OpDef d = in_parts(line_op("block_sum", "the sum of each of `parts` blocks of a dimension", totals_rule<1>,
                               reference::block_sum));
    d.integers = true;
    d.linear = {{0}};
    d.reach = totals_reach;
    d.cases = {{"f32[5,3]", "{dimension = 0, parts = 4}", "f32[4,3]"},
               {"f32[2,5]", "{dimension = 1, parts = 2, reverse = true}", "f32[2,2]"},
               {"i32[3]", "{dimension = 0, parts = 4}", "i32[4]"}};
    return d;
  }();
  return def;
}

const OpDef& exclusive_sum_op() {
  static const OpDef def = [] {
    OpDef d = line_op("exclusive_sum", "the sum of what is before each element along a dimension", before_rule<1>,
                      reference::exclusive_sum);
    d.integers = true;
    d.linear = {{0}};
    d.cases = {{"f32[4,3]", "{dimension = 0}", "f32[4,3]"}, {"f32[2,5]", "{dimension = 1, reverse = true}", "f32[2,5]"}};
    return d;
  }();
  return def;
}

const OpDef& cumsum_from_op() {
  static const OpDef def = [] {
    OpDef d = in_parts(line_op("cumsum_from", "the running sum, of which each of `parts` blocks begins with its carry",
                               carried_rule<1>, reference::cumsum));
    d.integers = true;
    d.linear = {{0, 1}};
    d.reach = whole_reach<1>;
    d.cases = {{"f32[5,3], f32[4,3]", "{dimension = 0, parts = 4}", "f32[5,3]"},
               {"f32[2,5], f32[2,2]", "{dimension = 1, parts = 2, reverse = true}", "f32[2,5]"},
               {"i32[6], i32[3]", "{dimension = 0, parts = 3}", "i32[6]"}};
    return d;
  }();
  return def;
}

const OpDef& scan_op() {
  static const OpDef def = [] {
    OpDef d = line_op("scan", "h_t = a_t h_{t-1} + b_t along a dimension, from 0 on", whole_rule<2>, reference::scan);
    d.linear = {{1}};
    d.flops_per_point = 2;
    d.vjp = scan_vjp;
    d.lower = scan_lower;
    d.cases = {{"f32[5,3], f32[5,3]", "{dimension = 0}", "f32[5,3]"},
               {"f32[2,5], f32[2,5]", "{dimension = 1, reverse = true}", "f32[2,5]"},
               {"f32[2,3,4], f32[2,3,4]", "{dimension = 1}", "f32[2,3,4]"},
               {"f32[0,3], f32[0,3]", "{dimension = 0}", "f32[0,3]"}};
    return d;
  }();
  return def;
}

const OpDef& block_scan_op() {
  static const OpDef def = [] {
    OpDef d = in_parts(line_op("block_scan", "of each of `parts` blocks the product of a, and the last h from 0 on",
                               totals_rule<2>, reference::block_scan));
    d.results = 2;
    d.result_names = {"", "last"};
    d.flops_per_point = 3;
    d.reach = totals_reach;
    d.cases = {{"f32[5,3], f32[5,3]", "{dimension = 0, parts = 4}", "f32[4,3], f32[4,3]"},
               {"f32[2,5], f32[2,5]", "{dimension = 1, parts = 2, reverse = true}", "f32[2,2], f32[2,2]"}};
    return d;
  }();
  return def;
}

const OpDef& exclusive_scan_op() {
  static const OpDef def = [] {
    OpDef d = line_op("exclusive_scan", "h before each element along a dimension", before_rule<2>, reference::exclusive_scan);
    d.linear = {{1}};
    d.flops_per_point = 2;
    d.cases = {{"f32[4,3], f32[4,3]", "{dimension = 0}", "f32[4,3]"},
               {"f32[2,5], f32[2,5]", "{dimension = 1, reverse = true}", "f32[2,5]"}};
    return d;
  }();
  return def;
}

const OpDef& scan_from_op() {
  static const OpDef def = [] {
    OpDef d = in_parts(line_op("scan_from", "the recurrence, of which each of `parts` blocks begins with its carry",
                               carried_rule<2>, reference::scan));
    d.linear = {{1, 2}};
    d.flops_per_point = 2;
    d.reach = whole_reach<2>;
    d.cases = {{"f32[5,3], f32[5,3], f32[4,3]", "{dimension = 0, parts = 4}", "f32[5,3]"},
               {"f32[2,5], f32[2,5], f32[2,2]", "{dimension = 1, parts = 2, reverse = true}", "f32[2,5]"}};
    return d;
  }();
  return def;
}

namespace {
Attributes along(int dimension, bool reverse) {
  Attributes a{{"dimension", int64_t{dimension}}};
  if (reverse) a.set("reverse", true);
  return a;
}
}  // namespace

Value cumsum(Value x, int dimension, bool reverse, Where where) {
  return emit_one("cumsum", {x}, where, along(dimension, reverse));
}

Value scan(Value a, Value b, int dimension, bool reverse, Where where) {
  return emit_one("scan", {a, b}, where, along(dimension, reverse));
}

}  // namespace meshard
