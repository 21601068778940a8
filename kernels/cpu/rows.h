// Kernels on rows, of one instruction set: n rows of d elements next to one another, of f32, bf16 or f16; what there is of a row
// once, and weights, are f32.
#pragma once

#include <cstdint>

namespace meshard::cpu {

template <class T>
struct RowFns {
  void (*softmax)(const T* x, int64_t n, int64_t d, float* y);
  void (*softmax_vjp)(const T* y, const T* dy, int64_t n, int64_t d, T* dx);
  // mean == nullptr: rms_norm.
  void (*norm)(const T* x, const float* weight, const float* bias, float eps, int64_t n, int64_t d, T* y, float* mean,
               float* rstd);
  // Adds to dweight and (with a mean) dbias; `row` is space for d numbers, unused where T is f32.
  void (*norm_vjp)(const T* x, const float* weight, const float* mean, const float* rstd, const T* dy, int64_t n,
                   int64_t d, T* dx, float* dweight, float* dbias, float* row);
  void (*cross_entropy)(const T* x, const int32_t* targets, int64_t begin, int64_t n, int64_t d, float* nll,
                        float* lse);
  void (*cross_entropy_vjp)(const T* x, const int32_t* targets, int64_t begin, const float* lse, const float* dnll,
                            int64_t n, int64_t d, T* dx);
  void (*rotate)(const T* x, const float* cosines, const float* sines, int64_t half, T* y);
};

}  // namespace meshard::cpu
