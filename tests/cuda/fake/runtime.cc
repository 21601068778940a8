#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "meshard/tests/cuda/fake/stream.h"

namespace {

using meshard::fake::Work;

// What stands on a stream, or on a stream's part of a graph: work, or what must be done elsewhere first.
struct Entry {
  Work work;
  bool begun = false, waits = false;
  size_t other = 0;  // the stream that it waits for, by its number, or the part of the graph
  int64_t until = 0;
};

struct Line {
  std::deque<Entry> open;
  int64_t put = 0, done = 0;
};

}  // namespace

struct CUstream_st {
  size_t number = 0;
};

// A graph, and a capture that becomes one: for each stream that takes part, what was put there.
struct CUgraph_st {
  struct Part {
    cudaStream_t stream;
    std::vector<Entry> entries;
    std::map<size_t, int64_t> seen;  // of other parts, how much is surely done before what comes next here
  };
  std::vector<Part> parts;  // that of the stream on which the capture began first
  bool broken = false;

  size_t part_of(cudaStream_t stream) {
    for (size_t p = 0; p < parts.size(); ++p) {
      if (parts[p].stream == stream) return p;
    }
    parts.push_back({stream, {}, {}});
    return parts.size() - 1;
  }
  bool has(cudaStream_t stream) const {
    return std::any_of(parts.begin(), parts.end(), [&](const Part& p) { return p.stream == stream; });
  }
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<CUgraph_st::Part>> parts;  // a launch that is under way keeps them
};

struct CUevent_st {
  bool recorded = false, captured = false;
  size_t place = 0;  // the stream's number, or the part of the graph
  int64_t until = 0;
  std::map<size_t, int64_t> seen;
};

namespace {

int64_t setting(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoll(text);
}

class Device {
 public:
  // Never torn down: what owns streams may outlive it.
  static Device& get() {
    static Device* const device = new Device;
    return *device;
  }

  // Failures that a call before this one has left behind.
  cudaError_t state() const { return sticky_; }
  cudaError_t answer(cudaError_t status) {
    if (status != cudaSuccess) last_ = status;
    return status;
  }
  cudaError_t take_last() {
    const cudaError_t last = last_;
    if (sticky_ == cudaSuccess) last_ = cudaSuccess;
    return last;
  }

