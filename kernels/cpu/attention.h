// The inner loops of attention, of one instruction set.
#pragma once

#include <cstdint>

namespace meshard::cpu {

constexpr int64_t kColumns = 16;  // what widths of panels are rounded up to, in elements

struct AttentionFns {
  // c [m, n] = a [m, k] b [k, n], or added to c with `add`. a is read at i * row + j * column; b and c are rows of ldb
  // and ldc elements; n is a multiple of kColumns.
  void (*product)(const float* a, int64_t row, int64_t column, const float* b, int64_t ldb, int64_t m, int64_t n,
                  int64_t k, bool add, float* c, int64_t ldc);
  // x[i] = exp(scale x[i] - top) for i < n, 0 up to `width`, where top is the largest scale x[i]. Returns top; `sum`
  // the sum.
  float (*weigh)(float* x, int64_t n, int64_t width, float scale, float* sum);
  // p[i] = exp(scale p[i] - lse), then dp[i] = scale p[i] (dp[i] - total), for i < n; both 0 up to `width`.
  void (*weigh_vjp)(float* p, float* dp, int64_t n, int64_t width, float scale, float lse, float total);
  float (*dot)(const float* x, const float* y, int64_t n);
  void (*times)(const float* x, float factor, int64_t n, float* y);
};

}  // namespace meshard::cpu
