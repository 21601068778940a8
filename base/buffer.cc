#include "meshard/base/buffer.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "meshard/base/error.h"
#include "meshard/base/shared_heap.h"

namespace meshard {
namespace {

// From here on pages come from the system, which zeroes each when it is first touched: by the thread that uses it, and
// not at all if nobody does.
constexpr int64_t kMappedBytes = int64_t{1} << 18;

}  // namespace

Buffer::Buffer(int64_t bytes) : bytes_(bytes) {
  MESHARD_CHECK(bytes >= 0, "a buffer of a negative size was asked for");
  if (bytes == 0) return;
  void* memory = nullptr;
  SharedHeap* heap = bytes >= kMappedBytes ? SharedHeap::find() : nullptr;
  if (heap != nullptr) memory = heap->allocate(bytes);
  if (memory != nullptr) {
    data_ = static_cast<std::byte*>(memory);
    return;
  }
  if (bytes >= kMappedBytes) {
    memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
  } else {
    const auto rounded = static_cast<size_t>((bytes + kAlignment - 1) / kAlignment * kAlignment);
    memory = std::aligned_alloc(kAlignment, rounded);
    if (memory == nullptr) throw std::bad_alloc();
    std::memset(memory, 0, rounded);
  }
  data_ = static_cast<std::byte*>(memory);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer::~Buffer() {
  SharedHeap* heap = bytes_ >= kMappedBytes ? SharedHeap::find() : nullptr;
  if (heap != nullptr && heap->has(data_, bytes_)) {
    heap->release(data_, bytes_);
  } else if (bytes_ >= kMappedBytes) {
    munmap(data_, static_cast<size_t>(bytes_));
  } else {
    std::free(data_);
  }
}

bfloat16::bfloat16(float value) {
  const auto wide = std::bit_cast<uint32_t>(value);
  if ((wide & 0x7FFFFFFF) > 0x7F800000) {
    bits = static_cast<uint16_t>(wide >> 16 | 0x40);  // a NaN stays one: rounding could carry it to infinity
  } else {
    bits = static_cast<uint16_t>((wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
  }
}

bfloat16::operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }

float16::float16(float value) {
  const auto wide = std::bit_cast<uint32_t>(value);
  const uint32_t size = wide & 0x7FFFFFFF;
  uint32_t half = 0x7C00;  // infinity
  if (size > 0x7F800000) {
    half = 0x7E00 | (size >> 13 & 0x3FF);  // a NaN stays one
  } else if (size < 0x38800000) {
    // Below 2^-14: half a unit more has its last digit where that of a small half is, so that the sum rounds it.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(size) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  } else if (size < 0x47800000) {
    half = (size - (uint32_t{112} << 23) + 0xFFF + (size >> 13 & 1)) >> 13;  // carries to infinity from 65,520 on
  }
  bits = static_cast<uint16_t>(wide >> 16 & 0x8000) | static_cast<uint16_t>(half);
}

float16::operator float() const {
  // With the exponent where f32 has it, the number is 2^112 times too small, whether it is a small one or not.
  const float size = std::bit_cast<float>((uint32_t{bits} & 0x7FFF) << 13) * 0x1p112f;
  const uint32_t special = size >= 65536 ? 0x7F800000 : 0;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | special | (uint32_t{bits} & 0x8000) << 16);
}

}  // namespace meshard
