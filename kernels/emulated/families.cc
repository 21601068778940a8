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
  return &emulated::kDeviceKernels;
}

namespace {

// As a tensor core reads it.
float operand(const Gemm& g, float x) {
  if (!g.tf32) return x;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0xFFF + (bits >> 13 & 1)) & ~uint32_t{0x1FFF};
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// What a library would do with the form that it is given.
template <class T, class R>
void multiply(const Gemm& g, const ColumnMajor& f, const T* a, const T* b, R* y, const R* bias, R* kept) {
  const T *first = f.swapped ? a : b, *second = f.swapped ? b : a;
  const auto at = [](const ColumnMajor::Matrix& x, int64_t i, int64_t j) {
    return x.transposed ? j + i * x.leading : i + j * x.leading;
  };
  for (int64_t s = 0; s < g.stack; ++s) {
    for (int64_t i = 0; i < f.result.rows; ++i) {
      for (int64_t j = 0; j < f.result.columns; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < g.k; ++k) {
          sum += operand(g, emulated::load(first[s * f.first.stack + at(f.first, i, k)])) *
                 operand(g, emulated::load(second[s * f.second.stack + at(f.second, k, j)]));
        }
        const int64_t to = s * f.result.stack + at(f.result, i, j);
        if (g.epilogue != Gemm::Epilogue::none) sum += emulated::load(bias[i]);
        if (g.keeps_sum) kept[to] = emulated::store<R>(sum);
        if (g.epilogue == Gemm::Epilogue::gelu) sum = emulated::map_float(emulated::Map::gelu, sum, 0.0f, 0, 0);
        y[to] = emulated::store<R>(sum);
      }
    }
  }
}

}  // namespace

// In the place of cuBLASLt, so that its form is tested; products in f64 go to the plain kernel.
PreparedGemm emulated::prepare_gemm(const Gemm& gemm) {
  if (gemm.dtype == Dtype::f64 || gemm.stack * gemm.m * gemm.n * gemm.k == 0) return {};
  const ColumnMajor form = column_major(gemm);
  if (form.swapped && gemm.epilogue != Gemm::Epilogue::none) return {};
  MESHARD_CHECK(form.first.leading >= form.first.rows && form.second.leading >= form.second.rows && form.result.leading >= form.result.rows,
                "matrices of a product overlap");
  return {0, [gemm, form](const GemmCall& call) {
            const auto run = [&]<class T, class R>(T, R) {
              multiply(gemm, form, static_cast<const T*>(call.a), static_cast<const T*>(call.b), static_cast<R*>(call.y), static_cast<const R*>(call.bias),
                       static_cast<R*>(call.sum));
            };
            const bool wide = gemm.result == Dtype::f32;
            if (gemm.dtype == Dtype::f32) return run(float(), float());
            if (gemm.dtype == Dtype::f16) return wide ? run(float16(), float()) : run(float16(), float16());
            return wide ? run(bfloat16(), float()) : run(bfloat16(), bfloat16());
          }};
}

}  // namespace meshard
