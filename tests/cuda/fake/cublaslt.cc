// A library in the place of cuBLASLt, opened by its name: what it is asked is held against what cuBLASLt's documents ask
// for, and multiplied one element after the other.
#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "meshard/tests/cuda/fake/stream.h"

namespace {

struct Layout {
  cudaDataType_t type;
  uint64_t rows, columns;
  int64_t leading, stride;
  int32_t count;
};
struct Description {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t a, b;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  void* aux = nullptr;
  int64_t aux_leading = 0, aux_stride = 0;
};
struct Preference {
  uint64_t workspace;
  uint32_t aligned[4];
};

constexpr uint64_t kWorkspace = (1 << 20) + 64;
constexpr uint64_t kMark = 0x6d657368617264;

template <class T, class Handle>
T& of(Handle handle) {
  return *reinterpret_cast<T*>(const_cast<std::remove_const_t<std::remove_pointer_t<Handle>>*>(handle));
}
template <class T>
cublasStatus_t set(T& to, const void* from, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

size_t bytes_of(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_64F: return 8;
    case CUDA_R_32F: return 4;
    default: return 2;
  }
}
double read(const void* base, int64_t i, cudaDataType_t type) {
  switch (type) {
    case CUDA_R_64F: return static_cast<const double*>(base)[i];
    case CUDA_R_32F: return static_cast<const float*>(base)[i];
    case CUDA_R_16F: return static_cast<double>(static_cast<const _Float16*>(base)[i]);
    default: {
      const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(base)[i]) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
  }
}
void write(void* base, int64_t i, cudaDataType_t type, double value) {
  switch (type) {
    case CUDA_R_64F: static_cast<double*>(base)[i] = value; return;
    case CUDA_R_32F: static_cast<float*>(base)[i] = static_cast<float>(value); return;
    case CUDA_R_16F: static_cast<_Float16*>(base)[i] = static_cast<_Float16>(value); return;
    default: {
      const auto narrow = static_cast<float>(value);
      uint32_t bits;
      std::memcpy(&bits, &narrow, sizeof bits);
      if (narrow == narrow) bits += 0x7fff + (bits >> 16 & 1);
      static_cast<uint16_t*>(base)[i] = static_cast<uint16_t>(bits >> 16);
    }
  }
}

struct Product {
  Description how;
  Layout a, b, c, d;

  // The types that go together (cublasLtMatmul's table), matrices that do not overlap themselves, sizes that fit.
  bool supported() const {
    const bool wide = how.compute == CUBLAS_COMPUTE_64F;
    if (wide != (a.type == CUDA_R_64F) || how.scale != (wide ? CUDA_R_64F : CUDA_R_32F) || a.type != b.type || c.type != d.type) return false;
    if (how.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.type != CUDA_R_32F) return false;
    if (d.type != a.type && (wide || d.type != CUDA_R_32F)) return false;
    for (const Layout* l : {&a, &b, &c, &d}) {
      if (l->leading < static_cast<int64_t>(l->rows) || l->rows == 0 || l->columns == 0 || l->count != d.count) return false;
    }
    if (!epilogue_supported()) return false;
    return m() == (how.a == CUBLAS_OP_N ? a.rows : a.columns) && n() == (how.b == CUBLAS_OP_N ? b.columns : b.rows) &&
           k() == (how.b == CUBLAS_OP_N ? b.rows : b.columns) && c.rows == d.rows && c.columns == d.columns;
  }
  bool biased() const { return how.epilogue != CUBLASLT_EPILOGUE_DEFAULT; }
  bool gelu() const { return how.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS || has_aux(); }
  bool has_aux() const { return how.epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS; }
  bool epilogue_supported() const {
    if (!biased()) return true;
    if (how.bias == nullptr || d.type == CUDA_R_64F || (how.epilogue != CUBLASLT_EPILOGUE_BIAS && !gelu())) return false;
    return !has_aux() || (how.aux != nullptr && how.aux_leading % 8 == 0 && how.aux_leading >= static_cast<int64_t>(d.rows));
  }
  uint64_t m() const { return d.rows; }
  uint64_t n() const { return d.columns; }
  uint64_t k() const { return how.a == CUBLAS_OP_N ? a.columns : a.rows; }
  uint64_t mark() const { return kMark ^ static_cast<uint64_t>(how.epilogue) << 48 ^ (m() * 1000003 + n() * 1009 + k()) ^ static_cast<uint64_t>(a.type) << 40; }

