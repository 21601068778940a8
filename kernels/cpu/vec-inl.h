// Vector functions shared by the CPU kernels, compiled once for each instruction set (Highway's scheme: this file is
// included again for each of them, so there is no #pragma once). Remainders go through a padded buffer and the same
// instructions, so an element's value does not depend on where it stands.
#if defined(MESHARD_KERNELS_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MESHARD_KERNELS_CPU_VEC_INL_H_
#undef MESHARD_KERNELS_CPU_VEC_INL_H_
#else
#define MESHARD_KERNELS_CPU_VEC_INL_H_
#endif

#include <cstdint>
#include <cstring>
#include <limits>

#include "hwy/highway.h"
#include "meshard/base/buffer.h"

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr int64_t kMaxLanes = 64;

HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(D())); }
HWY_INLINE V set(float x) { return hn::Set(D(), x); }

// What is kept as f32, bf16 or f16 is computed in f32.
HWY_INLINE V load(const float* x) { return hn::LoadU(D(), x); }
HWY_INLINE V load(const bfloat16* x) {
  const hn::RebindToUnsigned<D> bits;
  const hn::Rebind<uint16_t, D> half;
  const auto wide = hn::PromoteTo(bits, hn::LoadU(half, reinterpret_cast<const uint16_t*>(x)));
  return hn::BitCast(D(), hn::ShiftLeft<16>(wide));
}
HWY_INLINE void store(V v, float* y) { hn::StoreU(v, D(), y); }
// To nearest even; a NaN stays one.
HWY_INLINE void store(V v, bfloat16* y) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> half;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFF)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  const auto chosen = hn::ShiftRight<16>(hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), quiet, rounded));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(hn::RebindToSigned<D>(), chosen)), half, reinterpret_cast<uint16_t*>(y));
}

// f16 by the processor's conversions where all of a target's machines have them, else by base/buffer.h's arithmetic.
#if HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
HWY_INLINE V load(const float16* x) {
  const hn::Rebind<hwy::float16_t, D> half;
  return hn::PromoteTo(D(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(x)));
}
HWY_INLINE void store(V v, float16* y) {
  const hn::Rebind<hwy::float16_t, D> half;
  hn::StoreU(hn::DemoteTo(half, v), half, reinterpret_cast<hwy::float16_t*>(y));
}
#else
HWY_INLINE V load(const float16* x) {
  const hn::RebindToUnsigned<D> du;
  const hn::Rebind<uint16_t, D> half;
  const auto bits = hn::PromoteTo(du, hn::LoadU(half, reinterpret_cast<const uint16_t*>(x)));
  const V size = hn::Mul(hn::BitCast(D(), hn::ShiftLeft<13>(hn::And(bits, hn::Set(du, 0x7FFF)))), set(0x1p112f));
  const auto special = hn::IfThenElseZero(hn::RebindMask(du, hn::Ge(size, set(65536))), hn::Set(du, 0x7F800000));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000)));
  return hn::BitCast(D(), hn::Or(hn::BitCast(du, size), hn::Or(special, sign)));
}
HWY_INLINE void store(V v, float16* y) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint16_t, D> half;
  const auto wide = hn::BitCast(du, v);
  const auto size = hn::And(wide, hn::Set(du, 0x7FFFFFFF));
  const auto odd = hn::And(hn::ShiftRight<13>(size), hn::Set(du, 1));
  const auto usual = hn::ShiftRight<13>(hn::Add(hn::Sub(size, hn::Set(du, 112u << 23)), hn::Add(odd, hn::Set(du, 0xFFF))));
  const auto small = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(D(), size), set(0.5f))), hn::Set(du, 0x3F000000));
  const auto nan = hn::Or(hn::And(hn::ShiftRight<13>(size), hn::Set(du, 0x3FF)), hn::Set(du, 0x7E00));
  // Signed comparisons: no number here has the upper bit.
  const auto below = [&](uint32_t limit) HWY_ATTR {
    return hn::RebindMask(du, hn::Lt(hn::BitCast(di, size), hn::Set(di, static_cast<int32_t>(limit))));
  };
  auto chosen = hn::IfThenElse(below(0x47800000), usual, hn::Set(du, 0x7C00));
  chosen = hn::IfThenElse(below(0x38800000), small, chosen);
  chosen = hn::IfThenElse(below(0x7F800001), chosen, nan);
  chosen = hn::Or(chosen, hn::And(hn::ShiftRight<16>(wide), hn::Set(du, 0x8000)));
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(di, chosen)), half, reinterpret_cast<uint16_t*>(y));
}
#endif

