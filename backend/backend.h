// Backend: a kind of device beside the host: its memory, the streams on which its work is put, and its kernels. What is
// put on a stream is done later, in order; nothing here waits but synchronize(). Programs without one run on the host.
//
//   std::unique_ptr<Backend> gpu = make_backend("cuda");
//   Memory x(gpu.get(), 4096);                                   // zeros
//   gpu->copy(x.data(), numbers, 4096, Backend::compute);
//   gpu->run(kernel, call, Backend::compute);                   // what `call` points to stays until it is done
//   gpu->synchronize(Backend::compute);                         // errors of kernels come out here
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "meshard/base/buffer.h"
#include "meshard/kernels/device_kernels.h"

namespace meshard {

class Backend {
 public:
  // Work for kernels, and for what travels between devices beside it.
  enum Stream : uint8_t { compute, communication };

  virtual ~Backend() = default;
  virtual std::string_view kind() const = 0;  // "cuda", "emulated"
  virtual std::string text() const = 0;       // "NVIDIA H100 80GB HBM3, 79.2 GiB, CUDA 13.0"
  virtual const DeviceKernels& kernels() const = 0;

  // Zeros, aligned to kAlignment. std::bad_alloc where there is no memory.
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual void release(std::byte* memory) = 0;
  // The host's memory that the device reads fastest.
  virtual std::byte* allocate_pinned(int64_t bytes) = 0;
  virtual void release_pinned(std::byte* memory) = 0;
  virtual int64_t free_bytes() const = 0;

  virtual void run(const Prepared& kernel, const KernelCall& call, Stream stream) = 0;
  // Calls that Prepared::run_many makes together; `members` stays until they are done.
  virtual void run_many(std::span<const KernelMember> members, Stream stream) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes, Stream stream) = 0;  // the host's memory or its own
  virtual void zero(void* to, int64_t bytes, Stream stream) = 0;
  virtual void copy_box(const BoxCopy& box, const void* from, void* to, Stream stream) = 0;
  virtual void fold(DeviceKernels::Fold fold, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
                    Stream stream) = 0;
  virtual void store(int32_t value, void* to, Stream stream) = 0;

  // What is put on `stream` from now on begins when all that is on `other` now is done.
  virtual void wait_for(Stream stream, Stream other) = 0;
  virtual void synchronize(Stream stream) = 0;
  // Called now and then while synchronize waits, with the seconds that it has; it may throw. Empty: no more.
  virtual void watch(const void* owner, std::function<void(double waited)> look) = 0;
  // cudaStream_t, for libraries.
  virtual void* native(Stream stream) const = 0;

  // Work put on the streams between begin_capture and end_capture, beginning and ending on `compute`, is not done but
  // kept, to be put there again by replay. At most one capture at a time.
  class Graph {
   public:
    virtual ~Graph() = default;
  };
  virtual void begin_capture() = 0;
  virtual std::unique_ptr<Graph> end_capture() = 0;
  virtual void replay(const Graph& graph) = 0;
};

// Memory of a backend, or with null the host's; zeros.
class Memory {
 public:
  Memory() = default;
  Memory(Backend* backend, int64_t bytes);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  Backend* backend_ = nullptr;
  Buffer host_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Whether this build has CUDA.
bool cuda_built();
// The emulated backend: the device's kernels run by the host, its memory closed to everybody else, work left undone until
// somebody waits for it. For tests of what a device's way of running asks for, on machines that have none.
std::unique_ptr<Backend> emulated_backend();
// GPU number `index` of those that the process sees. UserError: no GPU, a driver older than the runtime, a build without
// CUDA.
std::unique_ptr<Backend> cuda_backend(int index);
int cuda_device_count();  // the same errors

}  // namespace meshard
