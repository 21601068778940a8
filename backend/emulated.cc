// Three things that a GPU does are done here too, so that a program that forgets one of them fails a test. Its memory is
// closed to the host (a touch ends the process) but for the time in which work is done. Work is left undone until
// somebody waits for it. And a stream does another one's work only where it was told to wait for it.
#include <sys/mman.h>

#include <deque>
#include <functional>
#include <map>
#include <new>
#include <vector>

#include "meshard/backend/backend.h"
#include "meshard/base/buffer.h"
#include "meshard/base/error.h"

namespace meshard {
namespace {

constexpr int64_t kPage = 4096;

using Work = std::function<void()>;

// An entry of a stream: work, or what must be done on the other stream first.
struct Entry {
  Work work;
  bool waits = false;
  Backend::Stream other = Backend::compute;
  int64_t until = 0;  // entries of `other` that must be done
};

struct EmulatedGraph : Backend::Graph {
  struct Item {
    Backend::Stream stream;
    Entry entry;  // `until` counts from the beginning of the graph
  };
  std::vector<Item> items;
};

class Emulated : public Backend {
 public:
  std::string_view kind() const override { return "emulated"; }
  std::string text() const override { return "an emulated device"; }
  const DeviceKernels& kernels() const override { return *emulated_kernels(); }

  std::byte* allocate(int64_t bytes) override {
    const int64_t pages = (bytes + kPage - 1) / kPage * kPage + (bytes == 0 ? kPage : 0);
    void* memory = mmap(nullptr, static_cast<size_t>(pages), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto* data = static_cast<std::byte*>(memory);
    blocks_[data] = pages;
    return data;
  }
  void release(std::byte* memory) override {
    synchronize(compute);
    synchronize(communication);
    const auto it = blocks_.find(memory);
    MESHARD_CHECK(it != blocks_.end(), "memory of another backend");
    munmap(memory, static_cast<size_t>(it->second));
    blocks_.erase(it);
  }
  std::byte* allocate_pinned(int64_t bytes) override {
    auto buffer = std::make_unique<Buffer>(std::max(bytes, kAlignment));
    std::byte* data = buffer->data();
    pinned_[data] = std::move(buffer);
    return data;
  }
  void release_pinned(std::byte* memory) override {
    synchronize(compute);
    synchronize(communication);
    pinned_.erase(memory);
  }
  int64_t free_bytes() const override { return int64_t{1} << 40; }

  void run(const Prepared& kernel, const KernelCall& call, Stream stream) override {
    put(stream, [&kernel, call] { kernel.run(call); });
  }
  void run_many(std::span<const KernelMember> members, Stream stream) override {
    put(stream, [members] { members.front().kernel->run_many(members, nullptr); });
  }
  void copy(void* to, const void* from, int64_t bytes, Stream stream) override {
    if (bytes == 0 || to == from) return;
    put(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
  }
  void zero(void* to, int64_t bytes, Stream stream) override {
    if (bytes == 0) return;
    put(stream, [=] { std::memset(to, 0, static_cast<size_t>(bytes)); });
  }
  void copy_box(const BoxCopy& box, const void* from, void* to, Stream stream) override {
    put(stream, [=] { emulated_kernels()->copy_box(box, from, to, nullptr); });
  }
  void fold(DeviceKernels::Fold fold, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
            Stream stream) override {
    put(stream, [=, in = std::vector<const void*>(in.begin(), in.end())] {
      emulated_kernels()->fold(fold, dtype, out, in, elements, nullptr);
    });
  }
  void store(int32_t value, void* to, Stream stream) override {
    put(stream, [=] { emulated_kernels()->store(value, to, nullptr); });
  }

  void wait_for(Stream stream, Stream other) override {
    if (stream == other) return;
    Entry entry;
    entry.waits = true;
    entry.other = other;
    entry.until = captured_ != nullptr ? captured_on_[other] : queues_[other].put;
    put(stream, std::move(entry));
  }
  void synchronize(Stream stream) override {
    MESHARD_CHECK(captured_ == nullptr, "a step that is captured waits for the device");
    if (queues_[stream].done == queues_[stream].put) return;
    protect(PROT_READ | PROT_WRITE);
    catch_up(stream, queues_[stream].put);
    protect(PROT_NONE);
  }
  void watch(const void*, std::function<void(double)>) override {}  // nothing is waited for that the host does not do
  void* native(Stream) const override { return nullptr; }

  void begin_capture() override {
    MESHARD_CHECK(captured_ == nullptr, "a capture in a capture");
    captured_ = std::make_unique<EmulatedGraph>();
    captured_on_[0] = captured_on_[1] = 0;
  }
  std::unique_ptr<Graph> end_capture() override { return std::move(captured_); }
  void replay(const Graph& graph) override {
    const int64_t before[2] = {queues_[0].put, queues_[1].put};
    for (const EmulatedGraph::Item& item : static_cast<const EmulatedGraph&>(graph).items) {
      Entry entry = item.entry;
      if (entry.waits) entry.until += before[entry.other];
      put(item.stream, std::move(entry));
    }
  }

 private:
  struct Queue {
    std::deque<Entry> open;
    int64_t put = 0, done = 0;
  };

  void put(Stream stream, Work work) {
    Entry entry;
    entry.work = std::move(work);
    put(stream, std::move(entry));
  }
  void put(Stream stream, Entry entry) {
    if (captured_ != nullptr) {
      ++captured_on_[stream];
      captured_->items.push_back({stream, std::move(entry)});
      return;
    }
    ++queues_[stream].put;
    queues_[stream].open.push_back(std::move(entry));
  }

  void catch_up(Stream stream, int64_t until) {
    Queue& queue = queues_[stream];
    while (queue.done < until) {
      Entry entry = std::move(queue.open.front());
      queue.open.pop_front();
      ++queue.done;
      if (entry.waits) {
        catch_up(entry.other, entry.until);
      } else {
        entry.work();
      }
    }
  }

  void protect(int how) {
    for (const auto& [data, bytes] : blocks_) mprotect(data, static_cast<size_t>(bytes), how);
  }

  std::map<std::byte*, int64_t> blocks_;
  std::map<std::byte*, std::unique_ptr<Buffer>> pinned_;
  Queue queues_[2];
  std::unique_ptr<EmulatedGraph> captured_;
  int64_t captured_on_[2] = {};
};

}  // namespace

std::unique_ptr<Backend> emulated_backend() { return std::make_unique<Emulated>(); }

}  // namespace meshard
