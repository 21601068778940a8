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

// Every f16, and what lies at, below and above the middle between it and the next.
TEST_CASE("f16 rounds to nearest even, small numbers too") {
  const auto of = [](uint32_t bits) {
    float16 x;
    x.bits = static_cast<uint16_t>(bits);
    return static_cast<float>(x);
  };
  int wrong = 0;
  for (uint32_t bits = 0; bits < 0x7C00; ++bits) {
    // The value by its definition: 10 digits, exponents from -14, below them steps of 2^-24.
    const double exact = bits < 0x400 ? bits * 0x1p-24 : std::ldexp(1024.0 + (bits & 0x3FF), static_cast<int>(bits >> 10) - 25);
    wrong += static_cast<double>(of(bits)) != exact || static_cast<double>(of(bits | 0x8000)) != -exact;
    wrong += float16(of(bits)).bits != bits || float16(of(bits | 0x8000)).bits != (bits | 0x8000);
    const double next = bits == 0x7BFF ? 65536 : static_cast<double>(of(bits + 1));
    const float middle = static_cast<float>((exact + next) / 2);
    wrong += float16(middle).bits != bits + (bits & 1);
    wrong += float16(std::nextafter(middle, 0.0f)).bits != bits;
    wrong += float16(-std::nextafter(middle, 1e6f)).bits != (0x8000 | (bits + 1));
  }
  CHECK(wrong == 0);
  const float infinite = std::numeric_limits<float>::infinity();
  CHECK(of(0x7C00) == infinite);
  CHECK(of(0xFC00) == -infinite);
  CHECK(float16(65519.0f).bits == 0x7BFF);
  CHECK(float16(65520.0f).bits == 0x7C00);
  CHECK(float16(std::numeric_limits<float>::max()).bits == 0x7C00);
  CHECK(float16(-infinite).bits == 0xFC00);
  CHECK(float16(0x1p-25f).bits == 0);  // a tie, down to even
  CHECK(std::signbit(static_cast<float>(float16(-1e-30f))));
  for (uint32_t bits = 0x7C01; bits < 0x8000; ++bits) {
    wrong += !std::isnan(of(bits)) || !std::isnan(static_cast<float>(float16(of(bits))));
  }
  CHECK(wrong == 0);
}

}  // namespace meshard
