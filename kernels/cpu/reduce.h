// The reductions of one instruction set.
#pragma once

#include <cstdint>

namespace meshard::cpu {

// Rows that are folded: `rows` of them at `stride`, `outer` times at `outer_stride`.
struct FoldRows {
  int64_t outer = 1, outer_stride = 0, rows = 0, stride = 0;
};

// Of f32, bf16 or f16 to f32.
template <class T>
struct FoldFns {
  float (*row)(const T* x, int64_t n, float m) = nullptr;  // m: what exponentials take off
  void (*columns)(const T* x, const FoldRows& where, int64_t cols, float neutral, float factor,
                  float* y) = nullptr;
  float neutral = 0;
};

template <class T>
struct Reductions {
  FoldFns<T> sum, sum_squares, sum_exp, max, min;
};

}  // namespace meshard::cpu