// Fewer than a vector's elements, the others `pad`.
template <class T>
HWY_INLINE V load_some(const T* x, int64_t n, float pad) {
  HWY_ALIGN T buffer[kMaxLanes];
  store(set(pad), buffer);
  std::memcpy(buffer, x, static_cast<size_t>(n) * sizeof(T));
  return load(buffer);
}
template <class T>
HWY_INLINE void store_some(V v, T* y, int64_t n) {
  HWY_ALIGN T buffer[kMaxLanes];
  store(v, buffer);
  std::memcpy(y, buffer, static_cast<size_t>(n) * sizeof(T));
}

// y[i] = f(x[i]); y may be x.
template <class X, class Y, class F>
HWY_INLINE void map(const X* x, Y* y, int64_t n, const F& f) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= n; i += step) store(f(load(x + i)), y + i);
  if (i < n) store_some(f(load_some(x + i, n - i, 1)), y + i, n - i);
}

// y[i] = f(a[i], b[i]); y may be a or b.
template <class A, class B, class Y, class F>
HWY_INLINE void map(const A* a, const B* b, Y* y, int64_t n, const F& f) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= n; i += step) store(f(load(a + i), load(b + i)), y + i);
  if (i < n) store_some(f(load_some(a + i, n - i, 1), load_some(b + i, n - i, 1)), y + i, n - i);
}

// y[i] = f(a[i], b[i], c[i]).
template <class A, class B, class C, class Y, class F>
HWY_INLINE void map(const A* a, const B* b, const C* c, Y* y, int64_t n, const F& f) {
  const int64_t step = lanes();
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    store(f(load(a + i), load(b + i), load(c + i)), y + i);
  }
  if (i < n) {
    const int64_t r = n - i;
    store_some(f(load_some(a + i, r, 1), load_some(b + i, r, 1), load_some(c + i, r, 1)), y + i, r);
  }
}

// f(a[i], b[i], c[i], d[i]) gives y[i] and z[i]; y may be a, and z b.
template <class X, class C, class F>
HWY_INLINE void map(const X* a, const X* b, const C* c, const C* d, X* y, X* z, int64_t n,
                    const F& f) {
  const int64_t step = lanes();
  int64_t i = 0;
  V first, second;
  for (; i + step <= n; i += step) {
    f(load(a + i), load(b + i), load(c + i), load(d + i), &first, &second);
    store(first, y + i);
    store(second, z + i);
  }
  if (i < n) {
    const int64_t r = n - i;
    f(load_some(a + i, r, 1), load_some(b + i, r, 1), load_some(c + i, r, 1), load_some(d + i, r, 1), &first, &second);
    store_some(first, y + i, r);
    store_some(second, z + i, r);
  }
}

// The lanes of f's running values after all of x, four chains at a time; `pad` must be neutral: f(s, pad) == s.
template <class T, class F>
HWY_INLINE V fold(const T* x, int64_t n, V start, float pad, const F& f, const F& join) {
  const int64_t step = lanes();
  V s0 = start, s1 = start, s2 = start, s3 = start;
  int64_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    s0 = f(s0, load(x + i));
    s1 = f(s1, load(x + i + step));
    s2 = f(s2, load(x + i + 2 * step));
    s3 = f(s3, load(x + i + 3 * step));
  }
  for (; i + step <= n; i += step) s0 = f(s0, load(x + i));
  if (i < n) s0 = f(s0, load_some(x + i, n - i, pad));
  return join(join(s0, s1), join(s2, s3));
}

