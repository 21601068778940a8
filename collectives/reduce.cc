// The baseline, AVX2 and AVX-512.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/collectives/reduce.cc"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "meshard/collectives/reduce.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

// The loops below are plain: the compiler makes vector code of them, once for each target.
HWY_BEFORE_NAMESPACE();
namespace meshard::HWY_NAMESPACE {

// Elements that are put together in a local array before they are stored: the array stays in the first-level cache.
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

// Narrow numbers as they lie in memory; base's types convert one value a call, which no loop can vectorize.
struct Brain {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

inline float widen(Brain value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
// As base/buffer.h has it, without branches.
inline float widen(Half value) {
  const float size = std::bit_cast<float>((uint32_t{value.bits} & 0x7fff) << 13) * 0x1p112f;
  const uint32_t special = size >= 65536.0f ? 0x7f800000 : 0;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(size) | special | (uint32_t{value.bits} & 0x8000) << 16);
}
inline double widen(double value) { return value; }
inline float widen(float value) { return value; }
inline int32_t widen(int32_t value) { return value; }

// Rounds to nearest even; a NaN keeps its upper bits and stays a NaN. Signed, and narrowed last, as vector units pack
// words.
inline void narrow(float value, Brain& to) {
  int32_t bits = std::bit_cast<int32_t>(value);
  int32_t rounded =
      static_cast<int32_t>(static_cast<uint32_t>(bits) + 0x7fff + ((static_cast<uint32_t>(bits) >> 16) & 1));
  int32_t chosen = value != value ? bits | 0x400000 : rounded;
  to = {static_cast<uint16_t>(static_cast<int16_t>(chosen >> 16))};
}
inline void narrow(float value, Half& to) {
  const auto wide = std::bit_cast<uint32_t>(value);
  const auto size = static_cast<int32_t>(wide & 0x7fffffff);
  const int32_t usual = (size - (112 << 23) + 0xfff + ((size >> 13) & 1)) >> 13;
  const int32_t small = std::bit_cast<int32_t>(std::bit_cast<float>(size) + 0.5f) - 0x3f000000;
  const int32_t nan = 0x7e00 | ((size >> 13) & 0x3ff);
  int32_t chosen = size < 0x47800000 ? usual : 0x7c00;
  chosen = size < 0x38800000 ? small : chosen;
  chosen = size <= 0x7f800000 ? chosen : nan;
  to = {static_cast<uint16_t>(static_cast<int16_t>(chosen | static_cast<int32_t>(wide >> 16 & 0x8000)))};
}

// Past the caches, without the fence that makes it visible to others.
inline void stream(void* out, const void* in, int64_t bytes) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<uint8_t, 64> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto* to = static_cast<uint8_t*>(out);
  const auto* from = static_cast<const uint8_t*>(in);
  const int64_t head = std::min<int64_t>(bytes, static_cast<int64_t>(-reinterpret_cast<uintptr_t>(to) & 63));
  std::memcpy(to, from, static_cast<size_t>(head));
  int64_t i = head;
  for (; i + 256 <= bytes; i += 256) {
    for (int64_t k = 0; k < 256; k += 4 * lanes) {
      const auto a = hn::LoadU(d, from + i + k), b = hn::LoadU(d, from + i + k + lanes);
      const auto c = hn::LoadU(d, from + i + k + 2 * lanes), e = hn::LoadU(d, from + i + k + 3 * lanes);
      hn::Stream(a, d, to + i + k);
      hn::Stream(b, d, to + i + k + lanes);
      hn::Stream(c, d, to + i + k + 2 * lanes);
      hn::Stream(e, d, to + i + k + 3 * lanes);
    }
  }
  std::memcpy(to + i, from + i, static_cast<size_t>(bytes - i));
}

void stream_block(void* to, const void* from, int64_t bytes) {
  stream(to, from, bytes);
  hwy::FlushStream();
}

// Two or three blocks at once. `out` may be one of them: each element is read before it is written.
template <class Op, class T>
void reduce_few(T* out, std::span<const void* const> in, int64_t elements) {
  const T *a = static_cast<const T*>(in[0]), *b = static_cast<const T*>(in[1]);
  if (in.size() == 2) {
#pragma GCC ivdep
    for (int64_t e = 0; e < elements; ++e) out[e] = Op::apply(a[e], b[e]);
    return;
  }
  const T* c = static_cast<const T*>(in[2]);
#pragma GCC ivdep
  for (int64_t e = 0; e < elements; ++e) out[e] = Op::apply(Op::apply(a[e], b[e]), c[e]);
}

template <class Op, class T>
void reduce_typed(void* out, std::span<const void* const> in, int64_t elements, Store store) {
  using Wide = decltype(widen(T{}));
  if constexpr (std::is_same_v<T, Wide>) {
    if (in.size() <= 3 && store == Store::cached) return reduce_few<Op, T>(static_cast<T*>(out), in, elements);
  }
  alignas(64) Wide tile[kTile];
  alignas(64) T rounded[std::is_same_v<T, Wide> ? 1 : kTile];
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
    const void* result = tile;
    if constexpr (!std::is_same_v<T, Wide>) {
      for (int64_t e = 0; e < n; ++e) narrow(tile[e], rounded[e]);
      result = rounded;
    }
    if (store == Store::streaming) {
      stream(to, result, n * static_cast<int64_t>(sizeof(T)));
    } else {
      std::memcpy(to, result, static_cast<size_t>(n) * sizeof(T));
    }
  }
  if (store == Store::streaming) hwy::FlushStream();
}

template <class Op>
void reduce_with(Dtype dtype, void* out, std::span<const void* const> in, int64_t elements, Store store) {
  switch (dtype) {
    case Dtype::f64:
      return reduce_typed<Op, double>(out, in, elements, store);
    case Dtype::f32:
      return reduce_typed<Op, float>(out, in, elements, store);
    case Dtype::bf16:
      return reduce_typed<Op, Brain>(out, in, elements, store);
    case Dtype::f16:
      return reduce_typed<Op, Half>(out, in, elements, store);
    case Dtype::i32:
      return reduce_typed<Op, int32_t>(out, in, elements, store);
  }
}

void reduce_all(Reduction reduction, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
                Store store) {
  switch (reduction) {
    case Reduction::sum:
      return reduce_with<Sum>(dtype, out, in, elements, store);
    case Reduction::max:
      return reduce_with<Max>(dtype, out, in, elements, store);
    case Reduction::min:
      return reduce_with<Min>(dtype, out, in, elements, store);
  }
}

}  // namespace meshard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace meshard {

HWY_EXPORT(reduce_all);
HWY_EXPORT(stream_block);

void reduce_blocks(Reduction reduction, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
                   Store store) {
  if (elements == 0) return;
  if (in.size() == 1) return copy_block(out, in[0], elements * size_bytes(dtype), store);
  HWY_DYNAMIC_DISPATCH(reduce_all)(reduction, dtype, out, in, elements, store);
}

void copy_block(void* to, const void* from, int64_t bytes, Store store) {
  if (bytes == 0 || to == from) return;
  if (store == Store::streaming) return HWY_DYNAMIC_DISPATCH(stream_block)(to, from, bytes);
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace meshard
#endif  // HWY_ONCE
