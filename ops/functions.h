// What models call: one function an op, on Values. Shapes are given as in rules, `...` for any leading dimensions.
// Float operands of one op have one dtype; wrong shapes and dtypes are UserErrors at the caller's line that name the
// op.
//
//   Value h = gelu(einsum("b t d, d f -> b t f", x, up));   // [b, t, f]
//   Value loss = mean(cross_entropy(logits, targets));      // []
#pragma once

#include <array>
#include <source_location>
#include <span>
#include <string_view>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

using Where = std::source_location;

// Products. A letter of only the operands is summed over: "b t d, d f -> b t f", "b h t e, b h s e -> b h t s".
Value einsum(std::string_view rule, Value a, Value b, Where where = Where::current());

// Pairs of one shape; or one lacks leading dimensions of the other, or has size 1 there, and is repeated:
// [b, t, d] + [d] -> [b, t, d]. Gradients are summed back over what was repeated.
Value add(Value a, Value b, Where where = Where::current());
Value sub(Value a, Value b, Where where = Where::current());
Value mul(Value a, Value b, Where where = Where::current());
Value div(Value a, Value b, Where where = Where::current());
Value maximum(Value a, Value b, Where where = Where::current());
Value minimum(Value a, Value b, Where where = Where::current());
Value pow(Value a, Value b, Where where = Where::current());  // a^b
// Comparisons of two floats or two i32: 1 or 0, as i32. select: a where c, an i32, is not 0, else b.
Value less(Value a, Value b, Where where = Where::current());
Value less_equal(Value a, Value b, Where where = Where::current());
Value greater(Value a, Value b, Where where = Where::current());
Value greater_equal(Value a, Value b, Where where = Where::current());
Value equal_to(Value a, Value b, Where where = Where::current());
Value not_equal(Value a, Value b, Where where = Where::current());
Value select(Value c, Value a, Value b, Where where = Where::current());
// Bits of i32, which serve as logic on comparisons too.
Value bit_and(Value a, Value b, Where where = Where::current());
Value bit_or(Value a, Value b, Where where = Where::current());
Value bit_xor(Value a, Value b, Where where = Where::current());
Value bit_not(Value a, Where where = Where::current());
Value shift_left(Value a, Value b, Where where = Where::current());
Value shift_right(Value a, Value b, Where where = Where::current());

// Elementwise: [...] -> [...].
Value scale(Value x, double factor, Where where = Where::current());   // factor x
Value offset(Value x, double amount, Where where = Where::current());  // x + amount
Value neg(Value x, Where where = Where::current());
Value exp(Value x, Where where = Where::current());
Value log(Value x, Where where = Where::current());
Value sqrt(Value x, Where where = Where::current());
Value rsqrt(Value x, Where where = Where::current());  // 1 / sqrt(x)
Value square(Value x, Where where = Where::current());
Value tanh(Value x, Where where = Where::current());
Value sigmoid(Value x, Where where = Where::current());
Value reciprocal(Value x, Where where = Where::current());            // 1 / x
Value gelu(Value x, Where where = Where::current());                  // the tanh form, as GPT-2
Value silu(Value x, Where where = Where::current());                  // x sigmoid(x)
Value abs(Value x, Where where = Where::current());
Value sign(Value x, Where where = Where::current());   // -1, 0 or 1; its gradient is 0
Value floor(Value x, Where where = Where::current());  // its gradient is 0
Value sin(Value x, Where where = Where::current());
Value cos(Value x, Where where = Where::current());
Value clamp(Value x, double low, double high, Where where = Where::current());
// x / (1 - rate), or 0 with probability `rate`, decided by (seed, step, name, global index): the same on any mesh. `step`
// is an i32[] that changes from use to use, such as the number of the training step.
Value dropout(Value x, Value step, double rate, int64_t seed, std::string_view name, Where where = Where::current());
Value convert(Value x, Dtype dtype, Where where = Where::current());  // x itself where it has that dtype