HWY_INLINE float add_lanes(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }

// The sum of f(x[i]), or of f(x[i], y[i]), where f of the pads is 0.
template <class T, class F>
HWY_INLINE float sum_of(const T* x, int64_t n, float pad, const F& f) {
  const int64_t step = lanes();
  V s0 = set(0), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    s0 = hn::Add(s0, f(load(x + i)));
    s1 = hn::Add(s1, f(load(x + i + step)));
    s2 = hn::Add(s2, f(load(x + i + 2 * step)));
    s3 = hn::Add(s3, f(load(x + i + 3 * step)));
  }
  for (; i + step <= n; i += step) s0 = hn::Add(s0, f(load(x + i)));
  if (i < n) s0 = hn::Add(s0, f(load_some(x + i, n - i, pad)));
  return add_lanes(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}
template <class T, class U, class F>
HWY_INLINE float sum_of(const T* x, const U* y, int64_t n, const F& f) {
  const int64_t step = lanes();
  V s0 = set(0), s1 = s0;
  int64_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    s0 = hn::Add(s0, f(load(x + i), load(y + i)));
    s1 = hn::Add(s1, f(load(x + i + step), load(y + i + step)));
  }
  for (; i + step <= n; i += step) s0 = hn::Add(s0, f(load(x + i), load(y + i)));
  if (i < n) s0 = hn::Add(s0, f(load_some(x + i, n - i, 0), load_some(y + i, n - i, 0)));
  return add_lanes(hn::Add(s0, s1));
}

template <class T>
HWY_INLINE float max_of(const T* x, int64_t n) {
  const float least = -std::numeric_limits<float>::infinity();
  const auto larger = [](V a, V b) HWY_ATTR { return hn::Max(a, b); };
  return hn::GetLane(hn::MaxOfLanes(D(), fold(x, n, set(least), least, larger, larger)));
}

// 2^n for whole n in -126 .. 127.
HWY_INLINE V power_of_two(V n) {
  const hn::RebindToSigned<D> di;
  return hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127))));
}

// x = n log(2) + r with |r| <= log(2) / 2. log(2) is taken off in two parts, the first exact.
HWY_INLINE V reduce_to_half_log2(V x, V n) {
  return hn::NegMulAdd(n, set(-2.12194440e-4f), hn::NegMulAdd(n, set(0.693359375f), x));
}

// (e^r - 1 - r) / r^2 by Taylor's series: below 1e-8 off for |r| <= log(2) / 2.
HWY_INLINE V exp_tail(V r) {
  V p = hn::MulAdd(r, set(1.0f / 5040), set(1.0f / 720));
  p = hn::MulAdd(r, p, set(1.0f / 120));
  p = hn::MulAdd(r, p, set(1.0f / 24));
  p = hn::MulAdd(r, p, set(1.0f / 6));
  return hn::MulAdd(r, p, set(0.5f));
}

// e^x within 2 units in the last place; 0 where it would be denormal. x stands second in Min and Max so that a NaN
// stays one.
HWY_INLINE V exp(V x) {
  const V least = set(-87.33654f);
  const V clamped = hn::Min(set(89.0f), hn::Max(least, x));
  const V n = hn::Round(hn::Mul(clamped, set(1.44269504f)));
  const V r = reduce_to_half_log2(clamped, n);
  const V y = hn::Add(set(1), hn::MulAdd(hn::Mul(r, r), exp_tail(r), r));
  const V half = hn::Round(hn::Mul(n, set(0.5f)));  // 2^128 would not fit: in two steps
  const V scaled = hn::Mul(hn::Mul(y, power_of_two(half)), power_of_two(hn::Sub(n, half)));
  return hn::IfThenElse(hn::Lt(x, least), set(0), scaled);
}