  void run(double alpha, const void* pa, const void* pb, double beta, const void* pc, void* pd) const {
    const auto at = [](const Layout& l, int64_t s, uint64_t i, uint64_t j) {
      return s * l.stride + static_cast<int64_t>(i) + static_cast<int64_t>(j) * l.leading;
    };
    for (int64_t s = 0; s < d.count; ++s) {
      for (uint64_t j = 0; j < n(); ++j) {
        for (uint64_t i = 0; i < m(); ++i) {
          double sum = 0;
          for (uint64_t l = 0; l < k(); ++l) {
            sum += read(pa, how.a == CUBLAS_OP_N ? at(a, s, i, l) : at(a, s, l, i), a.type) *
                   read(pb, how.b == CUBLAS_OP_N ? at(b, s, l, j) : at(b, s, j, l), b.type);
          }
          const double old = beta == 0 ? 0 : beta * read(pc, at(c, s, i, j), c.type);
          double value = alpha * sum + old;
          if (biased()) value += read(how.bias, static_cast<int64_t>(i), d.type);
          if (has_aux()) write(how.aux, s * how.aux_stride + static_cast<int64_t>(i) + static_cast<int64_t>(j) * how.aux_leading, d.type, value);
          if (gelu()) value = 0.5 * value * (1 + std::tanh(0.79788456080286535588 * (value + 0.044715 * value * value * value)));
          write(pd, at(d, s, i, j), d.type, value);
        }
      }
    }
  }
};

Product product_of(cublasLtMatmulDesc_t how, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  return {of<Description>(how), of<Layout>(a), of<Layout>(b), of<Layout>(c), of<Layout>(d)};
}

template <class T, class Handle>
cublasStatus_t make(Handle* handle, const T& value) {
  *handle = reinterpret_cast<Handle>(new T(value));
  return CUBLAS_STATUS_SUCCESS;
}
template <class T, class Handle>
cublasStatus_t drop(Handle handle) {
  delete &of<T>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

bool multiple(const void* p, uint32_t of) { return reinterpret_cast<uintptr_t>(p) % of == 0; }

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static int here;
  *handle = reinterpret_cast<cublasLtHandle_t>(&here);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* how, cublasComputeType_t compute, cudaDataType_t scale) {
  return make(how, Description{compute, scale, CUBLAS_OP_N, CUBLAS_OP_N});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t how) { return drop<Description>(how); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t how, cublasLtMatmulDescAttributes_t which, const void* value, size_t bytes) {
  if (which == CUBLASLT_MATMUL_DESC_TRANSA) return set(of<Description>(how).a, value, bytes);
  if (which == CUBLASLT_MATMUL_DESC_TRANSB) return set(of<Description>(how).b, value, bytes);
  if (which == CUBLASLT_MATMUL_DESC_EPILOGUE) return set(of<Description>(how).epilogue, value, bytes);
  if (which == CUBLASLT_MATMUL_DESC_BIAS_POINTER) return set(of<Description>(how).bias, value, bytes);
  if (which == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER) return set(of<Description>(how).aux, value, bytes);
  if (which == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD) return set(of<Description>(how).aux_leading, value, bytes);
  if (which == CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE) return set(of<Description>(how).aux_stride, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t leading) {
  return make(layout, Layout{type, rows, columns, leading, 0, 1});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return drop<Layout>(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t which, const void* value, size_t bytes) {
  if (which == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return set(of<Layout>(layout).count, value, bytes);
  if (which == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) return set(of<Layout>(layout).stride, value, bytes);
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) { return make(preference, Preference{0, {256, 256, 256, 256}}); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return drop<Preference>(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t which, const void* value,
                                                    size_t bytes) {
  Preference& p = of<Preference>(preference);
  switch (which) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(p.aligned[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(p.aligned[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(p.aligned[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(p.aligned[3], value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t how, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* count) {
  const Product product = product_of(how, a, b, c, d);
  const Preference& p = of<Preference>(preference);
  *count = 0;
  if (wanted < 1 || !product.supported()) return CUBLAS_STATUS_NOT_SUPPORTED;
  *results = {};
  results->algo.data[0] = product.mark();
  for (uint64_t i = 0; i < 4; ++i) results->algo.data[1 + i] = p.aligned[i];
  // An odd size of a workspace, and none for every second width.
  results->workspaceSize = product.n() % 2 == 0 ? std::min<uint64_t>(p.workspace, kWorkspace) : 0;
  results->state = CUBLAS_STATUS_SUCCESS;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t how, const void* alpha, const void* pa, cublasLtMatrixLayout_t a, const void* pb,
                              cublasLtMatrixLayout_t b, const void* beta, const void* pc, cublasLtMatrixLayout_t c, void* pd, cublasLtMatrixLayout_t d,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const Product product = product_of(how, a, b, c, d);
  if (product.biased() && (!multiple(product.how.bias, 16) || product.how.bias == reinterpret_cast<void*>(uintptr_t{64}))) return CUBLAS_STATUS_INVALID_VALUE;
  if (algo == nullptr || algo->data[0] != product.mark()) return CUBLAS_STATUS_INVALID_VALUE;
  const void* places[] = {pa, pb, pc, pd};
  for (size_t i = 0; i < 4; ++i) {
    if (!multiple(places[i], static_cast<uint32_t>(algo->data[1 + i]))) return CUBLAS_STATUS_INVALID_VALUE;
  }
  const uint64_t needs = product.n() % 2 == 0 ? kWorkspace : 0;
  if (workspace_bytes < needs || !multiple(workspace, 256)) return CUBLAS_STATUS_INVALID_VALUE;
  const double one = read(alpha, 0, product.how.scale), other = read(beta, 0, product.how.scale);
  meshard_fake_put(stream, [=] {
    std::memset(workspace, 0xff, workspace_bytes);
    product.run(one, pa, pb, other, pc, pd);
  });
  return CUBLAS_STATUS_SUCCESS;
}
}
