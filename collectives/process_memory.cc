#include "meshard/collectives/process_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "meshard/base/error.h"
#include "meshard/base/large_pages.h"

namespace meshard {
namespace {

// So many large pages of a rank stay mapped. Dropping and finding them again costs next to nothing.
constexpr size_t kMostMapped = 8;

using Copy = ssize_t (*)(pid_t, const iovec*, unsigned long, const iovec*, unsigned long, unsigned long);

void move_all(Copy copy, int64_t process, std::byte* here, std::byte* there, int64_t bytes) {
  while (bytes > 0) {
    const iovec ours{here, static_cast<size_t>(bytes)}, theirs{there, static_cast<size_t>(bytes)};
    const ssize_t moved = copy(static_cast<pid_t>(process), &ours, 1, &theirs, 1, 0);
    MESHARD_CHECK(moved > 0, fmt::format("cannot reach {} bytes of process {}: {}", bytes, process, std::strerror(errno)));
    here += moved;
    there += moved;
    bytes -= moved;
  }
}

// Reads the proof and writes it back.
bool reaches(const ProcessMemory::Process& process) {
  uint64_t value = 0;
  const iovec here{&value, sizeof value};
  const iovec there{const_cast<uint64_t*>(process.proof), sizeof value};
  const auto id = static_cast<pid_t>(process.id);
  return process_vm_readv(id, &here, 1, &there, 1, 0) == sizeof value && value == process.value &&
         process_vm_writev(id, &here, 1, &there, 1, 0) == sizeof value;
}

std::byte* map_heap(const ProcessMemory::Process& process) {
  if (process.heap == nullptr) return nullptr;
  const std::string name = fmt::format("/proc/{}/fd/{}", process.id, process.heap_file);
  const int file = open(name.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  std::byte* begin = map_at_large_page(file, process.heap_bytes);
  close(file);
  if (begin == nullptr) return nullptr;
  // A process of the same number elsewhere would have another heap.
  uint64_t value = 0;
  std::memcpy(&value, begin, sizeof value);
  if (value == process.value) return begin;
  munmap(begin, static_cast<size_t>(process.heap_bytes));
  return nullptr;
}

}  // namespace

ProcessMemory::ProcessMemory(std::vector<Process> processes, int self)
    : processes_(std::move(processes)), mapped_(processes_.size()) {
  for (size_t r = 0; r < processes_.size(); ++r) {
    if (static_cast<int>(r) == self) continue;
    reaches_all_ = reaches_all_ && reaches(processes_[r]);
    mapped_[r].begin = map_heap(processes_[r]);
    mapped_[r].used.reserve(kMostMapped);
  }
}

ProcessMemory::~ProcessMemory() {
  for (size_t r = 0; r < mapped_.size(); ++r) {
    if (mapped_[r].begin != nullptr) munmap(mapped_[r].begin, static_cast<size_t>(processes_[r].heap_bytes));
  }
}

std::byte* ProcessMemory::find(int rank, const std::byte* address, int64_t bytes) {
  Mapped& mapped = mapped_[static_cast<size_t>(rank)];
  const Process& process = processes_[static_cast<size_t>(rank)];
  if (mapped.begin == nullptr || address < process.heap || bytes > process.heap_bytes ||
      address - process.heap > process.heap_bytes - bytes) {
    return nullptr;
  }
  const int64_t offset = address - process.heap;
  for (int64_t page = offset / kLargePage; page * kLargePage < offset + bytes; ++page) {
    if (std::find(mapped.used.begin(), mapped.used.end(), page) != mapped.used.end()) continue;
    if (mapped.used.size() == kMostMapped) {
      madvise(mapped.begin, static_cast<size_t>(process.heap_bytes), MADV_DONTNEED);
      mapped.used.clear();
    }
    mapped.used.push_back(page);
  }
  return mapped.begin + offset;
}

void ProcessMemory::read(int rank, const std::byte* from, std::byte* to, int64_t bytes) const {
  move_all(process_vm_readv, processes_[static_cast<size_t>(rank)].id, to, const_cast<std::byte*>(from), bytes);
}

void ProcessMemory::write(int rank, const std::byte* from, std::byte* to, int64_t bytes) const {
  move_all(process_vm_writev, processes_[static_cast<size_t>(rank)].id, const_cast<std::byte*>(from), to, bytes);
}

}  // namespace meshard
