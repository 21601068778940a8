// The elementwise functions of one instruction set, on elements of f32, bf16 or f16.
#pragma once

#include <cstdint>

namespace meshard::cpu {

template <class T>
using UnaryFn = void (*)(const T* x, T* y, int64_t n, float c);
// With repeat a or b points to one number that serves all n.
template <class T>
using BinaryFn = void (*)(const T* a, bool repeat_a, const T* b, bool repeat_b, T* y, int64_t n);

template <class T>
struct Elementwise {
  UnaryFn<T> neg, exp, log, sqrt, rsqrt, square, tanh, sigmoid, reciprocal, scale, offset, gelu, silu;
  BinaryFn<T> gelu_vjp, silu_vjp, add, sub, mul, div, maximum, minimum, log_add;
};

}  // namespace meshard::cpu
