// The kernels of kernels/cuda, compiled for the host: each launch is put on its stream.
#include "meshard/tests/cuda/fake/stream.h"

#define MESHARD_LAUNCH(stream, ...) ::meshard::fake::put_kernel(stream, __VA_ARGS__)
#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/attention_family-inl.h"
#include "meshard/kernels/device/index_family-inl.h"
#include "meshard/kernels/device/map_family-inl.h"
#include "meshard/kernels/device/other_family-inl.h"
#include "meshard/kernels/device/reduce_family-inl.h"
#include "meshard/kernels/device/rows_family-inl.h"
#include "meshard/kernels/device/table-inl.h"

namespace meshard {

const DeviceKernels* cuda_kernels() {
  return &cuda::kDeviceKernels;
}

}  // namespace meshard