// e^x for x below 88: as exp, but the scale by 2^n fits in one step.
HWY_INLINE V exp_below_88(V x) {
  const V least = set(-87.33654f);
  const V clamped = hn::Max(least, x);
  const V n = hn::Round(hn::Mul(clamped, set(1.44269504f)));
  const V r = reduce_to_half_log2(clamped, n);
  const V y = hn::Add(set(1), hn::MulAdd(hn::Mul(r, r), exp_tail(r), r));
  return hn::IfThenElse(hn::Lt(x, least), set(0), hn::Mul(y, power_of_two(n)));
}

// e^x - 1 for 0 <= x <= 20, exact to the last bits near 0 too.
HWY_INLINE V exp_minus_one(V x) {
  const V n = hn::Round(hn::Mul(x, set(1.44269504f)));
  const V r = reduce_to_half_log2(x, n);
  const V p = hn::MulAdd(hn::Mul(r, r), exp_tail(r), r);
  const V scale = power_of_two(n);
  return hn::MulAdd(scale, p, hn::Sub(scale, set(1)));
}

// 1 / x for 1 <= x < 2^126. With AVX-512 a division takes as long as all the rest of a sigmoid; one step of Newton's makes
// 14 bits into all of them.
HWY_INLINE V reciprocal_of_large(V x) {
#if HWY_TARGET <= HWY_AVX3
  const V guess = hn::ApproximateReciprocal(x);
  return hn::MulAdd(guess, hn::NegMulAdd(x, guess, set(1)), guess);
#else
  return hn::Div(set(1), x);
#endif
}

// 0 below -87, where it would soon be denormal.
HWY_INLINE V sigmoid(V x) {
  const V limit = set(87);
  const V y = reciprocal_of_large(hn::Add(set(1), exp_below_88(hn::Min(limit, hn::Neg(x)))));
  return hn::IfThenElse(hn::Lt(x, hn::Neg(limit)), set(0), y);
}

HWY_INLINE V tanh(V x) {
  const V e = exp_minus_one(hn::Min(set(20), hn::Abs(hn::Add(x, x))));
  return hn::CopySign(hn::Div(e, hn::Add(e, set(2))), x);
}

// The natural logarithm: x = 2^n m with m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh((m - 1) / (m + 1)).
HWY_INLINE V log(V x) {
  const hn::RebindToSigned<D> di;
  const auto denormal = hn::Lt(x, set(std::numeric_limits<float>::min()));
  const V y = hn::IfThenElse(denormal, hn::Mul(x, set(8388608.0f)), x);
  const auto bits = hn::Sub(hn::BitCast(di, y), hn::Set(di, 0x3F3504F3));  // sqrt(1/2)
  const auto exponent = hn::ShiftRight<23>(bits);
  const V m = hn::BitCast(D(), hn::Sub(hn::BitCast(di, y), hn::ShiftLeft<23>(exponent)));
  const V n = hn::Sub(hn::ConvertTo(D(), exponent), hn::IfThenElseZero(denormal, set(23)));
  const V f = hn::Sub(m, set(1));
  const V s = hn::Div(f, hn::Add(f, set(2))), s2 = hn::Mul(s, s);
  V p = hn::MulAdd(s2, set(2.0f / 9), set(2.0f / 7));
  p = hn::MulAdd(s2, p, set(2.0f / 5));
  p = hn::MulAdd(s2, p, set(2.0f / 3));
  // 2 s + s^3 p = f - s (f - s^2 p), which keeps the bits of f.
  const V log_m = hn::Sub(f, hn::Mul(s, hn::Sub(f, hn::Mul(s2, p))));
  V r = hn::MulAdd(n, set(0.693359375f), hn::MulAdd(n, set(-2.12194440e-4f), log_m));
  const float inf = std::numeric_limits<float>::infinity();
  r = hn::IfThenElse(hn::Eq(x, set(inf)), x, r);
  r = hn::IfThenElse(hn::Eq(x, set(0)), set(-inf), r);
  return hn::IfThenElse(hn::Ge(x, set(0)), r, set(std::numeric_limits<float>::quiet_NaN()));
}

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
