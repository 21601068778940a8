#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/table-inl.h"

namespace meshard {

const DeviceKernels* cuda_kernels() {
  return &cuda::kDeviceKernels;
}

}  // namespace meshard
