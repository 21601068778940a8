#include "meshard/base/shared_heap.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "meshard/base/buffer.h"

namespace meshard {

TEST_CASE("large buffers lie in an open heap, and others see them at the same distance from its begin") {
  const Buffer before(1 << 20);
  REQUIRE(SharedHeap::open());
  CHECK(SharedHeap::open());
  SharedHeap& heap = *SharedHeap::find();
  CHECK_FALSE(heap.has(before.data(), before.bytes()));
  Buffer large(5 << 20), small(1000);
  CHECK(heap.has(large.data(), large.bytes()));
  CHECK_FALSE(heap.has(small.data(), small.bytes()));
  CHECK_FALSE(heap.has(heap.begin() - 1, 1));
  CHECK_FALSE(heap.has(heap.begin(), heap.bytes() + 1));

  void* theirs = mmap(nullptr, static_cast<size_t>(heap.bytes()), PROT_READ | PROT_WRITE, MAP_SHARED, heap.file(), 0);
  REQUIRE(theirs != MAP_FAILED);
  std::byte* seen = static_cast<std::byte*>(theirs) + (large.data() - heap.begin());
  large.data()[4321] = std::byte{7};
  CHECK(seen[4321] == std::byte{7});
  heap.use_large_pages(large.data() + 100, 3 << 20);
  CHECK(seen[4321] == std::byte{7});
  seen[4 << 20] = std::byte{9};
  CHECK(large.data()[4 << 20] == std::byte{9});
  munmap(theirs, static_cast<size_t>(heap.bytes()));
}

TEST_CASE("what is released is found again, as zeros, and neighbours stay as they are") {
  REQUIRE(SharedHeap::open());
  SharedHeap& heap = *SharedHeap::find();
  CHECK(heap.allocate(heap.bytes() + 1) == nullptr);
  std::mt19937 random(3);
  std::vector<std::pair<std::byte*, int64_t>> held;
  std::byte* end = heap.begin();
  const auto is_all = [](const std::byte* data, int64_t bytes, std::byte value) {
    return std::all_of(data, data + bytes, [&](std::byte b) { return b == value; });
  };
  for (int step = 0; step < 300; ++step) {
    if (held.size() < 8 && random() % 2 == 0) {
      const auto bytes = static_cast<int64_t>(1 + random() % 300000);
      std::byte* data = heap.allocate(bytes);
      REQUIRE(data != nullptr);
      REQUIRE(heap.has(data, bytes));
      CHECK(is_all(data, bytes, std::byte{0}));
      if (random() % 3 == 0) heap.use_large_pages(data, bytes);
      held.push_back({data, bytes});
      std::memset(data, static_cast<int>(bytes % 251 + 1), static_cast<size_t>(bytes));
      end = std::max(end, data + bytes);
    } else if (!held.empty()) {
      const size_t i = random() % held.size();
      const auto [data, bytes] = held[i];
      CHECK(is_all(data, bytes, static_cast<std::byte>(bytes % 251 + 1)));
      heap.release(data, bytes);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  for (const auto& [data, bytes] : held) heap.release(data, bytes);
  CHECK(end - heap.begin() < 16 << 20);  // holes were used again
}

}  // namespace meshard
