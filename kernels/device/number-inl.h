// Numbers in device kernels: how they are stored and what they are computed in, and a Nest as an array that a kernel
// takes by value.
#ifndef MESHARD_KERNELS_DEVICE_NUMBER_INL_H
#define MESHARD_KERNELS_DEVICE_NUMBER_INL_H

#include <math.h>
#include <type_traits>

#include "meshard/base/buffer.h"
#include "meshard/kernels/device/launch-inl.h"
#include "meshard/kernels/kernel.h"
#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::MESHARD_DEVICE {

// The bits of base/buffer.h's conversions, which are not compiled for a GPU.
MESHARD_BODY inline float widen(bfloat16 x) {
  const uint32_t wide = uint32_t{x.bits} << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}
MESHARD_BODY inline void narrow(float value, bfloat16& x) {
  uint32_t wide;
  memcpy(&wide, &value, sizeof wide);
  if ((wide & 0x7FFFFFFF) > 0x7F800000) {
    x.bits = static_cast<uint16_t>(wide >> 16 | 0x40);
  } else {
    x.bits = static_cast<uint16_t>((wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
  }
}
MESHARD_BODY inline float widen(float16 x) {
  const uint32_t shifted = (uint32_t{x.bits} & 0x7FFF) << 13;
  float size;
  memcpy(&size, &shifted, sizeof size);
  size *= 0x1p112f;
  uint32_t wide;
  memcpy(&wide, &size, sizeof wide);
  wide |= (size >= 65536 ? 0x7F800000u : 0u) | (uint32_t{x.bits} & 0x8000) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}
MESHARD_BODY inline void narrow(float value, float16& x) {
  uint32_t wide;
  memcpy(&wide, &value, sizeof wide);
  const uint32_t size = wide & 0x7FFFFFFF;
  uint32_t half = 0x7C00;
  if (size > 0x7F800000) {
    half = 0x7E00 | (size >> 13 & 0x3FF);
  } else if (size < 0x38800000) {
    float sum;
    memcpy(&sum, &size, sizeof sum);
    sum += 0.5f;
    memcpy(&half, &sum, sizeof half);
    half -= 0x3F000000;
  } else if (size < 0x47800000) {
    half = (size - (uint32_t{112} << 23) + 0xFFF + (size >> 13 & 1)) >> 13;
  }
  x.bits = static_cast<uint16_t>((wide >> 16 & 0x8000) | half);
}

template <class T>
constexpr bool kNarrowType = std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

// What T is computed in.
template <class T>
MESHARD_BODY Sum<T> load(T x) {
  if constexpr (kNarrowType<T>) {
    return widen(x);
  } else {
    return static_cast<Sum<T>>(x);
  }
}
template <class T, class A>
MESHARD_BODY T store(A x) {
  if constexpr (kNarrowType<T>) {
    T y;
    narrow(static_cast<float>(x), y);
    return y;
  } else {
    return static_cast<T>(x);
  }
}

// Numbers beside the large ones, of a type known at run time.
struct Side {
  void* data;
  Dtype dtype;

  bool operator==(const Side&) const = default;

  MESHARD_BODY double get(int64_t i) const {
    switch (dtype) {
      case Dtype::f64: return static_cast<const double*>(data)[i];
      case Dtype::f32: return static_cast<const float*>(data)[i];
      case Dtype::bf16: return widen(static_cast<const bfloat16*>(data)[i]);
      case Dtype::f16: return widen(static_cast<const float16*>(data)[i]);
      case Dtype::i32: break;
    }
    return static_cast<const int32_t*>(data)[i];
  }
  MESHARD_BODY void set(int64_t i, double value) const {
    switch (dtype) {
      case Dtype::f64: static_cast<double*>(data)[i] = value; return;
      case Dtype::f32: static_cast<float*>(data)[i] = static_cast<float>(value); return;
      case Dtype::bf16: narrow(static_cast<float>(value), static_cast<bfloat16*>(data)[i]); return;
      case Dtype::f16: narrow(static_cast<float>(value), static_cast<float16*>(data)[i]); return;
      case Dtype::i32: static_cast<int32_t*>(data)[i] = static_cast<int32_t>(value); return;
    }
  }
};

template <class A>
MESHARD_BODY A infinity() {
  return static_cast<A>(HUGE_VAL);
}
template <class A>
MESHARD_BODY A larger(A a, A b) {
  return a < b ? b : a;  // a NaN in b is passed over, as by std::max
}

// The points of a Nest, by number: how far point i is into each of N blocks.
template <size_t N>
struct Points {
  static constexpr int kMost = 12;
  int64_t count = 1;
  int loops = 0;
  int64_t size[kMost] = {};
  int64_t step[kMost][N] = {};

  Points() = default;
  explicit Points(const Nest<N>& nest) : count(nest.points()) {
    MESHARD_CHECK(nest.loops().size() <= kMost, "a kernel has too many loops");
    for (const Loop<N>& loop : nest.loops()) {
      size[loops] = loop.size;
      for (size_t b = 0; b < N; ++b) step[loops][b] = loop.step[b];
      ++loops;
    }
  }

  struct At {
    int64_t offset[N];
    MESHARD_BODY int64_t operator[](size_t b) const { return offset[b]; }
  };
  // 32 bits wherever they do, and nothing is divided by the outermost size: a GPU has no instruction for a division.
  MESHARD_BODY At at(int64_t i) const {
    At out = {};
    if (count <= INT32_MAX) {
      split(static_cast<uint32_t>(i), out);
    } else {
      split(static_cast<uint64_t>(i), out);
    }
    return out;
  }

 private:
  template <class U>
  MESHARD_BODY void split(U i, At& out) const {
    for (int l = loops; l-- > 1;) {
      const U rest = i / static_cast<U>(size[l]);
      add(l, i - rest * static_cast<U>(size[l]), out);
      i = rest;
    }
    if (loops > 0) add(0, i, out);
  }
  MESHARD_BODY void add(int l, int64_t index, At& out) const {
    for (size_t b = 0; b < N; ++b) out.offset[b] += index * step[l][b];
  }
};

template <size_t N>
Points<N> points_of(const KernelSpec& spec, const std::vector<int>& factors,
                    const std::array<const KernelOperand*, N>& blocks) {
  return Points<N>(Nest<N>(spec, factors, blocks));
}

inline Side side(void* const data, Dtype dtype) { return {data, dtype}; }

inline int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

constexpr int kRowThreads = 128;  // of a team that has one row

// In how many pieces `terms` terms of every result are best put together, where the results make `teams` teams, of which a
// thread has each `strips`th term: as many as keep a whole GPU busy, none of them short.
inline int64_t pieces_of(int64_t terms, int64_t teams, int64_t strips) {
  constexpr int64_t kTeams = 1024, kTerms = 16;  // of a GPU, a few for each processor; of a thread, that are worth a piece
  const int64_t wanted = (kTeams + teams - 1) / std::max<int64_t>(teams, 1), most = terms / (strips * kTerms);
  return std::max<int64_t>(std::min(wanted, most), 1);
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_NUMBER_INL_H
