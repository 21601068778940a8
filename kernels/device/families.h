// The kernels of a device by family: each is a file of its own for nvcc, so that they compile side by side.
#pragma once

#include <vector>

#include "meshard/kernels/kernel.h"

namespace meshard {

struct KernelPair {
  PrepareFn reference, device;
  bool mixed = false;  // takes narrow operands with an f32 result itself
};

}  // namespace meshard

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> map_family();
std::vector<KernelPair> reduce_family();
std::vector<KernelPair> rows_family();
std::vector<KernelPair> attention_family();
std::vector<KernelPair> index_family();
std::vector<KernelPair> other_family();

}  // namespace meshard::MESHARD_DEVICE
