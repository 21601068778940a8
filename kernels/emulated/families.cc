// All families at once: the host's compiler takes seconds where nvcc takes minutes.
#define MESHARD_DEVICE emulated
#include "meshard/kernels/device/attention_family-inl.h"
#include "meshard/kernels/device/index_family-inl.h"
#include "meshard/kernels/device/map_family-inl.h"
#include "meshard/kernels/device/other_family-inl.h"
#include "meshard/kernels/device/reduce_family-inl.h"
#include "meshard/kernels/device/rows_family-inl.h"
#include "meshard/kernels/device/table-inl.h"

namespace meshard {

const DeviceKernels* emulated_kernels() {
  static constexpr DeviceKernels kernels = {emulated::find_kernel, emulated::copy_box, emulated::fold,
                                            emulated::store_number_at};
  return &kernels;
}

namespace {

// What a library would do with the form that it is given.
template <class T>
void multiply(const Gemm& g, const ColumnMajor& f, const T* a, const T* b, T* y) {
  const T *first = f.swapped ? a : b, *second = f.swapped ? b : a;
  const auto at = [](const ColumnMajor::Matrix& x, int64_t i, int64_t j) {
    return x.transposed ? j + i * x.leading : i + j * x.leading;
  };
  for (int64_t s = 0; s < g.stack; ++s) {
    for (int64_t i = 0; i < f.result.rows; ++i) {
      for (int64_t j = 0; j < f.result.columns; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < g.k; ++k) {
          sum += emulated::load(first[s * f.first.stack + at(f.first, i, k)]) *
                 emulated::load(second[s * f.second.stack + at(f.second, k, j)]);
        }
        y[s * f.result.stack + at(f.result, i, j)] = emulated::store<T>(sum);
      }
    }
  }
}

}  // namespace

// In the place of cuBLASLt, so that its form is tested; products in f64 go to the plain kernel.
PreparedGemm emulated::prepare_gemm(const Gemm& gemm) {
  if (gemm.dtype == Dtype::f64 || gemm.stack * gemm.m * gemm.n * gemm.k == 0) return {};
  const ColumnMajor form = column_major(gemm);
  MESHARD_CHECK(form.first.leading >= form.first.rows && form.second.leading >= form.second.rows && form.result.leading >= form.result.rows,
                "matrices of a product overlap");
  return {0, [gemm, form](const void* a, const void* b, void* y, void*, void*) {
            if (gemm.dtype == Dtype::f32) {
              multiply(gemm, form, static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(y));
            } else if (gemm.dtype == Dtype::f16) {
              multiply(gemm, form, static_cast<const float16*>(a), static_cast<const float16*>(b), static_cast<float16*>(y));
            } else {
              multiply(gemm, form, static_cast<const bfloat16*>(a), static_cast<const bfloat16*>(b), static_cast<bfloat16*>(y));
            }
          }};
}

}  // namespace meshard
