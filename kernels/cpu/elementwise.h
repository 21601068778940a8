// The elementwise functions of one instruction set.
#pragma once

#include <cstdint>

namespace meshard::cpu {

using UnaryFn = void (*)(const float* x, float* y, int64_t n, float c);
// With repeat a or b points to one number that serves all n.
using BinaryFn = void (*)(const float* a, bool repeat_a, const float* b, bool repeat_b, float* y, int64_t n);

struct Elementwise {
  UnaryFn neg, exp, log, sqrt, rsqrt, square, tanh, sigmoid, reciprocal, scale, offset, gelu, silu;
  BinaryFn gelu_vjp, silu_vjp, add, sub, mul, div, maximum, minimum, log_add;
};

}  // namespace meshard::cpu