// Reductions over the names that the result lacks: "b t d -> d", "... -> ", "... v -> ...". "1" keeps a dimension of
// size 1: "b t d -> b t 1". The mean divides by the global count.
Value sum(Value x, std::string_view rule = "... -> ", Where where = Where::current());
Value mean(Value x, std::string_view rule = "... -> ", Where where = Where::current());
Value max(Value x, std::string_view rule = "... -> ", Where where = Where::current());  // equal ones share the gradient
Value min(Value x, std::string_view rule = "... -> ", Where where = Where::current());
Value sum_squares(Value x, Where where = Where::current());  // [...] -> []
Value logsumexp(Value x, Where where = Where::current());    // [..., v] -> [...]

// Dimensions. reshape: "b t (h e) -> b t h e" with {{"h", 4}}; a merged dimension has its factors major first.
// transpose: "b t h e -> b h t e". broadcast: "b d -> b t d" with {{"t", 5}}; a scalar
// is repeated by mul or add.
Value reshape(Value x, std::string_view rule, Attributes sizes = {}, Where where = Where::current());
Value transpose(Value x, std::string_view rule, Where where = Where::current());
Value broadcast(Value x, std::string_view rule, Attributes sizes, Where where = Where::current());
Value take(Value x, Value i, Where where = Where::current());  // [k, ...], i32[] -> [...], 0 <= i < k

// Elements by index: the dimension that the ids count is called k. gather: "k d, i -> i d", "b k d, b i -> b i d",
// "a k b, a i b -> a i b"; zeros where an id is no k. scatter_add is its gradient, x summed by id into k rows:
// "i, i d -> k d". Rows and indices may be split.
Value gather(Value x, Value ids, std::string_view rule, Where where = Where::current());
Value scatter_add(Value ids, Value x, std::string_view rule, int64_t k, Where where = Where::current());
Value one_hot(Value ids, int64_t v, Dtype dtype = Dtype::f32, Where where = Where::current());  // i32[...] -> [..., v]

// Along one dimension. Where it is split, only what devices lack of their neighbours' blocks travels.
Value slice(Value x, int dimension, int64_t begin, int64_t end, int64_t step = 1, Where where = Where::current());
Value pad(Value x, int dimension, int64_t before, int64_t behind, Where where = Where::current());  // by zeros
Value roll(Value x, int dimension, int64_t shift, Where where = Where::current());  // element i goes to i + shift
Value reverse(Value x, int dimension, Where where = Where::current());
Value concat(std::vector<Value> values, int dimension, Where where = Where::current());
std::vector<Value> split(Value x, int dimension, std::span<const int64_t> sizes, Where where = Where::current());
// At a place known when the program runs, start i32[]: `size` elements of x; and x with u written over its elements.
// What lies outside is zeros, or left out.
Value dynamic_slice(Value x, Value start, int dimension, int64_t size, Where where = Where::current());
Value dynamic_update(Value x, Value u, Value start, int dimension, Where where = Where::current());
Value cumsum(Value x, int dimension, bool reverse = false, Where where = Where::current());
// h_t = a_t h_{t-1} + b_t, from 0 on.
Value scan(Value a, Value b, int dimension, bool reverse = false, Where where = Where::current());

// Rows over the last dimension: values, and i32 where they stood. Equal elements keep their order.
std::array<Value, 2> sort(Value x, bool descending = false, Where where = Where::current());
std::array<Value, 2> top_k(Value x, int64_t k, Where where = Where::current());  // largest first
Value argmax(Value x, Where where = Where::current());                           // [..., v] -> i32[...]
Value argmin(Value x, Where where = Where::current());

// Convolutions and pools, channels last: x [b, w, c] or [b, h, w, c], weights [kw, c / groups, o] or [kh, kw, c / groups,
// o]. `before` and `behind` are the zeros at the ends (a pool leaves them out of its maximum); h first, w where there is
// only one. Windows lie `dilation` apart inside, and `stride` from one another.
struct ConvOptions {
  std::array<int64_t, 2> stride = {1, 1}, before = {0, 0}, behind = {0, 0}, dilation = {1, 1};
  int64_t groups = 1;
};
Value conv(Value x, Value weights, const ConvOptions& options = {}, Where where = Where::current());
struct PoolOptions {
  std::array<int64_t, 2> window = {1, 1}, stride = {1, 1}, before = {0, 0}, behind = {0, 0}, dilation = {1, 1};
};
Value max_pool(Value x, const PoolOptions& options, Where where = Where::current());
Value sum_pool(Value x, const PoolOptions& options, Where where = Where::current());
Value mean_pool(Value x, const PoolOptions& options, Where where = Where::current());  // zeros at the ends count

