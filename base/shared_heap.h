// SharedHeap: memory of this process that other processes of the host can map and then read and write as their own. It
// is one file without a name, mapped once, so that a place in it is told by its distance from the begin. Once it is
// open, every large Buffer lies in it; the ranks of a host open it before they allocate what they will exchange.
//
//   if (SharedHeap::open()) tell_others(SharedHeap::find()->file());
//   Buffer x(64 << 20);                       // SharedHeap::find()->has(x.data(), x.bytes())
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

namespace meshard {

class SharedHeap {
 public:
  // Opens the heap of this process, once and for good. False where the system has no such memory.
  static bool open();
  static SharedHeap* find();  // null: not open

  int file() const { return file_; }
  std::byte* begin() const { return begin_; }
  int64_t bytes() const { return bytes_; }  // of addresses; memory is used where it was touched
  bool has(const void* data, int64_t bytes) const;

  std::byte* allocate(int64_t bytes);  // zeros, on pages of their own; null: none left
  void release(std::byte* data, int64_t bytes);

  // Puts what lies at `data` on large pages where the system has them, untouched parts of these pages too: other
  // processes then map it in few steps. Each page is tried once.
  void use_large_pages(const void* data, int64_t bytes);

 private:
  SharedHeap(int file, std::byte* begin, int64_t bytes);

  int file_;
  std::byte* begin_;
  int64_t bytes_;
  std::mutex mutex_;
  std::map<int64_t, int64_t> free_;  // begin -> bytes, both in whole pages; no two touch
  std::vector<bool> tried_;          // of each large page
};

}  // namespace meshard
