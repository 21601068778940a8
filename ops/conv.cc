// Convolutions and pools over w, or h and w, channels last. Where h or w is split, a device fetches the edges of its
// neighbours' blocks that its windows reach into, and no more. See kernels/reference/conv.cc for the attributes.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "meshard/base/error.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/emit.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

std::vector<AttributeSpec> attributes(std::vector<AttributeSpec> more, std::initializer_list<std::string_view> spatial) {
  for (std::string_view name : spatial) {
    const bool none = name.starts_with("offset");
    more.push_back({name, int64_t{none ? 0 : 1}});
  }
  return more;
}

#define MESHARD_SPATIAL \
  "stride_h", "stride_w", "offset_h", "offset_w", "dilation_h", "dilation_w", "spread_h", "spread_w"

// One of the spatial dimensions, as the attributes say.
struct Axis {
  Axis(const Attributes& a, char letter)
      : stride(a.integer(named("stride", letter), 1)),
        offset(a.integer(named("offset", letter), 0)),
        dilation(a.integer(named("dilation", letter), 1)),
        spread(a.integer(named("spread", letter), 1)) {}

  static std::string named(std::string_view what, char letter) { return fmt::format("{}_{}", what, letter); }

  int64_t stride, offset, dilation, spread;
};

// Spatial letters by the rank of x: "b w c" has one, "b h w c" two.
std::string_view letters(std::string_view op, std::span<const Type> operands) {
  const int rank = operands.empty() ? 0 : operands[0].shape.rank();
  if (rank != 3 && rank != 4)
    throw UserError(fmt::format("{}: operand 0 has {} dimensions; b w c has 3, b h w c 4", op, rank));
  return rank == 3 ? "w" : "hw";
}

void check_axis(std::string_view op, const Attributes& a, char letter) {
  const Axis axis(a, letter);
  if (axis.stride == 0 || axis.spread < 1)
    throw UserError(fmt::format("{}: stride_{} is {} and spread_{} {}; a stride is not 0, a spread 1 or more", op, letter,
                                axis.stride, letter, axis.spread));
}

// "h~ w~" and the sizes of the result's, from the attributes size_h and size_w.
struct Terms {
  std::string halo, plain, window, sizes;
};
Terms terms(std::string_view op, std::span<const Type> operands, const Attributes& a) {
  Terms t;
  for (char letter : letters(op, operands)) {
    check_axis(op, a, letter);
    const char* space = t.plain.empty() ? "" : " ";
    t.halo += fmt::format("{}{}~", space, letter);
    t.plain += fmt::format("{}{}", space, letter);
    t.window += fmt::format("{}k{}", space, letter);
    const Attribute* size = a.find(Axis::named("size", letter));
    if (size == nullptr) throw UserError(fmt::format("{}: attribute size_{} is missing; it is an integer", op, letter));
    t.sizes += fmt::format("{}={},", letter, std::get<int64_t>(*size));
  }
  if (!t.sizes.empty()) t.sizes.pop_back();
  return t;
}

int64_t groups(std::string_view op, const Attributes& a) {
  const int64_t g = a.integer("groups", 1);
  if (g < 1) throw UserError(fmt::format("{}: groups is {}; it is 1 or more", op, g));
  return g;
}

std::string conv_rule(std::span<const Type> operands, const Attributes& a) {
  const Terms t = terms("conv", operands, a);
  return fmt::format("b {} (g c), {} c (g o) -> b {} (g o) | size(g={},{})", t.halo, t.window, t.plain, groups("conv", a), t.sizes);
}

std::string conv_weights_rule(std::span<const Type> operands, const Attributes& a) {
  std::string halo, plain, window, sizes = fmt::format("g={}", groups("conv_weights", a));
  for (char letter : letters("conv_weights", operands)) {
    check_axis("conv_weights", a, letter);
    const char* space = plain.empty() ? "" : " ";
    halo += fmt::format("{}{}~", space, letter);
    plain += fmt::format("{}{}", space, letter);
    window += fmt::format("{}k{}", space, letter);
    sizes += fmt::format(",k{}={}", letter, a.integer(Axis::named("window", letter), 1));
  }
  return fmt::format("b {} (g c), b {} (g o) -> {} c (g o) | size({})", halo, plain, window, sizes);
}

template <const OpDef& (*op)()>
std::string pool_rule(std::span<const Type> operands, const Attributes& a) {
  const Terms t = terms(op().name, operands, a);
  return fmt::format("b {} c -> b {} c | size({})", t.halo, t.plain, t.sizes);
}

