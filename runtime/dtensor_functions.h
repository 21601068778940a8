// Short names for ops on DTensors: the same as ops/functions.h has for the values of a program, with the same rules and shapes, so
// that a function written with `auto` serves both.
//
//   auto mlp = [](auto x, auto up, auto down) {
//     return einsum("b f, f d -> b d", gelu(einsum("b d, d f -> b f", x, up)), down);
//   };
//   DTensor y = mlp(x, up, down);                     // now, op by op
//   trace.result(mlp(vx, vup, vdown));                // traced into a program
//
// A name that stands here is no list of what can be called: Eager::apply calls every op of the table.
#pragma once

#include <source_location>
#include <string_view>

#include "meshard/runtime/dtensor.h"

namespace meshard {

using Where = std::source_location;

// Products. A letter of only the operands is summed over: split, it leaves a pending sum.
DTensor einsum(std::string_view rule, const DTensor& a, const DTensor& b, Where where = Where::current());

// Pairs of one shape, or one is repeated along leading dimensions or where it has size 1.
DTensor add(const DTensor& a, const DTensor& b, Where where = Where::current());
DTensor sub(const DTensor& a, const DTensor& b, Where where = Where::current());
DTensor mul(const DTensor& a, const DTensor& b, Where where = Where::current());
DTensor div(const DTensor& a, const DTensor& b, Where where = Where::current());
DTensor maximum(const DTensor& a, const DTensor& b, Where where = Where::current());
DTensor minimum(const DTensor& a, const DTensor& b, Where where = Where::current());

// Elementwise.
DTensor scale(const DTensor& x, double factor, Where where = Where::current());
DTensor offset(const DTensor& x, double amount, Where where = Where::current());
DTensor neg(const DTensor& x, Where where = Where::current());
DTensor exp(const DTensor& x, Where where = Where::current());
DTensor log(const DTensor& x, Where where = Where::current());
DTensor sqrt(const DTensor& x, Where where = Where::current());
DTensor rsqrt(const DTensor& x, Where where = Where::current());
DTensor square(const DTensor& x, Where where = Where::current());
DTensor tanh(const DTensor& x, Where where = Where::current());
DTensor sigmoid(const DTensor& x, Where where = Where::current());
DTensor reciprocal(const DTensor& x, Where where = Where::current());
DTensor gelu(const DTensor& x, Where where = Where::current());
DTensor silu(const DTensor& x, Where where = Where::current());
DTensor convert(const DTensor& x, Dtype dtype, Where where = Where::current());

// Reductions over the names that the result lacks. The mean divides by the global count.
DTensor sum(const DTensor& x, std::string_view rule = "... -> ", Where where = Where::current());
DTensor mean(const DTensor& x, std::string_view rule = "... -> ", Where where = Where::current());
DTensor max(const DTensor& x, std::string_view rule = "... -> ", Where where = Where::current());
DTensor min(const DTensor& x, std::string_view rule = "... -> ", Where where = Where::current());
DTensor sum_squares(const DTensor& x, Where where = Where::current());

// Dimensions.
DTensor reshape(const DTensor& x, std::string_view rule, Attributes sizes = {}, Where where = Where::current());
DTensor transpose(const DTensor& x, std::string_view rule, Where where = Where::current());
DTensor broadcast(const DTensor& x, std::string_view rule, Attributes sizes, Where where = Where::current());
DTensor take(const DTensor& x, const DTensor& i, Where where = Where::current());

// Layers.
DTensor embedding(const DTensor& ids, const DTensor& table, Where where = Where::current());
DTensor softmax(const DTensor& x, Where where = Where::current());
DTensor layer_norm(const DTensor& x, const DTensor& weight, const DTensor& bias, double eps = 1e-5, Where where = Where::current());
DTensor rms_norm(const DTensor& x, const DTensor& weight, double eps = 1e-5, Where where = Where::current());
DTensor rope(const DTensor& x, double theta = 10000, Where where = Where::current());
DTensor attention(const DTensor& q, const DTensor& k, const DTensor& v, bool causal = true, Where where = Where::current());
DTensor cross_entropy(const DTensor& logits, const DTensor& targets, Where where = Where::current());

// Made from nothing, in a layout: full(eager, "f32[8,4]", "[-, model]", 0.5). Random numbers are a function of (seed, name,
// global index), the same on any mesh: normal() with standard deviation `scale`, uniform() in [-scale, scale).
DTensor full(const Eager& eager, std::string_view type, std::string_view layout, double value, Where where = Where::current());
DTensor normal(const Eager& eager, std::string_view type, std::string_view layout, int64_t seed, std::string_view name, double scale = 1,
               Where where = Where::current());
DTensor uniform(const Eager& eager, std::string_view type, std::string_view layout, int64_t seed, std::string_view name, double scale = 1,
                Where where = Where::current());

// Operators. An operand remembers the line it stands on.
struct LocatedTensor {
  const DTensor& value;
  Where where;
  LocatedTensor(const DTensor& v, Where w = Where::current()) : value(v), where(w) {}  // NOLINT: implicit
};
DTensor operator+(LocatedTensor a, LocatedTensor b);
DTensor operator-(LocatedTensor a, LocatedTensor b);
DTensor operator*(LocatedTensor a, LocatedTensor b);
DTensor operator/(LocatedTensor a, LocatedTensor b);
DTensor operator+(LocatedTensor a, double b);
DTensor operator-(LocatedTensor a, double b);
DTensor operator*(LocatedTensor a, double b);
DTensor operator/(LocatedTensor a, double b);
DTensor operator+(double a, LocatedTensor b);
DTensor operator-(double a, LocatedTensor b);
DTensor operator*(double a, LocatedTensor b);
DTensor operator/(double a, LocatedTensor b);
DTensor operator-(LocatedTensor a);

}  // namespace meshard
