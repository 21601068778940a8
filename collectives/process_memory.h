// ProcessMemory: how a rank reaches the memory of the other ranks of its host. What lies in their shared heaps
// (base/shared_heap.h) it maps and uses like its own; anything else the system copies from process to process, a page
// at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace meshard {

class ProcessMemory {
 public:
  // What a rank tells the others of itself.
  struct Process {
    int64_t id = 0;
    const uint64_t* proof = nullptr;  // where `value` lies, while the others try to read it
    uint64_t value = 0;
    std::byte* heap = nullptr;  // null: none; at its begin lies `value` too
    int64_t heap_bytes = 0;
    int64_t heap_file = -1;
  };

  // Tries to reach each of them. processes[self] is this one.
  ProcessMemory(std::vector<Process> processes, int self);
  ProcessMemory(const ProcessMemory&) = delete;
  ProcessMemory& operator=(const ProcessMemory&) = delete;
  ~ProcessMemory();

  // Whether any address of all others can be read and written.
  bool reaches_all() const { return reaches_all_; }

  // `bytes` at `address` of a rank's process where this one has them mapped; null where they must be copied. Pages of
  // others are dropped again after some use, so that they do not add up in what the system counts as this process's
  // memory; the pointer stays good.
  std::byte* find(int rank, const std::byte* address, int64_t bytes);
  void read(int rank, const std::byte* from, std::byte* to, int64_t bytes) const;
  void write(int rank, const std::byte* from, std::byte* to, int64_t bytes) const;

 private:
  struct Mapped {
    std::byte* begin = nullptr;
    std::vector<int64_t> used;  // large pages asked for since all were dropped
  };
  std::vector<Process> processes_;
  std::vector<Mapped> mapped_;
  bool reaches_all_ = true;
};

}  // namespace meshard
