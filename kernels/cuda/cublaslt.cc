// Matrix products by cuBLASLt. It is opened when a kernel first needs it: linked, it would cost every start of every
// program 0.3 s and 200 MB. Where it is missing, the plain kernel serves.
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "meshard/base/error.h"
#include "meshard/kernels/device/gemm.h"

namespace meshard::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // at most; what Hopper's fastest kernels ask for
constexpr int64_t kWorkspaceAligned = 256;            // bytes, which the library wants of its workspace
constexpr uint32_t kAligned = 64;                     // bytes, as every value in an arena is

struct Library {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) make_product = nullptr;
  decltype(&cublasLtMatmulDescDestroy) drop_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) make_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) drop_layout = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) make_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) drop_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  cublasLtHandle_t handle = nullptr;

  explicit operator bool() const { return handle != nullptr; }
};

Library open_library() {
  Library lib;
  void* file = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) file = dlopen(MESHARD_CUBLASLT, RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) return lib;
  bool all = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(file, name));
    all = all && function != nullptr;
  };
  find(lib.create, "cublasLtCreate");
  find(lib.matmul, "cublasLtMatmul");
  find(lib.make_product, "cublasLtMatmulDescCreate");
  find(lib.drop_product, "cublasLtMatmulDescDestroy");
  find(lib.set_product, "cublasLtMatmulDescSetAttribute");
  find(lib.make_layout, "cublasLtMatrixLayoutCreate");
  find(lib.drop_layout, "cublasLtMatrixLayoutDestroy");
  find(lib.set_layout, "cublasLtMatrixLayoutSetAttribute");
  find(lib.make_preference, "cublasLtMatmulPreferenceCreate");
  find(lib.drop_preference, "cublasLtMatmulPreferenceDestroy");
  find(lib.set_preference, "cublasLtMatmulPreferenceSetAttribute");
  find(lib.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  if (!all || lib.create(&lib.handle) != CUBLAS_STATUS_SUCCESS) lib.handle = nullptr;
  return lib;
}

// One for the process: the handle has nothing that a call changes, and stays until the end.
const Library& library() {
  static const Library lib = open_library();
  return lib;
}

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw InternalError(std::string("cuBLASLt: ") + what + " failed with status " + std::to_string(static_cast<int>(status)));
  }
}

cudaDataType_t type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64: return CUDA_R_64F;
    case Dtype::bf16: return CUDA_R_16BF;
    case Dtype::f16: return CUDA_R_16F;
    default: return CUDA_R_32F;
  }
}
// Sums are in f32 for whatever is narrower.
cublasComputeType_t sums_of(const Gemm& g) {
  if (g.dtype == Dtype::f64) return CUBLAS_COMPUTE_64F;
  return g.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
}

// What the library chose, by all that it chose by: a program has the same product once for each layer, and a training
// run for validation and generation again.
class Choices {
 public:
  using Key = std::array<int64_t, 21>;

  static Key key_of(const Gemm& g, const ColumnMajor& form) {
    Key key{static_cast<int64_t>(g.dtype), static_cast<int64_t>(g.result), g.tf32, g.stack};
    size_t at = 4;
    for (const ColumnMajor::Matrix* m : {&form.first, &form.second, &form.result}) {
      for (const int64_t x : {m->rows, m->columns, m->leading, m->stack, int64_t{m->transposed}}) key[at++] = x;
    }
    int device = 0;
    cudaGetDevice(&device);
    key[at++] = device;
    key[at] = 2 * static_cast<int64_t>(g.epilogue) + g.keeps_sum;
    return key;
  }

  std::optional<cublasLtMatmulHeuristicResult_t> find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto it = known_.find(key);
    return it == known_.end() ? std::nullopt : std::optional(it->second);
  }
  void keep(const Key& key, const cublasLtMatmulHeuristicResult_t& choice) {
    const std::lock_guard lock(mutex_);
    known_[key] = choice;
  }

 private:
  std::mutex mutex_;
  std::map<Key, cublasLtMatmulHeuristicResult_t> known_;
};
Choices& choices() {
  static Choices all;
  return all;
}

class Matmul {
 public:
  explicit Matmul(const Gemm& g)
      : f64_(g.dtype == Dtype::f64), epilogue_(g.epilogue), keeps_sum_(g.keeps_sum), form_(column_major(g)) {
    const Library& lib = library();
    check(lib.make_product(&product_, sums_of(g), f64_ ? CUDA_R_64F : CUDA_R_32F), "a description");
    const cublasOperation_t first = form_.first.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = form_.second.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check(lib.set_product(product_, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first), "a transpose");
    check(lib.set_product(product_, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second), "a transpose");
    if (epilogue_ != Gemm::Epilogue::none) set_epilogue();
    make_layout(first_, form_.first, g.stack, g.dtype);
    make_layout(second_, form_.second, g.stack, g.dtype);
    make_layout(result_, form_.result, g.stack, g.result);
    const Choices::Key key = Choices::key_of(g, form_);
    if (const auto known = choices().find(key)) {
      choice_ = *known;
      found_ = true;
      return;
    }
    find_algorithm();
    if (found_) choices().keep(key, choice_);
  }
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;
  ~Matmul() {
    const Library& lib = library();
    for (cublasLtMatrixLayout_t layout : {first_, second_, result_}) {
      if (layout != nullptr) lib.drop_layout(layout);
    }
    if (product_ != nullptr) lib.drop_product(product_);
  }