  cudaError_t allocate(void** memory, size_t bytes) {
    if (sticky_ != cudaSuccess) return sticky_;
    if (capture_ != nullptr) return break_capture(cudaErrorStreamCaptureUnsupported);
    const size_t pages = (bytes + kPage - 1) / kPage * kPage;
    if (used_ + pages > total()) return cudaErrorMemoryAllocation;
    void* at = mmap(nullptr, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return cudaErrorMemoryAllocation;
    // The first bytes show as well as all that nothing is zero here, and large memory stays untouched.
    std::memset(at, 0xff, std::min<size_t>(pages, 1 << 20));
    mprotect(at, pages, PROT_NONE);
    blocks_[static_cast<char*>(at)] = pages;
    used_ += pages;
    *memory = at;
    return cudaSuccess;
  }
  cudaError_t release(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    finish_all();
    const auto it = blocks_.find(static_cast<char*>(memory));
    if (it == blocks_.end()) return cudaErrorInvalidValue;
    munmap(memory, it->second);
    used_ -= it->second;
    blocks_.erase(it);
    return cudaSuccess;
  }
  cudaError_t allocate_pinned(void** memory, size_t bytes) {
    if (capture_ != nullptr) return break_capture(cudaErrorStreamCaptureUnsupported);
    *memory = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
    if (*memory == nullptr) return cudaErrorMemoryAllocation;
    std::memset(*memory, 0xff, bytes);
    pinned_[static_cast<char*>(*memory)] = bytes;
    return cudaSuccess;
  }
  cudaError_t release_pinned(void* memory) {
    finish_all();
    if (pinned_.erase(static_cast<char*>(memory)) == 0) return cudaErrorInvalidValue;
    std::free(memory);
    return cudaSuccess;
  }
  size_t total() const { return static_cast<size_t>(setting("MESHARD_FAKE_GPU_BYTES", int64_t{8} << 30)); }
  size_t used() const { return used_; }

  bool on_device(const void* p) const { return inside(blocks_, p); }
  bool pageable(const void* p) const { return !on_device(p) && !inside(pinned_, p); }

  cudaStream_t make_stream() {
    lines_.emplace_back();
    return new CUstream_st{lines_.size() - 1};
  }

  cudaError_t put(cudaStream_t stream, Entry entry) {
    if (sticky_ != cudaSuccess) return sticky_;
    if (capturing(stream)) {
      capture_->parts[capture_->part_of(stream)].entries.push_back(std::move(entry));
      return cudaSuccess;
    }
    Line& line = lines_[stream->number];
    ++line.put;
    line.open.push_back(std::move(entry));
    return cudaSuccess;
  }

  cudaError_t record(cudaEvent_t event, cudaStream_t stream) {
    event->recorded = true;
    event->captured = capturing(stream);
    event->seen.clear();
    if (event->captured) {
      event->place = capture_->part_of(stream);
      const CUgraph_st::Part& part = capture_->parts[event->place];
      event->until = static_cast<int64_t>(part.entries.size());
      event->seen = part.seen;
    } else {
      event->place = stream->number;
      event->until = lines_[stream->number].put;
    }
    return sticky_;
  }

  cudaError_t wait(cudaStream_t stream, cudaEvent_t event) {
    if (!event->recorded) return cudaSuccess;
    if (event->captured && capture_ == nullptr) return cudaErrorCapturedEvent;
    if (!event->captured && capturing(stream)) return break_capture(cudaErrorStreamCaptureIsolation);
    Entry entry;
    entry.waits = true;
    entry.other = event->place;
    entry.until = event->until;
    if (event->captured) {
      CUgraph_st::Part& part = capture_->parts[capture_->part_of(stream)];
      part.entries.push_back(std::move(entry));
      const auto see = [&](size_t place, int64_t until) { part.seen[place] = std::max(part.seen[place], until); };
      see(event->place, event->until);
      for (const auto& [place, until] : event->seen) see(place, until);
      return cudaSuccess;
    }
    return put(stream, std::move(entry));
  }

  cudaError_t begin_capture(cudaStream_t stream) {
    if (capture_ != nullptr) return cudaErrorIllegalState;
    capture_ = std::make_unique<CUgraph_st>();
    capture_->part_of(stream);
    return sticky_;
  }
  cudaError_t end_capture(cudaStream_t stream, cudaGraph_t* graph) {
    if (capture_ == nullptr || capture_->parts[0].stream != stream) return cudaErrorIllegalState;
    std::unique_ptr<CUgraph_st> made = std::move(capture_);
    if (made->broken) return cudaErrorStreamCaptureInvalidated;
    for (size_t p = 1; p < made->parts.size(); ++p) {
      if (made->parts[0].seen[p] < static_cast<int64_t>(made->parts[p].entries.size())) return cudaErrorStreamCaptureUnjoined;
    }
    *graph = made.release();
    return sticky_;
  }
  cudaError_t launch(cudaGraphExec_t graph, cudaStream_t stream) {
    if (capture_ != nullptr) return break_capture(cudaErrorStreamCaptureUnsupported);
    auto lines = std::make_shared<std::vector<Line>>();
    Entry entry;
    entry.work.begin = [parts = graph->parts, lines] {
      lines->assign(parts->size(), {});
      for (size_t p = 0; p < lines->size(); ++p) {
        const std::vector<Entry>& entries = (*parts)[p].entries;
        (*lines)[p].open.assign(entries.begin(), entries.end());
        (*lines)[p].put = static_cast<int64_t>(entries.size());
      }
    };
    entry.work.go = [this, lines] {
      advance(*lines);
      return std::all_of(lines->begin(), lines->end(), [](const Line& l) { return l.done == l.put; });
    };
    return put(stream, std::move(entry));
  }

  // cudaErrorNotReady: there is something left, after some was done.
  cudaError_t query(cudaStream_t stream, bool wait = false) {
    if (capturing(stream)) return break_capture(cudaErrorStreamCaptureUnsupported);
    if (sticky_ != cudaSuccess) return sticky_;
    const Line& line = lines_[stream->number];
    if (line.done == line.put) return cudaSuccess;
    work([&] { return !wait || line.done == line.put; });
    if (sticky_ != cudaSuccess) return sticky_;
    return line.done == line.put ? cudaSuccess : cudaErrorNotReady;
  }
  cudaError_t synchronize(cudaStream_t stream) { return query(stream, true); }

  void count_kernel() {
    if (++kernels_ == fails_) {
      sticky_ = last_ = cudaErrorIllegalAddress;
    }
  }

 private:
  static constexpr size_t kPage = 4096;

  template <class Blocks>
  static bool inside(const Blocks& blocks, const void* p) {
    const char* at = static_cast<const char*>(p);
    auto it = blocks.upper_bound(const_cast<char*>(at));
    if (it == blocks.begin()) return false;
    --it;
    return at < it->first + it->second;
  }
  bool capturing(cudaStream_t stream) const { return capture_ != nullptr && capture_->has(stream); }
  cudaError_t break_capture(cudaError_t status) {
    if (capture_ != nullptr) capture_->broken = true;
    return status;
  }
  size_t turn(size_t below) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(random_ >> 33) % below;
  }