std::string max_pool_vjp_rule(std::span<const Type> operands, const Attributes& a) {
  std::string halo, plain, sizes;
  int d = 1;
  for (char letter : letters("max_pool_vjp", operands)) {
    check_axis("max_pool_vjp", a, letter);
    const char* space = plain.empty() ? "" : " ";
    halo += fmt::format("{}{}~", space, letter);
    plain += fmt::format("{}{}", space, letter);
    sizes += fmt::format("{}{}={}", sizes.empty() ? "" : ",", letter, operands[0].shape[d++]);
  }
  return fmt::format("b {0} c, b {0} c -> b {1} c | size({2})", halo, plain, sizes);
}

// The letter of spatial dimension `dim` of a tensor "b h w c" or "b w c".
char letter_of(const Reach& r) {
  const int rank = r.operands[static_cast<size_t>(r.operand)].shape.rank();
  return rank == 4 && r.dim == 1 ? 'h' : 'w';
}

// Elements of x (n of them) that the windows of `block` have.
Block windows(const Axis& axis, int64_t window, Block block, int64_t n) {
  const int64_t wide = axis.dilation * (window - 1), far = axis.stride * (block.size - 1);
  const int64_t first = axis.offset + axis.stride * block.begin;
  int64_t low = first + std::min<int64_t>(wide, 0) + std::min<int64_t>(far, 0);
  int64_t high = first + std::max<int64_t>(wide, 0) + std::max<int64_t>(far, 0);
  low = std::clamp<int64_t>(ceil_div(low, axis.spread), 0, n);
  high = std::clamp<int64_t>(floor_div(high, axis.spread) + 1, low, n);
  return {low, high - low};
}

Block conv_reach(const Reach& r) {
  const int64_t window = r.operands[1].shape[r.dim - 1];
  return windows(Axis(r.attributes, letter_of(r)), window, r.block, r.extent());
}

Block pool_reach(const Reach& r) {
  const char letter = letter_of(r);
  return windows(Axis(r.attributes, letter), r.attributes.integer(Axis::named("window", letter), 1), r.block, r.extent());
}

// x and dy for a block of dx: the windows that hold an element of it, and all that those hold.
Block max_pool_vjp_reach(const Reach& r) {
  const char letter = letter_of(r);
  const Axis axis(r.attributes, letter);
  const int64_t window = r.attributes.integer(Axis::named("window", letter), 1), n = r.operands[1].shape[r.dim];
  // Window o has element i where stride o + dilation k = spread i - offset.
  const int64_t wide = axis.dilation * (window - 1);
  const int64_t near = axis.spread * r.block.begin - axis.offset - std::max<int64_t>(wide, 0);
  const int64_t far = axis.spread * (r.block.end() - 1) - axis.offset - std::min<int64_t>(wide, 0);
  const int64_t one = axis.stride > 0 ? near : far, other = axis.stride > 0 ? far : near;
  const int64_t low = std::clamp<int64_t>(ceil_div(one, axis.stride), 0, n);
  const int64_t high = std::clamp<int64_t>(floor_div(other, axis.stride) + 1, low, n);
  if (r.operand > 0 || low == high) return {low, high - low};
  return windows(axis, window, {low, high - low}, r.extent());
}

// The same op read the other way round: from y to x.
Attributes turned(const Vjp& v, std::span<const char> spatial) {
  Attributes out;
  int d = 1;
  for (char letter : spatial) {
    const Axis axis(v.attributes(), letter);
    const int64_t sign = axis.stride > 0 ? 1 : -1;  // a spread is positive
    out.set(Axis::named("stride", letter), sign * axis.spread);
    out.set(Axis::named("spread", letter), sign * axis.stride);
    out.set(Axis::named("dilation", letter), -sign * axis.dilation);
    out.set(Axis::named("offset", letter), -sign * axis.offset);
    out.set(Axis::named("size", letter), v.operand(0).shape()[d++]);
  }
  return out;
}

void conv_vjp(Vjp& v) {
  const std::string_view spatial = letters("conv", std::array{v.operand(0).type()});
  const int64_t g = v.attributes().integer("groups", 1);
  const std::string window = spatial.size() == 1 ? "kw" : "kh kw";
  if (v.needs(0)) {
    Value parts = reshape(v.operand(1), window + " c (g o) -> " + window + " c g o", {{"g", g}});
    Value swapped = transpose(parts, window + " c g o -> " + window + " o g c");
    Value weights = reshape(swapped, window + " o g c -> " + window + " o (g c)");
    Attributes back = turned(v, spatial);
    back.set("groups", g);
    v.set(0, v.builder().apply(conv_op(), {v.cotangent(), weights}, back)[0]);
  }
  if (v.needs(1)) {
    Attributes a = v.attributes();
    int d = 0;
    for (char letter : spatial) {
      a.erase(Axis::named("size", letter));
      a.set(Axis::named("window", letter), v.operand(1).shape()[d++]);
    }
    v.set(1, v.builder().apply(conv_weights_op(), {v.operand(0), v.cotangent()}, a)[0]);
  }
}

