// Which instruction sets the CPU kernels are compiled for: the baseline, SSE4, AVX2 and AVX-512. Included before
// Highway.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

// Before the loops of a tile: without it the compiler keeps the sums in memory instead of in registers.
#define MESHARD_UNROLL _Pragma("GCC unroll 16")
