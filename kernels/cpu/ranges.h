// A part of a nest's points, by their row-major number: what a thread gets.
#pragma once

#include "meshard/kernels/parallel.h"
#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::cpu {

constexpr int64_t kGrain = 8192;  // elements below which a further thread does not pay

inline bool all_of_type(const KernelSpec& spec, Dtype dtype) {
  const auto is = [&](const KernelOperand& block) { return block.type.dtype == dtype; };
  return std::all_of(spec.operands.begin(), spec.operands.end(), is) &&
         std::all_of(spec.results.begin(), spec.results.end(), is);
}
inline bool all_f32(const KernelSpec& spec) { return all_of_type(spec, Dtype::f32); }

// The dtypes of the operands, then of the results: "bf16 f32 -> bf16" as a list.
inline bool has_types(const KernelSpec& spec, std::initializer_list<Dtype> operands, std::initializer_list<Dtype> results) {
  const auto same = [](const KernelOperand& block, Dtype dtype) { return block.type.dtype == dtype; };
  return std::equal(spec.operands.begin(), spec.operands.end(), operands.begin(), operands.end(), same) &&
         std::equal(spec.results.begin(), spec.results.end(), results.begin(), results.end(), same);
}

// make.operator()<T>() for a narrow type.
template <class F>
auto for_narrow(Dtype dtype, const F& make) {
  return dtype == Dtype::bf16 ? make.template operator()<bfloat16>() : make.template operator()<float16>();
}

// run(offsets, count): pieces of the innermost loop that make up the points [begin, end).
template <size_t N, class F>
void pieces(const std::vector<Loop<N>>& loops, int64_t begin, int64_t end, const F& run) {
  if (loops.empty()) {
    if (begin < end) run(Offsets<N>{}, int64_t{1});
    return;
  }
  const Loop<N>& inner = loops.back();
  while (begin < end) {
    int64_t outer = begin / inner.size;
    const int64_t first = begin % inner.size, count = std::min(inner.size - first, end - begin);
    Offsets<N> at;
    for (size_t b = 0; b < N; ++b) at[b] = first * inner.step[b];
    for (size_t l = loops.size() - 1; l-- > 0;) {
      const int64_t i = outer % loops[l].size;
      outer /= loops[l].size;
      for (size_t b = 0; b < N; ++b) at[b] += i * loops[l].step[b];
    }
    run(at, count);
    begin += count;
  }
}

}  // namespace meshard::cpu
