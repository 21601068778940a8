// Ops that shift elements along one dimension: slices, pads, rolls, reversals (all one op, `window`), concatenations, and
// slices at a place that is known only when the program runs. Where the dimension is split, a device fetches what its
// block of the result reads of its neighbours' blocks, and no more.
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

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
int64_t floor_mod(int64_t a, int64_t n) { return (a % n + n) % n; }

// [low, high] within 0 .. n - 1.
Block clipped(int64_t low, int64_t high, int64_t n) {
  low = std::clamp<int64_t>(low, 0, n);
  high = std::clamp<int64_t>(high + 1, low, n);
  return {low, high - low};
}

std::string window_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int d = line_dimension("window", attributes, operands);
  const Type& x = operands[0];
  const int64_t size = attributes.integer("size"), step = attributes.integer("step", 1);
  const int64_t spread = attributes.integer("spread", 1);
  const auto fail = [&](const std::string& why) { throw UserError("window: " + why); };
  if (size < 0) fail(fmt::format("size is {}; it is 0 or more", size));
  if (step == 0 || spread < 1) fail(fmt::format("step is {} and spread {}; a step is not 0, a spread 1 or more", step, spread));
  if (attributes.flag("ring") && (std::abs(step) != 1 || spread != 1 || size != x.shape[d]))
    fail(fmt::format("a ring goes once round: step 1 or -1, spread 1 and size {}, the size of dimension {} of {}", x.shape[d],
                     d, x.str()));
  return fmt::format("{} -> {} | size(t={})", line_term(x.shape.rank(), d, "t~"), line_term(x.shape.rank(), d, "t"), size);
}

Block window_reach(const Reach& r) {
  const int64_t step = r.attributes.integer("step", 1), spread = r.attributes.integer("spread", 1);
  int64_t offset = r.attributes.integer("offset");
  const bool ring = r.attributes.flag("ring");
  if (ring) offset = floor_mod(offset, r.extent());
  const int64_t one = offset + step * r.block.begin, other = offset + step * (r.block.end() - 1);
  const int64_t low = ceil_div(std::min(one, other), spread), high = floor_div(std::max(one, other), spread);
  return ring ? Block{low, high - low + 1} : clipped(low, high, r.extent());
}

// y[i] = x[j] where spread j = offset + step i: read the other way round it is a window again.
void window_vjp(Vjp& v) {
  const Attributes& a = v.attributes();
  const int64_t step = a.integer("step", 1), spread = a.integer("spread", 1), offset = a.integer("offset");
  Attributes back{{"dimension", a.integer("dimension")},
                  {"offset", step > 0 ? -offset : offset},
                  {"size", v.operand().shape()[static_cast<int>(a.integer("dimension"))]},
                  {"spread", std::abs(step)},
                  {"step", step > 0 ? spread : -spread}};
  if (a.flag("ring")) back.set("ring", true);
  v.set(0, v.builder().apply(window_op(), {v.cotangent()}, back)[0]);
}

std::string concat_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int64_t count = attributes.integer("count");
  if (static_cast<int64_t>(operands.size()) != count)
    throw UserError(fmt::format("concat: {} operands, but count is {}", operands.size(), count));
  const int d = line_dimension("concat", attributes, operands);
  const int rank = operands[0].shape.rank();
  std::string text;
  int64_t size = 0;
  for (const Type& type : operands) {
    if (!text.empty()) text += ", ";
    text += line_term(rank, d, "t~");
    size += type.shape.rank() > d ? type.shape[d] : 0;
  }
  return fmt::format("{} -> {} | size(t={})", text, line_term(rank, d, "t"), size);
}

Block concat_reach(const Reach& r) {
  int64_t start = 0;
  for (int i = 0; i < r.operand; ++i) start += r.operands[static_cast<size_t>(i)].shape[r.dim];
  return clipped(r.block.begin - start, r.block.end() - 1 - start, r.extent());
}

void concat_vjp(Vjp& v) {
  const auto d = static_cast<int>(v.attributes().integer("dimension"));
  int64_t start = 0;
  for (int i = 0; i < static_cast<int>(v.attributes().integer("count")); ++i) {
    const int64_t size = v.operand(i).shape()[d];
    if (v.needs(i)) v.set(i, slice(v.cotangent(), d, start, start + size));
    start += size;
  }
}

std::string dynamic_slice_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int d = line_dimension("dynamic_slice", attributes, operands), rank = operands[0].shape.rank();
  return fmt::format("{}, -> {} | size(t={})", line_term(rank, d, "k"), line_term(rank, d, "t"), attributes.integer("size"));
}