void sum_pool_vjp(Vjp& v) {
  const std::string_view spatial = letters("sum_pool", std::array{v.operand(0).type()});
  Attributes back = turned(v, spatial);
  for (char letter : spatial)
    back.set(Axis::named("window", letter), v.attributes().integer(Axis::named("window", letter), 1));
  v.set(0, v.builder().apply(sum_pool_op(), {v.cotangent()}, back)[0]);
}

void max_pool_gradient(Vjp& v) {
  Attributes a = v.attributes();
  for (char letter : {'h', 'w'}) a.erase(Axis::named("size", letter));
  v.set(0, v.builder().apply(max_pool_vjp_op(), {v.operand(), v.cotangent()}, a)[0]);
}

OpDef pool(std::string_view name, std::string_view purpose, PrepareFn reference) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.attributes = attributes({{"size_h", int64_t{0}}, {"size_w", int64_t{0}}, {"window_h", int64_t{1}}, {"window_w", int64_t{1}}},
                              {MESHARD_SPATIAL});
  def.flops_per_point = 9;
  def.reach = pool_reach;
  def.reference = reference;
  def.cases = {{"f32[2,7,3]", "{size_w = 3, stride_w = 2, window_w = 3}", "f32[2,3,3]"},
               {"f32[1,5,6,2]", "{offset_h = -1, offset_w = -1, size_h = 5, size_w = 3, stride_w = 2, window_h = 3, window_w = 3}",
                "f32[1,5,3,2]"},
               {"f32[2,7,1]", "{dilation_w = 2, offset_w = -1, size_w = 6, window_w = 2}", "f32[2,6,1]"}};
  return def;
}

}  // namespace

const OpDef& conv_op() {
  static const OpDef def = {
      .name = "conv",
      .purpose = "the sum over k and c of x[(offset + stride w + dilation k) / spread, c] times the weights, by groups of channels",
      .rule_for = conv_rule,
      .attributes = attributes({{"size_h", int64_t{0}}, {"size_w", int64_t{0}}, {"groups", int64_t{1}}}, {MESHARD_SPATIAL}),
      .linear = {{0}, {1}},
      .precision = Precision::computes,
      .widens = true,
      .flops_per_point = 2,
      .vjp = conv_vjp,
      .reach = conv_reach,
      .reference = reference::conv,
      .cases = {{"f32[2,7,3], f32[3,3,2]", "{offset_w = -1, size_w = 7}", "f32[2,7,2]"},
                {"f32[1,8,4], f32[3,2,6]", "{groups = 2, size_w = 3, stride_w = 2}", "f32[1,3,6]"},
                {"f32[2,4,5,2], f32[3,3,2,3]", "{offset_h = -1, offset_w = -1, size_h = 4, size_w = 5}", "f32[2,4,5,3]"},
                {"f32[1,7,6,2], f32[2,3,1,2]",
                 "{dilation_h = 2, groups = 2, offset_w = -1, size_h = 5, size_w = 3, stride_w = 2}", "f32[1,5,3,2]"},
                {"f32[1,3,2], f32[3,2,1]", "{offset_w = -2, size_w = 7, spread_w = 2}", "f32[1,7,1]"},
                {"f32[1,5,1], f32[2,1,1]", "{dilation_w = -2, offset_w = 3, size_w = 4}", "f32[1,4,1]"}},
  };
  return def;
}

const OpDef& conv_weights_op() {
  static const OpDef def = {
      .name = "conv_weights",
      .purpose = "the cotangent of the weights of conv from x and dy",
      .rule_for = conv_weights_rule,
      .attributes = attributes({{"window_h", int64_t{1}}, {"window_w", int64_t{1}}, {"groups", int64_t{1}}}, {MESHARD_SPATIAL}),
      .linear = {{0}, {1}},
      .precision = Precision::computes,
      .widens = true,
      .flops_per_point = 2,
      .reach = pool_reach,
      .reference = reference::conv_weights,
      .cases = {{"f32[2,7,3], f32[2,7,2]", "{offset_w = -1, window_w = 3}", "f32[3,3,2]"},
                {"f32[1,8,4], f32[1,3,6]", "{groups = 2, stride_w = 2, window_w = 3}", "f32[3,2,6]"},
                {"f32[2,4,5,2], f32[2,4,5,3]", "{offset_h = -1, offset_w = -1, window_h = 3, window_w = 3}", "f32[3,3,2,3]"}},
  };
  return def;
}

