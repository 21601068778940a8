#include "meshard/base/shared_heap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>

#include "meshard/base/large_pages.h"

namespace meshard {
namespace {

constexpr int64_t kPage = 4096;
constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1; an older one answers that it does not know it

std::atomic<SharedHeap*> the_heap{nullptr};

int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

bool SharedHeap::open() {
  static const bool opened = [] {
    // No more can be used than the machine has.
    const int64_t bytes =
        round_up(static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE)), kLargePage);
    const int file = memfd_create("meshard", MFD_CLOEXEC);
    if (file < 0) return false;
    if (sysconf(_SC_PAGESIZE) != kPage || ftruncate(file, bytes) != 0) {
      close(file);
      return false;
    }
    std::byte* begin = map_at_large_page(file, bytes);
    if (begin == nullptr) {
      close(file);
      return false;
    }
    // Lives as long as the process: so may buffers.
    the_heap = new SharedHeap(file, begin, bytes);
    return true;
  }();
  return opened;
}

SharedHeap* SharedHeap::find() { return the_heap.load(std::memory_order_acquire); }

SharedHeap::SharedHeap(int file, std::byte* begin, int64_t bytes)
    : file_(file), begin_(begin), bytes_(bytes), tried_(static_cast<size_t>(bytes / kLargePage)) {
  free_[0] = bytes;
}

bool SharedHeap::has(const void* data, int64_t bytes) const {
  const auto* at = static_cast<const std::byte*>(data);
  return at >= begin_ && bytes <= bytes_ && at - begin_ <= bytes_ - bytes;
}

std::byte* SharedHeap::allocate(int64_t bytes) {
  if (bytes > bytes_) return nullptr;
  bytes = round_up(bytes, kPage);
  const std::lock_guard lock(mutex_);
  const auto place = std::find_if(free_.begin(), free_.end(), [&](const auto& part) { return part.second >= bytes; });
  if (place == free_.end()) return nullptr;
  const auto [begin, size] = *place;
  free_.erase(place);
  if (size > bytes) free_[begin + bytes] = size - bytes;
  return begin_ + begin;
}

void SharedHeap::release(std::byte* data, int64_t bytes) {
  bytes = round_up(bytes, kPage);
  int64_t begin = data - begin_;
  // Gives the memory back; what is allocated there next is zeros again.
  if (fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, bytes) != 0) {
    std::memset(data, 0, static_cast<size_t>(bytes));
  }
  const std::lock_guard lock(mutex_);
  std::fill(tried_.begin() + begin / kLargePage, tried_.begin() + round_up(begin + bytes, kLargePage) / kLargePage, false);
  auto next = free_.upper_bound(begin);
  if (next != free_.end() && next->first == begin + bytes) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == begin) {
      before->second += bytes;
      return;
    }
  }
  free_[begin] = bytes;
}

void SharedHeap::use_large_pages(const void* data, int64_t bytes) {
  if (bytes == 0 || !has(data, bytes)) return;
  const int64_t begin = static_cast<const std::byte*>(data) - begin_;
  const std::lock_guard lock(mutex_);
  const int64_t end = round_up(begin + bytes, kLargePage) / kLargePage;
  for (int64_t page = begin / kLargePage; page < end; ++page) {
    int64_t last = page;
    for (; last < end && !tried_[static_cast<size_t>(last)]; ++last) {
      tried_[static_cast<size_t>(last)] = true;
      // What no page stands in yet is not put together: reading makes one.
      (void)*const_cast<const volatile std::byte*>(begin_ + last * kLargePage);
    }
    // Where it cannot be done, small pages serve as well, more slowly. One call for all of them: each call waits for every core of the
    // machine, which costs more than the pages do where cores are busy.
    if (last > page) (void)madvise(begin_ + page * kLargePage, static_cast<size_t>((last - page) * kLargePage), kCollapse);
    page = std::max(page, last - 1);
  }
}

}  // namespace meshard
