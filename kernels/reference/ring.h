// Blocks along a ring: in the rules of ring_part and ring_place letter "ring" counts devices and "block" the blocks of
// one dimension of the wide tensor, and of index i of the ring only block i + offset is meant, modulo their number.
#pragma once

#include "meshard/kernels/reference/nest.h"

namespace meshard {

struct RingBlocks {
  RingBlocks(const KernelSpec& spec, const KernelOperand& wide, const KernelOperand& narrow)
      : nest(spec, letters(spec, narrow), {&wide, &narrow}) {
    const auto ring = static_cast<size_t>(factor_index(spec, "ring"));
    const auto block = static_cast<size_t>(factor_index(spec, "block"));
    const std::vector<int64_t> w = factor_strides(spec, wide), n = factor_strides(spec, narrow);
    const KernelFactor &r = spec.factors[ring], &b = spec.factors[block];
    for (int64_t i = 0; i < r.size; ++i) {
      const int64_t number = (r.begin + i + spec.attributes->integer("offset")) % b.global;
      const int64_t here = (number + b.global) % b.global - b.begin;
      if (here < 0 || here >= b.size)
        misses = true;  // another device has it
      else
        starts.push_back({i * w[ring] + here * w[block], i * n[ring]});
    }
  }

  // each(first element of a block in the wide tensor, and in the narrow one)
  template <class F>
  void each(const F& each) const {
    for (const Offsets<2>& at : starts) each(at[0], at[1]);
  }

  Nest<2> nest;  // of one block: offsets into wide and narrow
  bool misses = false;
  std::vector<Offsets<2>> starts;

 private:
  static std::vector<int> letters(const KernelSpec& spec, const KernelOperand& narrow) {
    return without(factors_of(narrow), {factor_index(spec, "ring")});
  }
};

}  // namespace meshard