void dynamic_slice_vjp(Vjp& v) {
  const auto d = static_cast<int>(v.attributes().integer("dimension"));
  if (v.needs(0)) v.set(0, dynamic_update(fill(v.builder(), 0, v.operand(0).type()), v.cotangent(), v.operand(1), d));
}

std::string dynamic_update_rule(std::span<const Type> operands, const Attributes& attributes) {
  const int d = line_dimension("dynamic_update", attributes, operands), rank = operands[0].shape.rank();
  const std::string x = line_term(rank, d, "t");
  return fmt::format("{}, {}, -> {} | whole(s)", x, line_term(rank, d, "s"), x);
}

void dynamic_update_vjp(Vjp& v) {
  const auto d = static_cast<int>(v.attributes().integer("dimension"));
  Value start = v.operand(2), zeros = fill(v.builder(), 0, v.operand(1).type());
  if (v.needs(0)) v.set(0, dynamic_update(v.cotangent(), zeros, start, d));
  if (v.needs(1)) v.set(1, dynamic_slice(v.cotangent(), start, d, v.operand(1).shape()[d]));
}

}  // namespace

const OpDef& window_op() {
  static const OpDef def = {
      .name = "window",
      .purpose = "along a dimension y[i] = x[(offset + step i) / spread], where that divides and lies in x, else 0",
      .rule_for = window_rule,
      .attributes = {{"dimension", int64_t{0}, true},
                     {"size", int64_t{0}, true},
                     {"offset", int64_t{0}},
                     {"step", int64_t{1}},
                     {"spread", int64_t{1}},
                     {"ring", false}},
      .integers = true,
      .linear = {{0}},
      .flops_per_point = 0,
      .vjp = window_vjp,
      .reach = window_reach,
      .reference = reference::window,
      .cases = {{"f32[7,3]", "{dimension = 0, offset = 2, size = 4}", "f32[4,3]"},
                {"f32[2,5,3]", "{dimension = 1, offset = -2, size = 9}", "f32[2,9,3]"},
                {"f32[5,3]", "{dimension = 0, offset = -2, ring = true, size = 5}", "f32[5,3]"},
                {"f32[4]", "{dimension = 0, offset = 6, ring = true, size = 4, step = -1}", "f32[4]"},
                {"f32[3,7]", "{dimension = 1, offset = 6, size = 7, step = -1}", "f32[3,7]"},
                {"f32[8]", "{dimension = 0, offset = 1, size = 3, step = 3}", "f32[3]"},
                {"f32[3]", "{dimension = 0, offset = -1, size = 8, spread = 3}", "f32[8]"},
                {"f32[5]", "{dimension = 0, offset = 7, size = 4, spread = 2, step = -3}", "f32[4]"},
                {"i32[5]", "{dimension = 0, offset = 1, size = 4}", "i32[4]"},
                {"f32[0,3]", "{dimension = 0, offset = -1, size = 2}", "f32[2,3]"}},
  };
  return def;
}

const OpDef& concat_op() {
  static const OpDef def = {
      .name = "concat",
      .purpose = "`count` operands one behind the other along a dimension",
      .rule_for = concat_rule,
      .attributes = {{"count", int64_t{0}, true}, {"dimension", int64_t{0}, true}},
      .integers = true,
      .flops_per_point = 0,
      .vjp = concat_vjp,
      .reach = concat_reach,
      .reference = reference::concat,
      .cases = {{"f32[3,2], f32[4,2]", "{count = 2, dimension = 0}", "f32[7,2]"},
                {"f32[2,3], f32[2,1], f32[2,5]", "{count = 3, dimension = 1}", "f32[2,9]"},
                {"i32[3], i32[0]", "{count = 2, dimension = 0}", "i32[3]"},
                {"f32[2,2,3], f32[2,3,3]", "{count = 2, dimension = 1}", "f32[2,5,3]"}},
  };
  return def;
}

