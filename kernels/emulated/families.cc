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

// Matrix products by the plain kernel.
PreparedGemm emulated::prepare_gemm(const Gemm&) { return {}; }

}  // namespace meshard
