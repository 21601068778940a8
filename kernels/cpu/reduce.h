// The reductions of one instruction set.
#pragma once

#include <cstdint>

namespace meshard::cpu {

struct FoldFns {
  float (*row)(const float* x, int64_t n, float m) = nullptr;  // m: what exponentials take off
  void (*columns)(const float* x, int64_t rows, int64_t stride, int64_t cols, float neutral, float factor,
                  float* y) = nullptr;
  float neutral = 0;
};

struct Reductions {
  FoldFns sum, sum_squares, sum_exp, max, min;
};

}  // namespace meshard::cpu