const OpDef& dynamic_slice_op() {
  static const OpDef def = {
      .name = "dynamic_slice",
      .purpose = "`size` elements of x from `start` on along a dimension; zeros where there are none",
      .rule_for = dynamic_slice_rule,
      .attributes = {{"dimension", int64_t{0}, true}, {"size", int64_t{0}, true}},
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .integers = true,
      .linear = {{0}},
      .flops_per_point = 0,
      .vjp = dynamic_slice_vjp,
      .reference = reference::dynamic_slice,
      .cases = {{"f32[7,3], i32[]", "{dimension = 0, size = 4}", "f32[4,3]", 5},
                {"f32[2,5,3], i32[]", "{dimension = 1, size = 2}", "f32[2,2,3]", 5},
                {"i32[5], i32[]", "{dimension = 0, size = 1}", "i32[1]", 5},
                {"f32[0,3], i32[]", "{dimension = 0, size = 2}", "f32[2,3]", 2}},
  };
  return def;
}

const OpDef& dynamic_update_op() {
  static const OpDef def = {
      .name = "dynamic_update",
      .purpose = "x with u from `start` on along a dimension; what would lie outside is left out",
      .rule_for = dynamic_update_rule,
      .attributes = {{"dimension", int64_t{0}, true}},
      .operand_dtypes = {std::nullopt, std::nullopt, Dtype::i32},
      .integers = true,
      .linear = {{0, 1}},
      .in_place = {{0, 0}},
      .flops_per_point = 0,
      .vjp = dynamic_update_vjp,
      .reference = reference::dynamic_update,
      .cases = {{"f32[7,3], f32[4,3], i32[]", "{dimension = 0}", "f32[7,3]", 5},
                {"f32[2,5,3], f32[2,2,3], i32[]", "{dimension = 1}", "f32[2,5,3]", 5},
                {"i32[5], i32[1], i32[]", "{dimension = 0}", "i32[5]", 5},
                {"f32[4,3], f32[0,3], i32[]", "{dimension = 0}", "f32[4,3]", 2}},
  };
  return def;
}

namespace {

int64_t extent(const Value& x, int dimension) {
  return x && dimension >= 0 && dimension < x.shape().rank() ? x.shape()[dimension] : 0;  // the op says what is wrong
}

Value shift(Value x, int dimension, Attributes attributes, const Where& where) {
  attributes.set("dimension", int64_t{dimension});
  return emit_one("window", {x}, where, std::move(attributes));
}

}  // namespace

Value slice(Value x, int dimension, int64_t begin, int64_t end, int64_t step, Where where) {
  const int64_t n = extent(x, dimension);
  if (begin < 0 || end > n || begin > end || step < 1)
    throw UserError(fmt::format("slice: {} to {} by {} of dimension {} of {}, which has {}", begin, end, step, dimension,
                                x ? x.type().str() : "none", n));
  Attributes a{{"offset", begin}, {"size", (end - begin + step - 1) / step}};
  if (step != 1) a.set("step", step);
  return shift(x, dimension, a, where);
}

Value pad(Value x, int dimension, int64_t before, int64_t behind, Where where) {
  return shift(x, dimension, {{"offset", -before}, {"size", extent(x, dimension) + before + behind}}, where);
}

Value roll(Value x, int dimension, int64_t by, Where where) {
  return shift(x, dimension, {{"offset", -by}, {"ring", true}, {"size", extent(x, dimension)}}, where);
}

Value reverse(Value x, int dimension, Where where) {
  const int64_t n = extent(x, dimension);
  return shift(x, dimension, {{"offset", n - 1}, {"size", n}, {"step", int64_t{-1}}}, where);
}

Value concat(std::vector<Value> values, int dimension, Where where) {
  if (values.empty()) throw UserError("concat: no values");
  if (values.size() == 1) return values[0];
  const auto count = static_cast<int64_t>(values.size());
  return emit_one("concat", std::move(values), where, {{"count", count}, {"dimension", int64_t{dimension}}});
}

std::vector<Value> split(Value x, int dimension, std::span<const int64_t> sizes, Where where) {
  std::vector<Value> out;
  int64_t begin = 0;
  for (int64_t size : sizes) {
    out.push_back(slice(x, dimension, begin, begin + size, 1, where));
    begin += size;
  }
  if (begin != extent(x, dimension))
    throw UserError(fmt::format("split: the sizes are {} together, dimension {} of {} is {}", begin, dimension,
                                x.type().str(), extent(x, dimension)));
  return out;
}

Value dynamic_slice(Value x, Value start, int dimension, int64_t size, Where where) {
  return emit_one("dynamic_slice", {x, start}, where, {{"dimension", int64_t{dimension}}, {"size", size}});
}

Value dynamic_update(Value x, Value u, Value start, int dimension, Where where) {
  return emit_one("dynamic_update", {x, u, start}, where, {{"dimension", int64_t{dimension}}});
}

}  // namespace meshard
