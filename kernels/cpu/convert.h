// Runs of numbers between bf16 and f32, to nearest even.
#pragma once

#include <cstdint>

#include "meshard/base/buffer.h"

namespace meshard::cpu {

struct Conversions {
  void (*widen)(const bfloat16* x, float* y, int64_t n);
  void (*narrow)(const float* x, bfloat16* y, int64_t n);
};
Conversions conversions();  // of this machine's instruction set

}  // namespace meshard::cpu