const OpDef& sum_pool_op() {
  static const OpDef def = [] {
    OpDef d = pool("sum_pool", "the sum over each window of x", reference::sum_pool);
    d.rule_for = pool_rule<sum_pool_op>;
    d.linear = {{0}};
    d.vjp = sum_pool_vjp;
    d.cases.push_back({"f32[1,4,2]", "{offset_w = -1, size_w = 7, spread_w = 2, window_w = 3}", "f32[1,7,2]"});
    return d;
  }();
  return def;
}

const OpDef& max_pool_op() {
  static const OpDef def = [] {
    OpDef d = pool("max_pool", "the largest of each window of x", reference::max_pool);
    d.rule_for = pool_rule<max_pool_op>;
    d.vjp = max_pool_gradient;
    return d;
  }();
  return def;
}

const OpDef& max_pool_vjp_op() {
  static const OpDef def = {
      .name = "max_pool_vjp",
      .purpose = "dy to the largest of each window of x, shared where several are equal",
      .rule_for = max_pool_vjp_rule,
      .attributes = attributes({{"window_h", int64_t{1}}, {"window_w", int64_t{1}}}, {MESHARD_SPATIAL}),
      .linear = {{1}},
      .flops_per_point = 9,
      .reach = max_pool_vjp_reach,
      .reference = reference::max_pool_vjp,
      .cases = {{"f32[2,7,3], f32[2,3,3]", "{stride_w = 2, window_w = 3}", "f32[2,7,3]"},
                {"f32[1,5,6,2], f32[1,5,3,2]",
                 "{offset_h = -1, offset_w = -1, stride_w = 2, window_h = 3, window_w = 3}", "f32[1,5,6,2]"}},
  };
  return def;
}

namespace {

// The attributes for windows of `window` elements, and the size of the result that follows.
template <class Options>
Attributes spatial(const Value& x, const Options& o, std::span<const int64_t> window) {
  Attributes a;
  const auto rank = window.size();
  for (size_t i = 0; i < rank; ++i) {
    const char letter = i + 1 == rank ? 'w' : 'h';
    const size_t from = rank == 1 ? 0 : i;
    const int64_t n = x.shape()[static_cast<int>(i) + 1] + o.before[from] + o.behind[from];
    const int64_t wide = o.dilation[from] * (window[i] - 1) + 1;
    const int64_t stride = std::max<int64_t>(o.stride[from], 1);
    a.set(Axis::named("size", letter), n < wide ? int64_t{0} : (n - wide) / stride + 1);
    if (o.before[from] != 0) a.set(Axis::named("offset", letter), -o.before[from]);
    if (o.stride[from] != 1) a.set(Axis::named("stride", letter), o.stride[from]);
    if (o.dilation[from] != 1) a.set(Axis::named("dilation", letter), o.dilation[from]);
  }
  return a;
}

Value pool(std::string_view op, const Value& x, const PoolOptions& o, const Where& where) {
  const int rank = x ? x.shape().rank() : 0;
  if (rank != 3 && rank != 4) return emit_one(op, {x}, where);  // says what is wrong
  const std::span<const int64_t> window(o.window.data(), static_cast<size_t>(rank) - 2);
  Attributes a = spatial(x, o, window);
  for (size_t i = 0; i < window.size(); ++i) a.set(Axis::named("window", i + 1 == window.size() ? 'w' : 'h'), window[i]);
  return emit_one(op, {x}, where, std::move(a));
}

}  // namespace

Value conv(Value x, Value weights, const ConvOptions& options, Where where) {
  const int rank = x && weights ? x.shape().rank() : 0;
  if ((rank != 3 && rank != 4) || weights.shape().rank() != rank) return emit_one("conv", {x, weights}, where);
  const Shape sizes = weights.shape();
  const std::span<const int64_t> window(sizes.dims.data(), static_cast<size_t>(rank) - 2);
  Attributes a = spatial(x, options, window);
  if (options.groups != 1) a.set("groups", options.groups);
  return emit_one("conv", {x, weights}, where, std::move(a));
}

Value max_pool(Value x, const PoolOptions& options, Where where) { return pool("max_pool", x, options, where); }
Value sum_pool(Value x, const PoolOptions& options, Where where) { return pool("sum_pool", x, options, where); }

Value mean_pool(Value x, const PoolOptions& options, Where where) {
  Value sum = pool("sum_pool", x, options, where);
  int64_t count = options.window[0];
  if (x.shape().rank() == 4) count *= options.window[1];
  return scale(sum, 1 / static_cast<double>(count), where);
}

Value batch_norm(Value x, Value weight, Value bias, double eps, Where where) {
  Value centered = sub(x, mean(x, "... c -> c", where), where);
  Value variance = mean(square(centered, where), "... c -> c", where);
  Value factor = mul(weight, rsqrt(offset(variance, eps, where), where), where);
  return add(mul(centered, factor, where), bias, where);
}

}  // namespace meshard
