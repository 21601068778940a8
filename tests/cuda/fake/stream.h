// A stand-in for a GPU, its runtime, NCCL and cuBLASLt, so that the code that calls them (backend/cuda.cc,
// collectives/nccl.cc, kernels/cuda/cublaslt.cc) runs where there is none. It computes on the host, as strictly as CUDA's
// documents allow:
//
// - Device memory is closed to the host (a touch ends the process) and begins as 0xff, not as zeros.
// - Work is left on its stream until somebody waits. Then the streams take turns as a random sequence says (the same in
//   each run), each only as far as its waits for events let it: what is not ordered comes in any order.
// - The host's pageable memory is read when a copy is called, pinned memory when the copy is done.
// - A capture refuses what CUDA refuses in one: waiting, allocating, events from outside, streams that do not come back.
// - Calls of NCCL that do not block answer ncclInProgress until they are asked again, and nothing else may be asked of
//   their communicator before. Messages between processes carry what they are; both ends compare it.
//
// It says nothing about speed, about what a kernel's threads do to each other (kernels/device/launch-inl.h has its own
// emulation of that), or where these documents are wrong. The environment sets what it is like:
//   MESHARD_FAKE_GPUS          how many there are; 1
//   MESHARD_FAKE_GPU_BYTES     the memory of each; 8 GiB
//   MESHARD_FAKE_DRIVER        the newest CUDA that the driver serves, as cudaDriverGetVersion says it; this one
//   MESHARD_FAKE_FAILS         the number of the kernel that fails with an illegal address; none
//   MESHARD_FAKE_ORDER         another sequence of turns; 0
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace meshard::fake {

struct Work {
  std::function<void()> begin;  // before the first go of each time that it is done; may be empty
  std::function<bool()> go;     // true: done. false: others must come first, call it again
};

// After all that is on the stream.
cudaError_t put(cudaStream_t stream, Work work);
// A kernel, which returns nothing and is counted.
void put_kernel(void* stream, std::function<void()> work);

}  // namespace meshard::fake

// For the library in the place of cuBLASLt, which is opened at run time.
extern "C" void meshard_fake_put(cudaStream_t stream, const std::function<void()>& work);
