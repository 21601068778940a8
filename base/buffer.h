// Buffer: owned bytes on the host, aligned to 64. View: a pointer with dtype and shape, row-major and contiguous.
#pragma once

#include <cstddef>
#include <cstdint>

#include "meshard/base/shape.h"

namespace meshard {

inline constexpr int64_t kAlignment = 64;  // bytes; of buffers and of every value in an arena

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t bytes);  // zeroed lazily by the system; throws std::bad_alloc
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

struct View {
  void* data = nullptr;
  Dtype dtype = Dtype::f32;
  Shape shape;

  template <class T>
  T* as() const { return static_cast<T*>(data); }
  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return elements() * size_bytes(dtype); }
};

// bf16 as it is stored: the upper half of an f32, rounded to nearest even.
struct bfloat16 {
  uint16_t bits = 0;
  bfloat16() = default;
  explicit bfloat16(float value);
  explicit operator float() const;
};

// f16 as it is stored: IEEE 754's half, 2^-24 to 65,504, rounded to nearest even. What is larger becomes infinity from
// 65,520 on; what is smaller than 2^-14 loses digits.
struct float16 {
  uint16_t bits = 0;
  float16() = default;
  explicit float16(float value);
  explicit operator float() const;
};

}  // namespace meshard