  bool found() const { return found_; }
  int64_t workspace_bytes() const {
    return choice_.workspaceSize == 0 ? 0 : static_cast<int64_t>(choice_.workspaceSize) + kWorkspaceAligned;
  }

  void run(const GemmCall& call) const {
    const double one64 = 1, zero64 = 0;
    const float one = 1, zero = 0;
    const void* alpha = f64_ ? static_cast<const void*>(&one64) : &one;
    const void* beta = f64_ ? static_cast<const void*>(&zero64) : &zero;
    const void* first = form_.swapped ? call.a : call.b;
    const void* second = form_.swapped ? call.b : call.a;
    const auto at = reinterpret_cast<uintptr_t>(call.workspace);
    if (epilogue_ != Gemm::Epilogue::none) set_pointers(call.bias, call.sum);
    void* workspace = reinterpret_cast<void*>((at + kWorkspaceAligned - 1) / kWorkspaceAligned * kWorkspaceAligned);
    check(library().matmul(library().handle, product_, alpha, first, first_, second, second_, beta, call.y, result_, call.y,
                           result_, &choice_.algo, workspace, choice_.workspaceSize, static_cast<cudaStream_t>(call.stream)),
          "a product");
  }

 private:
  void make_layout(cublasLtMatrixLayout_t& layout, const ColumnMajor::Matrix& matrix, int64_t stack, Dtype dtype) {
    const Library& lib = library();
    check(lib.make_layout(&layout, type_of(dtype), static_cast<uint64_t>(matrix.rows), static_cast<uint64_t>(matrix.columns),
                          matrix.leading),
          "a layout");
    const int64_t step = matrix.stack;
    const auto count = static_cast<int32_t>(stack);
    check(lib.set_layout(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count), "a stack");
    check(lib.set_layout(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step), "a stack");
  }

  // The library's bias is one number for each row of a column-major result, which is our column; its gelu is the one with
  // tanh, as ours.
  void set_epilogue() {
    cublasLtEpilogue_t what = CUBLASLT_EPILOGUE_BIAS;
    if (epilogue_ == Gemm::Epilogue::gelu) what = keeps_sum_ ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_BIAS;
    check(library().set_product(product_, CUBLASLT_MATMUL_DESC_EPILOGUE, &what, sizeof what), "an epilogue");
    if (keeps_sum_) {
      const int64_t leading = form_.result.leading, stack = form_.result.stack;
      check(library().set_product(product_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &leading, sizeof leading), "a second result");
      check(library().set_product(product_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, &stack, sizeof stack), "a second result");
    }
    // What an algorithm may assume of them: as aligned as every value is.
    set_pointers(reinterpret_cast<void*>(uintptr_t{kAligned}), reinterpret_cast<void*>(uintptr_t{kAligned}));
  }
  void set_pointers(const void* bias, void* sum) const {
    check(library().set_product(product_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias), "a bias");
    if (keeps_sum_) {
      check(library().set_product(product_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &sum, sizeof sum), "a second result");
    }
  }

  void find_algorithm() {
    const Library& lib = library();
    cublasLtMatmulPreference_t preference = nullptr;
    check(lib.make_preference(&preference), "a preference");
    const size_t most = kWorkspaceBytes;
    lib.set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
    for (const auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                             CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      lib.set_preference(preference, which, &kAligned, sizeof kAligned);
    }
    int count = 0;
    const cublasStatus_t status = lib.heuristic(library().handle, product_, first_, second_, result_, result_,
                                                preference, 1, &choice_, &count);
    lib.drop_preference(preference);
    found_ = status == CUBLAS_STATUS_SUCCESS && count > 0 && choice_.state == CUBLAS_STATUS_SUCCESS;
  }

  bool f64_;
  Gemm::Epilogue epilogue_;
  bool keeps_sum_, found_ = false;
  ColumnMajor form_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t first_ = nullptr, second_ = nullptr, result_ = nullptr;
  cublasLtMatmulHeuristicResult_t choice_ = {};
};

}  // namespace

PreparedGemm prepare_gemm(const Gemm& gemm) {
  // Products of nothing are zeros, which the plain kernel writes.
  if (gemm.stack * gemm.m * gemm.n * gemm.k == 0 || gemm.stack > INT32_MAX || !library()) return {};
  if (gemm.epilogue != Gemm::Epilogue::none) {
    // A second result steps over multiples of 8 rows.
    const ColumnMajor form = column_major(gemm);
    if (form.swapped || gemm.dtype == Dtype::f64 || gemm.result != gemm.dtype || (gemm.keeps_sum && form.result.leading % 8 != 0)) return {};
  }
  const auto matmul = std::make_shared<const Matmul>(gemm);
  if (!matmul->found()) return {};
  return {matmul->workspace_bytes(), [matmul](const GemmCall& call) { matmul->run(call); }};
}

}  // namespace meshard::cuda