  // Does some of what the lines have; false: nothing could be done.
  bool advance(std::vector<Line>& lines) {
    bool moved = false;
    for (size_t tries = 0; tries < 4 * lines.size() && sticky_ == cudaSuccess; ++tries) {
      Line& line = lines[turn(lines.size())];
      for (size_t some = 1 + turn(32); some > 0 && !line.open.empty() && sticky_ == cudaSuccess; --some) {
        Entry& entry = line.open.front();
        if (entry.waits) {
          if (lines[entry.other].done < entry.until) break;
        } else {
          if (!entry.begun && entry.work.begin) entry.work.begin();
          entry.begun = true;
          if (!entry.work.go()) break;
        }
        line.open.pop_front();
        ++line.done;
        moved = true;
      }
    }
    return moved;
  }
  // The device's turns, at least one, until `enough`.
  template <class Enough>
  void work(const Enough& enough) {
    for (const auto& [memory, bytes] : blocks_) mprotect(memory, bytes, PROT_READ | PROT_WRITE);
    do {
      if (!advance(lines_)) usleep(20);  // another process has to do something
    } while (sticky_ == cudaSuccess && !enough());
    for (const auto& [memory, bytes] : blocks_) mprotect(memory, bytes, PROT_NONE);
  }
  void finish_all() {
    const auto done = [this] { return std::none_of(lines_.begin(), lines_.end(), [](const Line& l) { return l.done < l.put; }); };
    if (sticky_ == cudaSuccess && !done()) work(done);
  }

  std::map<char*, size_t> blocks_, pinned_;
  size_t used_ = 0;
  std::vector<Line> lines_;
  std::unique_ptr<CUgraph_st> capture_;
  cudaError_t sticky_ = cudaSuccess, last_ = cudaSuccess;
  int64_t kernels_ = 0, fails_ = setting("MESHARD_FAKE_FAILS", -1);
  uint64_t random_ = static_cast<uint64_t>(setting("MESHARD_FAKE_ORDER", 0));
};

Device& device() { return Device::get(); }

}  // namespace

namespace meshard::fake {

cudaError_t put(cudaStream_t stream, Work work) {
  Entry entry;
  entry.work = std::move(work);
  return device().answer(device().put(stream, std::move(entry)));
}

void put_kernel(void* stream, std::function<void()> work) {
  put(static_cast<cudaStream_t>(stream), {nullptr, [work = std::move(work)] {
        device().count_kernel();
        if (device().state() == cudaSuccess) work();
        return true;
      }});
}

}  // namespace meshard::fake

extern "C" {

void meshard_fake_put(cudaStream_t stream, const std::function<void()>& work) { meshard::fake::put_kernel(stream, work); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(setting("MESHARD_FAKE_GPUS", 1));
  if (setting("MESHARD_FAKE_DRIVER", CUDART_VERSION) < CUDART_VERSION) return cudaErrorInsufficientDriver;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int index) { return index < setting("MESHARD_FAKE_GPUS", 1) ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "a stand-in for a GPU");
  properties->totalGlobalMem = device().total();
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = static_cast<int>(setting("MESHARD_FAKE_DRIVER", CUDART_VERSION));
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return device().take_last(); }
const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    default: return "another error";
  }
}
const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : cudaGetErrorName(status);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) { return device().answer(device().allocate(memory, bytes)); }
cudaError_t cudaFree(void* memory) { return device().answer(device().release(memory)); }
cudaError_t cudaMallocHost(void** memory, size_t bytes) { return device().answer(device().allocate_pinned(memory, bytes)); }
cudaError_t cudaFreeHost(void* memory) { return device().answer(device().release_pinned(memory)); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = device().total();
  *free = *total - device().used();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (device().pageable(from)) {
    const auto* data = static_cast<const char*>(from);
    return meshard::fake::put(stream, {nullptr, [to, copy = std::vector<char>(data, data + bytes)] {
                                std::memcpy(to, copy.data(), copy.size());
                                return true;
                              }});
  }
  const cudaError_t status = meshard::fake::put(stream, {nullptr, [=] {
                                                           std::memcpy(to, from, bytes);
                                                           return true;
                                                         }});
  return status == cudaSuccess && device().pageable(to) ? device().answer(device().synchronize(stream)) : status;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return meshard::fake::put(stream, {nullptr, [=] {
                              std::memset(to, value, bytes);
                              return true;
                            }});
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = device().make_stream();
  return flags == cudaStreamNonBlocking ? cudaSuccess : device().answer(cudaErrorNotSupported);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t status = device().synchronize(stream);
  delete stream;
  return status;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return device().query(stream); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return device().answer(device().synchronize(stream)); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return device().answer(device().record(event, stream)); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) { return device().answer(device().wait(stream, event)); }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) { return device().answer(device().begin_capture(stream)); }
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) { return device().answer(device().end_capture(stream, graph)); }
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = new CUgraphExec_st{std::make_shared<const std::vector<CUgraph_st::Part>>(graph->parts)};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) { return device().answer(device().launch(graph, stream)); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
}
