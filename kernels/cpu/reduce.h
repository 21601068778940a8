// The reductions of one instruction set.
#pragma once

#include <cstdint>

namespace meshard::cpu {

// Rows that are folded: `rows` of them at `stride`, `outer` times at `outer_stride`.
struct FoldRows {
  int64_t outer = 1, outer_stride = 0, rows = 0, stride = 0;
};

struct FoldFns {
  float (*row)(const float* x, int64_t n, float m) = nullptr;  // m: what exponentials take off
  void (*columns)(const float* x, const FoldRows& where, int64_t cols, float neutral, float factor,
                  float* y) = nullptr;
  float neutral = 0;
};

struct Reductions {
  FoldFns sum, sum_squares, sum_exp, max, min;
};

}  // namespace meshard::cpu
