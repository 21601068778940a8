// Random draws of the host: a function of (seed, stream, index), the same on every rank.
#pragma once

#include <cstdint>

#include "meshard/kernels/random.h"

namespace meshard {

enum class Stream : uint32_t { batches = 1, sample = 2 };

inline uint64_t random_bits(uint64_t seed, Stream stream, uint64_t index) {
  const auto words = philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(stream), 0},
                            {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{words[0]} << 32 | words[1];
}

// In [0, 1).
inline double random_unit(uint64_t seed, Stream stream, uint64_t index) {
  return static_cast<double>(random_bits(seed, stream, index) >> 11) * 0x1p-53;
}

}  // namespace meshard
