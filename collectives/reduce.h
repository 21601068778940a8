// Loops over blocks of calls, as vector code of the machine they run on.
//
// Sums, maxima and minima of the members' blocks are always taken in member order 0 .. p-1, so that every backend gives
// the same bits. bf16 and f16 are put together in f32 and rounded once; i32 wraps around; a NaN wins in max and min, so that none
// is lost.
#pragma once

#include <cstdint>
#include <span>

#include "meshard/base/shape.h"
#include "meshard/mesh/group.h"

namespace meshard {

// How results are stored. `streaming` goes past the caches: for what is larger than they are and not read first, since
// storing it otherwise reads it before.
enum class Store : uint8_t { cached, streaming };

// out[e] = in[0][e] (+) in[1][e] (+) ... for e < elements. `out` may be one of `in`, but not overlap one otherwise.
void reduce_blocks(Reduction reduction, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
                   Store store = Store::cached);

// Copies `bytes` between places that are the same or apart.
void copy_block(void* to, const void* from, int64_t bytes, Store store = Store::cached);

}  // namespace meshard
