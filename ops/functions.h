// What models call: one function an op, on Values. Shapes are given as in rules, `...` for any leading dimensions.
// Float operands of one op have one dtype; wrong shapes and dtypes are UserErrors at the caller's line that name the
// op.
//
//   Value h = gelu(einsum("b t d, d f -> b t f", x, up));   // [b, t, f]
//   Value loss = mean(cross_entropy(logits, targets));      // []
#pragma once

#include <array>
#include <source_location>
#include <string_view>

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
Value maximum(Value a, Value b, Where where = Where::current());  // no gradient
Value minimum(Value a, Value b, Where where = Where::current());  // no gradient

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
Value convert(Value x, Dtype dtype, Where where = Where::current());  // x itself where it has that dtype

// Reductions over the names that the result lacks: "b t d -> d", "... -> ", "... v -> ...". "1" keeps a dimension of
// size 1: "b t d -> b t 1". The mean divides by the global count.
Value sum(Value x, std::string_view rule = "... -> ", Where where = Where::current());
Value mean(Value x, std::string_view rule = "... -> ", Where where = Where::current());
Value max(Value x, std::string_view rule = "... -> ", Where where = Where::current());  // no gradient
Value min(Value x, std::string_view rule = "... -> ", Where where = Where::current());  // no gradient
Value sum_squares(Value x, Where where = Where::current());                             // [...] -> []

// Dimensions. reshape: "b t (h e) -> b t h e" with {{"h", 4}}; a merged dimension has its factors major first.
// transpose: "b t h e -> b h t e". broadcast: "b d -> b t d" with {{"t", 5}}; a scalar
// is repeated by mul or add.
Value reshape(Value x, std::string_view rule, Attributes sizes = {}, Where where = Where::current());
Value transpose(Value x, std::string_view rule, Where where = Where::current());
Value broadcast(Value x, std::string_view rule, Attributes sizes, Where where = Where::current());
Value take(Value x, Value i, Where where = Where::current());  // [k, ...], i32[] -> [...], 0 <= i < k

// Layers.
Value embedding(Value ids, Value table, Where where = Where::current());  // i32[...], [v, d] -> [..., d]
Value softmax(Value x, Where where = Where::current());                   // [..., c], rows over c
Value layer_norm(Value x, Value weight, Value bias, double eps = 1e-5,
                 Where where = Where::current());                                          // [..., d], [d], [d]
Value rms_norm(Value x, Value weight, double eps = 1e-5, Where where = Where::current());  // [..., d], [d]
// Rotates the pairs (j, j + e/2) of [..., t, e] by the angle t theta^(-2j/e), t the global position.
Value rope(Value x, double theta = 10000, Where where = Where::current());
// softmax(q k^T / sqrt(e)) v: q [b, h, t, e], k and v [b, h, s, e] -> [b, h, t, e]. Grouped: q [b, g, r, t, e] with r
// query heads for each of the g heads of k and v [b, g, s, e]. Causal: position t sees s <= t.
Value attention(Value q, Value k, Value v, bool causal = true, Where where = Where::current());
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
