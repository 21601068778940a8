// Runs of numbers between bf16 or f16 and f32, to nearest even.
#pragma once

#include <cstdint>

#include "meshard/base/buffer.h"

namespace meshard::cpu {

template <class Half>
struct Conversions {
  void (*widen)(const Half* x, float* y, int64_t n);
  void (*narrow)(const float* x, Half* y, int64_t n);
};
// Of this machine's instruction set, for bfloat16 and float16.
template <class Half>
Conversions<Half> conversions();
template <>
Conversions<bfloat16> conversions();
template <>
Conversions<float16> conversions();

}  // namespace meshard::cpu
