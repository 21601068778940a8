// What a device can do at most, measured: the bounds that times of its steps are judged by, as kernels/machine.h has them
// for the host.
//
//   MachineBounds h100 = measure_backend(*gpu, Dtype::bf16);
//   fmt::print("{:.0f} TFLOP/s, {:.0f} GB/s\n", h100.matmul_flops / 1e12, h100.copy_bytes / 1e9);
#pragma once

#include "meshard/backend/backend.h"
#include "meshard/kernels/machine.h"

namespace meshard {

// Square products of `dtype` and copies within the device, each doubled in size (products up to 8192, copies up to
// 512 MiB) while they take less than some milliseconds and fit into a quarter of what is free. Takes less than a second
// on a GPU. It waits for the device: nothing else may be under way.
MachineBounds measure_backend(Backend& backend, Dtype dtype);

}  // namespace meshard
