// What attention kernels read from their factors, in whatever order the dimensions stand: q has t, e and any heads, k
// and v have s, e and heads of which q may have more (grouped: each head of k serves all r).
#pragma once

#include <cmath>

#include "meshard/kernels/reference/nest.h"

namespace meshard {

// Elements between neighbours along t (of q, o, lse) or s (of k, v), and along e.
struct HeadStrides {
  int64_t row = 0;
  int64_t e = 0;
};

struct AttentionShape {
  int64_t t = 0, s = 0, e = 0;
  int64_t begin = 0;  // global position of the first t here; add what `start` gives
  bool causal = true;
  double scale = 1;
  HeadStrides q, k, v, o, lse;

  // How many s the query at local position i sees.
  int64_t seen(int64_t i) const { return causal ? (begin + i + 1 < s ? begin + i + 1 : s) : s; }
};

// Where the queries' positions begin is the last operand, or 0: i32 [].
inline bool has_start(const KernelSpec& spec) { return spec.operands.back().type.dtype == Dtype::i32; }
inline int64_t start_of(const KernelCall& call) { return *static_cast<const int32_t*>(call.operands.back()); }

// `o` and `lse` are results of the forward kernel and operands of the vjp.
inline AttentionShape attention_shape(const KernelSpec& spec, const KernelOperand& o, const KernelOperand& lse) {
  const auto t = static_cast<size_t>(factor_index(spec, "t")), s = static_cast<size_t>(factor_index(spec, "s"));
  const auto e = static_cast<size_t>(factor_index(spec, "e"));
  const auto strides = [&](const KernelOperand& block, size_t row) {
    const std::vector<int64_t> all = factor_strides(spec, block);
    return HeadStrides{all[row], all[e]};
  };
  AttentionShape a;
  a.t = spec.factors[t].size;
  a.s = spec.factors[s].size;
  a.e = spec.factors[e].size;
  a.begin = spec.factors[t].begin;
  a.causal = spec.attributes->flag("causal", true);
  a.scale = spec.attributes->number("scale", 0);
  if (a.scale == 0) a.scale = 1 / std::sqrt(static_cast<double>(spec.factors[e].global));
  a.q = strides(spec.operands[0], t);
  a.k = strides(spec.operands[1], s);
  a.v = strides(spec.operands[2], s);
  a.o = strides(o, t);
  a.lse = strides(lse, t);
  return a;
}

// Heads of k, and the further heads of q that share one.
inline std::vector<int> key_heads(const KernelSpec& spec) {
  return without(factors_of(spec.operands[1]), {factor_index(spec, "s"), factor_index(spec, "e")});
}
inline std::vector<int> shared_heads(const KernelSpec& spec) {
  return without(without(factors_of(spec.operands[0]), {factor_index(spec, "t"), factor_index(spec, "e")}),
                 key_heads(spec));
}

}  // namespace meshard
