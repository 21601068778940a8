// The kernels of one kind of device: for each kernel of the specification (reference/reference.h) the one that does the
// same there, and what the runtime itself has to do with a device's memory. Kernels put their work on
// KernelCall::stream and return; no pointer they are given is read by the host.
//
//   const DeviceKernels* k = cuda_kernels();                 // null in a build without CUDA
//   Prepared p = k->find(op.def->reference)(spec);
#pragma once

#include <cstdint>
#include <span>

#include "meshard/kernels/kernel.h"

namespace meshard {

// A box of elements between two places. Strides are in elements; `bytes` is an element's size: 2, 4 or 8.
struct BoxCopy {
  static constexpr int kMost = 12;
  int dims = 0;
  int64_t size[kMost] = {}, from[kMost] = {}, to[kMost] = {};
  int64_t bytes = 4;

  // One more dimension inside of the others; those that lie in one run at both ends become one.
  void push(int64_t size, int64_t from, int64_t to);
  int64_t elements() const;
};

struct DeviceKernels {
  enum class Fold : uint8_t { sum, max, min };

  // Null: there is none.
  PrepareFn (*find)(PrepareFn reference);
  void (*copy_box)(const BoxCopy& box, const void* from, void* to, void* stream);
  // As reduce_blocks of collectives/reduce.h, in the same order, for at most kFoldMost members.
  void (*fold)(Fold fold, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements, void* stream);
  void (*store)(int32_t value, void* to, void* stream);
  // The kernel that takes narrow operands beside f32 results as they are, and gives an empty `run` for what it does not
  // take; else the specification serves (kernels/mixed.h). Null: there is none.
  PrepareFn (*find_mixed)(PrepareFn reference);
};

// Whether products of f32 that are prepared from now on, in this process, may round their operands to TF32: 10 binary digits
// instead of 23, and several times as fast on a GPU's tensor cores. No at first.
void allow_tf32(bool allowed);

constexpr int kFoldMost = 64;

const DeviceKernels* cuda_kernels();
// The same kernels compiled for the host, one thread after the other: for tests, and to try a device's way of running
// where there is none. A stream of 1 (else 0) runs threads from the last to the first: nothing may depend on it.
const DeviceKernels* emulated_kernels();

}  // namespace meshard
