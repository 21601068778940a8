// AdamW of one instruction set.
#pragma once

#include <cstdint>

namespace meshard::cpu {

struct AdamwStep {
  float rate, clip, keep1, keep2, add1, add2, correct1, correct2, eps, decay;
};
using AdamwFn = void (*)(const AdamwStep& step, const float* w, const float* m, const float* v, const float* g,
                         int64_t n, float* new_w, float* new_m, float* new_v);

}  // namespace meshard::cpu
