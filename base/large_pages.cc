#include "meshard/base/large_pages.h"

#include <sys/mman.h>

namespace meshard {

std::byte* map_at_large_page(int file, int64_t bytes) {
  const auto reserved = static_cast<size_t>(bytes + kLargePage);
  void* room = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return nullptr;
  const auto from = reinterpret_cast<uintptr_t>(room);
  const uintptr_t at = (from + kLargePage - 1) / kLargePage * kLargePage, end = at + static_cast<uintptr_t>(bytes);
  void* begin = mmap(reinterpret_cast<void*>(at), static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_FIXED | MAP_NORESERVE, file, 0);
  if (begin == MAP_FAILED) {
    munmap(room, reserved);
    return nullptr;
  }
  if (at > from) munmap(room, at - from);
  if (from + reserved > end) munmap(reinterpret_cast<void*>(end), from + reserved - end);
  return static_cast<std::byte*>(begin);
}

}  // namespace meshard
