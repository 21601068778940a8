// Random numbers as a function of (seed, name, global index): the same on any mesh, bit for bit. Philox 4x32-10 with
// the seed as key and (index / 4, hash of the name) as counter; its four words serve four elements next to one another
// in the whole tensor.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "meshard/base/buffer.h"

namespace meshard {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

enum class Distribution : uint8_t {
  normal,  // standard deviation `scale`
  uniform  // in [-scale, scale)
};

// One loop over a block, major first: global index = sum over loops of (begin + i) stride.
struct RandomLoop {
  int64_t size = 1, begin = 0;
  int64_t stride = 1;  // elements of the whole tensor
};

void fill_random(Distribution distribution, void* data, Dtype dtype, std::span<const RandomLoop> loops, int64_t seed,
                 std::string_view name, double scale, int threads = 1);

// A block of a tensor: `block.shape` elements from `begin` on, in each dimension of `global`.
void fill_normal(View block, const Shape& global, std::span<const int64_t> begin, int64_t seed, std::string_view name,
                 double scale, int threads = 1);
void fill_uniform(View block, const Shape& global, std::span<const int64_t> begin, int64_t seed, std::string_view name,
                  double scale, int threads = 1);

}  // namespace meshard
