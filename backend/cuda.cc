#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <chrono>
#include <map>
#include <new>
#include <thread>

#include "meshard/backend/backend.h"
#include "meshard/base/error.h"

namespace meshard {
namespace {

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw InternalError(fmt::format("CUDA: {}: {} ({})", what, cudaGetErrorString(status), cudaGetErrorName(status)));
}

struct CudaGraph : Backend::Graph {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  ~CudaGraph() override {
    if (ready != nullptr) cudaGraphExecDestroy(ready);
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
};

class Cuda : public Backend {
 public:
  explicit Cuda(int index) {
    check(cudaSetDevice(index), "cudaSetDevice");
    check(cudaGetDeviceProperties(&properties_, index), "cudaGetDeviceProperties");
    for (cudaStream_t& s : streams_) check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "a stream");
    for (cudaEvent_t& e : events_) check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "an event");
  }
  ~Cuda() override {
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
    for (cudaStream_t s : streams_) cudaStreamDestroy(s);
  }

  std::string_view kind() const override { return "cuda"; }
  std::string text() const override {
    int runtime = 0;
    cudaRuntimeGetVersion(&runtime);
    return fmt::format("{}, {:.1f} GiB, CUDA {}", properties_.name,
                       static_cast<double>(properties_.totalGlobalMem) / (1 << 30), version_text(runtime));
  }
  const DeviceKernels& kernels() const override { return *cuda_kernels(); }

  std::byte* allocate(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // the next call must not see it
      throw std::bad_alloc();
    }
    check(status, "cudaMalloc");
    // The streams here do not wait for the default one, and cudaMemset does not wait for the device.
    zero(memory, bytes, compute);
    synchronize(compute);
    return static_cast<std::byte*>(memory);
  }
  void release(std::byte* memory) override { cudaFree(memory); }
  std::byte* allocate_pinned(int64_t bytes) override {
    void* memory = nullptr;
    if (cudaMallocHost(&memory, static_cast<size_t>(std::max<int64_t>(bytes, 1))) != cudaSuccess) throw std::bad_alloc();
    return static_cast<std::byte*>(memory);
  }
  void release_pinned(std::byte* memory) override { cudaFreeHost(memory); }
  int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free);
  }

  void run(const Prepared& kernel, const KernelCall& call, Stream stream) override {
    KernelCall mine = call;
    mine.stream = native(stream);
    kernel.run(mine);
  }
  void run_many(std::span<const KernelMember> members, Stream stream) override {
    members.front().kernel->run_many(members, native(stream));
  }
  void copy(void* to, const void* from, int64_t bytes, Stream stream) override {
    if (bytes == 0 || to == from) return;
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, streams_[stream]), "a copy");
  }
  void zero(void* to, int64_t bytes, Stream stream) override {
    if (bytes > 0) check(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), streams_[stream]), "zeros");
  }
  void copy_box(const BoxCopy& box, const void* from, void* to, Stream stream) override {
    cuda_kernels()->copy_box(box, from, to, native(stream));
  }
  void fold(DeviceKernels::Fold fold, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
            Stream stream) override {
    cuda_kernels()->fold(fold, dtype, out, in, elements, native(stream));
  }
  void store(int32_t value, void* to, Stream stream) override { cuda_kernels()->store(value, to, native(stream)); }

  void wait_for(Stream stream, Stream other) override {
    if (stream == other) return;
    // An event may be recorded anew as soon as the wait for it is put: the wait holds to what it saw.
    check(cudaEventRecord(events_[other], streams_[other]), "an event");
    check(cudaStreamWaitEvent(streams_[stream], events_[other], 0), "a wait for an event");
  }
  void synchronize(Stream stream) override {
    if (!watchers_.empty()) wait_watched(stream);
    check(cudaStreamSynchronize(streams_[stream]), "a kernel or copy failed");
  }
  void watch(const void* owner, std::function<void(double)> look) override {
    if (look) {
      watchers_[owner] = std::move(look);
    } else {
      watchers_.erase(owner);
    }
  }
  void* native(Stream stream) const override { return streams_[stream]; }

  void begin_capture() override {
    check(cudaStreamBeginCapture(streams_[compute], cudaStreamCaptureModeThreadLocal), "the begin of a capture");
  }
  std::unique_ptr<Graph> end_capture() override {
    auto graph = std::make_unique<CudaGraph>();
    check(cudaStreamEndCapture(streams_[compute], &graph->graph), "the end of a capture");
    check(cudaGraphInstantiate(&graph->ready, graph->graph, 0), "a graph");
    return graph;
  }
  void replay(const Graph& graph) override {
    check(cudaGraphLaunch(static_cast<const CudaGraph&>(graph).ready, streams_[compute]), "a graph's launch");
  }

 private:
  void wait_watched(Stream stream) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    auto looked = begin;
    while (cudaStreamQuery(streams_[stream]) == cudaErrorNotReady) {
      const auto now = Clock::now();
      if (now - looked < std::chrono::milliseconds(100)) {
        std::this_thread::yield();
        continue;
      }
      looked = now;
      for (const auto& [owner, look] : watchers_) look(std::chrono::duration<double>(now - begin).count());
    }
  }

  std::map<const void*, std::function<void(double)>> watchers_;
  cudaDeviceProp properties_ = {};
  cudaStream_t streams_[2] = {};
  cudaEvent_t events_[2] = {};
};

}  // namespace

bool cuda_built() { return true; }

int cuda_device_count() {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (status == cudaErrorInsufficientDriver && driver > 0) {
    throw UserError(fmt::format("the GPU's driver serves CUDA up to {}, this meshard was built with CUDA {}; install a newer driver, or build with an older toolkit",
                                version_text(driver), version_text(runtime)));
  }
  if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice || status == cudaSuccess) {
    throw UserError(driver == 0 ? "this machine has no GPU, or no driver for it; see nvidia-smi, or leave out --device cuda"
                                : "no GPU is visible here; see nvidia-smi and CUDA_VISIBLE_DEVICES, or leave out --device cuda");
  }
  throw UserError(fmt::format("the GPUs of this machine cannot be used: {} ({})", cudaGetErrorString(status), cudaGetErrorName(status)));
}

std::unique_ptr<Backend> cuda_backend(int index) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count) {
    throw UserError(fmt::format("there is no GPU number {}; this process sees {}", index, count));
  }
  return std::make_unique<Cuda>(index);
}

}  // namespace meshard