// Layers.
// Over all but the last dimension c: (x - mean) weight / sqrt(variance + eps) + bias, of the batch at hand.
Value batch_norm(Value x, Value weight, Value bias, double eps = 1e-5, Where where = Where::current());  // [..., c], [c], [c]
Value embedding(Value ids, Value table, Where where = Where::current());  // i32[...], [v, d] -> [..., d]
Value softmax(Value x, Where where = Where::current());                   // [..., c], rows over c
Value layer_norm(Value x, Value weight, Value bias, double eps = 1e-5,
                 Where where = Where::current());                                          // [..., d], [d], [d]
Value rms_norm(Value x, Value weight, double eps = 1e-5, Where where = Where::current());  // [..., d], [d]
// Rotates the pairs (j, j + e/2) of [..., t, e] by the angle t theta^(-2j/e), t the global position; with start i32[],
// known when the program runs, by that of start + t.
Value rope(Value x, double theta = 10000, Where where = Where::current());
Value rope(Value x, Value start, double theta = 10000, Where where = Where::current());
// softmax(q k^T / sqrt(e)) v: q [b, h, t, e], k and v [b, h, s, e] -> [b, h, t, e]. Grouped: q [b, g, r, t, e] with r
// query heads for each of the g heads of k and v [b, g, s, e]. Causal: position t sees s <= t. With start i32[], known when
// the program runs, t sees s <= start + t: the keys of a cache of which start + t + 1 are filled.
Value attention(Value q, Value k, Value v, bool causal = true, Where where = Where::current());
Value attention(Value q, Value k, Value v, Value start, Where where = Where::current());
// Negative log likelihood: [..., v], i32[...] -> [...]. The op's second result is the rows' log-sum-exp.
Value cross_entropy(Value logits, Value targets, Where where = Where::current());

// Made from nothing; `builder` is that of any Value at hand, or the trace's. Random numbers are a function of (seed,
// name, global index), the same on any mesh.
Value fill(Builder& builder, double value, Type type, Where where = Where::current());
Value iota(Builder& builder, Type type, int dimension, Where where = Where::current());  // the index in that dimension
Value random_normal(Builder& builder, Type type, int64_t seed, std::string_view name, double scale = 1,
                    Where where = Where::current());  // standard deviation `scale`
Value random_uniform(Builder& builder, Type type, int64_t seed, std::string_view name, double scale = 1,
                     Where where = Where::current());  // in [-scale, scale)

// One step of AdamW on a weight, all of one shape: w, m, v, g [...], rate, scale, step []. g is multiplied by `scale`
// first (clipping); `step` counts from 1. Returns the new w, m, v.
struct AdamwOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0;  // decay: of the weights, times the rate
};
std::array<Value, 3> adamw(Value w, Value m, Value v, Value g, Value rate, Value scale, Value step,
                           AdamwOptions options, Where where = Where::current());

// The value itself, with a layout of its own: what a plan or a text lays out.
Value reshard(Value x, Where where = Where::current());
// Roles of a parameter: as ops read it, its gradient summed up, and its gradient as the optimizer reads it.
Value use(Value w, Where where = Where::current());
Value grad(Value g, Where where = Where::current());
Value total(Value g, Where where = Where::current());

// Operators. An operand remembers the line it stands on.
struct Located {
  Value value;
  Where where;
  Located(Value v, Where w = Where::current()) : value(v), where(w) {}  // NOLINT: implicit
};
Value operator+(Located a, Located b);
Value operator-(Located a, Located b);
Value operator*(Located a, Located b);
Value operator/(Located a, Located b);
Value operator+(Located a, double b);
Value operator-(Located a, double b);
Value operator*(Located a, double b);
Value operator/(Located a, double b);
Value operator+(double a, Located b);
Value operator-(double a, Located b);
Value operator*(double a, Located b);
Value operator/(double a, Located b);
Value operator-(Located a);

}  // namespace meshard
