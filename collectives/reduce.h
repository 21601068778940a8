// The sum, max or min of the members' blocks, always taken in member order 0 .. p-1, so that every backend gives the
// same bits. bf16 is put together in f32 and rounded once; i32 wraps around; a NaN wins in max and min, so that none is
// lost.
#pragma once

#include <cstdint>
#include <span>

#include "meshard/base/shape.h"
#include "meshard/mesh/group.h"

namespace meshard {

// out[e] = in[0][e] (+) in[1][e] (+) ... for e < elements. `out` may be one of `in`, but not overlap one otherwise.
void reduce_blocks(Reduction reduction, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements);

}  // namespace meshard
