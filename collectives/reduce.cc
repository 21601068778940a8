#include "meshard/collectives/reduce.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace meshard {
namespace {

// Elements that are put together in a local array before they are stored: the array stays in the first-level cache, and
// since it overlaps nothing the loops below become vector code even where `out` is one of the inputs.
constexpr int64_t kTile = 1024;

struct Sum {
  template <class T>
  static T apply(T a, T b) {
    return a + b;
  }
  static int32_t apply(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    return a < b || b != b ? b : a;
  }
};
struct Min {
  template <class T>
  static T apply(T a, T b) {
    return b < a || b != b ? b : a;
  }
};

// bf16 bits as they lie in memory; base's bfloat16 converts one value a call, which no loop can vectorize.
struct Half {
  uint16_t bits;
};

float widen(Half value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
double widen(double value) { return value; }
float widen(float value) { return value; }
int32_t widen(int32_t value) { return value; }

// Rounds to nearest even; a NaN keeps its upper bits and stays a NaN. Signed, and narrowed last, as vector units pack
// words.
Half round_half(float value) {
  int32_t bits = std::bit_cast<int32_t>(value);
  int32_t rounded =
      static_cast<int32_t>(static_cast<uint32_t>(bits) + 0x7fff + ((static_cast<uint32_t>(bits) >> 16) & 1));
  int32_t chosen = value != value ? bits | 0x400000 : rounded;
  return {static_cast<uint16_t>(static_cast<int16_t>(chosen >> 16))};
}

template <class Op, class T>
void reduce_typed(void* out, std::span<const void* const> in, int64_t elements) {
  using Wide = decltype(widen(T{}));
  Wide tile[kTile];
  for (int64_t begin = 0; begin < elements; begin += kTile) {
    int64_t n = std::min(kTile, elements - begin);
    const T* first = static_cast<const T*>(in[0]) + begin;
    const T* second = static_cast<const T*>(in[1]) + begin;
    for (int64_t e = 0; e < n; ++e) tile[e] = Op::apply(widen(first[e]), widen(second[e]));
    for (size_t m = 2; m < in.size(); ++m) {
      const T* next = static_cast<const T*>(in[m]) + begin;
      for (int64_t e = 0; e < n; ++e) tile[e] = Op::apply(tile[e], widen(next[e]));
    }
    T* to = static_cast<T*>(out) + begin;
    if constexpr (std::is_same_v<T, Half>) {
      for (int64_t e = 0; e < n; ++e) to[e] = round_half(tile[e]);
    } else {
      std::memcpy(to, tile, static_cast<size_t>(n) * sizeof(T));
    }
  }
}

template <class Op>
void reduce_with(Dtype dtype, void* out, std::span<const void* const> in, int64_t elements) {
  switch (dtype) {
    case Dtype::f64:
      return reduce_typed<Op, double>(out, in, elements);
    case Dtype::f32:
      return reduce_typed<Op, float>(out, in, elements);
    case Dtype::bf16:
      return reduce_typed<Op, Half>(out, in, elements);
    case Dtype::i32:
      return reduce_typed<Op, int32_t>(out, in, elements);
  }
}

}  // namespace

void reduce_blocks(Reduction reduction, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements) {
  if (elements == 0) return;
  if (in.size() == 1) {
    if (out != in[0]) std::memcpy(out, in[0], static_cast<size_t>(elements * size_bytes(dtype)));
    return;
  }
  switch (reduction) {
    case Reduction::sum:
      return reduce_with<Sum>(dtype, out, in, elements);
    case Reduction::max:
      return reduce_with<Max>(dtype, out, in, elements);
    case Reduction::min:
      return reduce_with<Min>(dtype, out, in, elements);
  }
}

}  // namespace meshard
