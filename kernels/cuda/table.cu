#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/table-inl.h"

namespace meshard {

const DeviceKernels* cuda_kernels() {
  static constexpr DeviceKernels kernels = {cuda::find_kernel, cuda::copy_box, cuda::fold, cuda::store_number_at,
                                            cuda::find_mixed_kernel};
  return &kernels;
}

}  // namespace meshard
