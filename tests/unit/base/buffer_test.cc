#include "meshard/base/buffer.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include "meshard/base/error.h"

namespace meshard {

TEST_CASE("buffers are aligned and zero, small and large") {
  for (int64_t bytes : {int64_t{1}, int64_t{63}, int64_t{64}, int64_t{100000}, (int64_t{1} << 18) - 1, int64_t{1} << 18,
                        int64_t{3000001}}) {
    Buffer buffer(bytes);
    CHECK(buffer.bytes() == bytes);
    CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment == 0);
    CHECK(std::all_of(buffer.data(), buffer.data() + bytes, [](std::byte b) { return b == std::byte{0}; }));
    std::fill_n(buffer.data(), bytes, std::byte{0xFF});  // so that reused memory shows
  }
  CHECK(Buffer(0).data() == nullptr);
  CHECK_THROWS_AS(Buffer(-1), InternalError);
  CHECK_THROWS_AS(Buffer(int64_t{1} << 60), std::bad_alloc);
}

TEST_CASE("a large buffer costs nothing until it is touched") {
  Buffer buffer(int64_t{1} << 30);
  buffer.data()[(int64_t{1} << 30) - 1] = std::byte{7};
  CHECK(buffer.data()[0] == std::byte{0});
}

TEST_CASE("buffers move") {
  Buffer a(100);
  std::byte* data = a.data();
  Buffer b = std::move(a);
  CHECK(b.data() == data);
  CHECK(a.bytes() == 0);
  Buffer c(1 << 20);
  c = std::move(b);
  CHECK(c.data() == data);
  CHECK(c.bytes() == 100);
}

TEST_CASE("a view counts elements and bytes") {
  float values[6] = {0, 1, 2, 3, 4, 5};
  const View view{values, Dtype::f32, {2, 3}};
  CHECK(view.elements() == 6);
  CHECK(view.bytes() == 24);
  CHECK(view.as<float>()[4] == 4);
}

TEST_CASE("bf16 rounds to nearest even") {
  const auto back = [](float x) { return static_cast<float>(bfloat16(x)); };
  CHECK(back(1.0f) == 1.0f);
  CHECK(back(1.0f + 1.0f / 256) == 1.0f);               // a tie, down to even
  CHECK(back(1.0f + 3.0f / 256) == 1.0f + 4.0f / 256);  // a tie, up to even
  CHECK(back(1.0f + 1.01f / 256) == 1.0f + 2.0f / 256);
  CHECK(back(-3.0f) == -3.0f);
  CHECK(std::signbit(back(-0.0f)));
  CHECK(back(std::numeric_limits<float>::max()) == std::numeric_limits<float>::infinity());
  CHECK(back(-std::numeric_limits<float>::infinity()) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(back(std::numeric_limits<float>::quiet_NaN())));
  CHECK(bfloat16(1.0f).bits == 0x3F80);
}

}  // namespace meshard
