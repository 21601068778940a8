// Kernels on rows, of one instruction set: n rows of d elements next to one another.
#pragma once

#include <cstdint>

namespace meshard::cpu {

struct RowFns {
  void (*softmax)(const float* x, int64_t n, int64_t d, float* y);
  void (*softmax_vjp)(const float* y, const float* dy, int64_t n, int64_t d, float* dx);
  // mean == nullptr: rms_norm.
  void (*norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, int64_t d, float* y,
               float* mean, float* rstd);
  // Adds to dweight and (with a mean) dbias.
  void (*norm_vjp)(const float* x, const float* weight, const float* mean, const float* rstd, const float* dy,
                   int64_t n, int64_t d, float* dx, float* dweight, float* dbias);
  void (*cross_entropy)(const float* x, const int32_t* targets, int64_t begin, int64_t n, int64_t d, float* nll,
                        float* lse);
  void (*cross_entropy_vjp)(const float* x, const int32_t* targets, int64_t begin, const float* lse, const float* dnll,
                            int64_t n, int64_t d, float* dx);
  void (*rotate)(const float* x, const float* cosines, const float* sines, int64_t half, float* y);
};

}  // namespace meshard::cpu
