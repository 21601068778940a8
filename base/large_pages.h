// Files in memory at places where the system can put large pages under them.
//
//   std::byte* heap = map_at_large_page(file, bytes);   // null: it cannot be
#pragma once

#include <cstddef>
#include <cstdint>

namespace meshard {

constexpr int64_t kLargePage = int64_t{2} << 20;

// Maps the first `bytes` of the file, shared, for reading and writing, at a multiple of kLargePage as in the file. What
// is given back: munmap(begin, bytes).
std::byte* map_at_large_page(int file, int64_t bytes);

}  // namespace meshard
