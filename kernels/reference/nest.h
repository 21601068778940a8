// Loops over factors. A Nest<N> walks the points of some factors with an offset into each of N row-major blocks; a
// block that lacks a factor stays where it is along it.
//
//   Nest<2> nest(spec, factors_of(y), {&x, &y});
//   nest.each({}, [&](const Offsets<2>& at) { y_data[at[1]] = x_data[at[0]]; });
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <vector>

#include "meshard/base/error.h"
#include "meshard/kernels/kernel.h"

namespace meshard {

template <size_t N>
using Offsets = std::array<int64_t, N>;

// Elements between neighbours along each factor of the spec; 0 where the block lacks it.
std::vector<int64_t> factor_strides(const KernelSpec& spec, const KernelOperand& block);
std::vector<int> factors_of(const KernelOperand& block);  // in order, major first
bool has_factor(const KernelOperand& block, int factor);
int factor_index(const KernelSpec& spec, std::string_view name);  // InternalError if there is none
std::vector<int> without(std::vector<int> factors, const std::vector<int>& others);
// Factors that some operand has and the result lacks, in order of first appearance.
std::vector<int> reduced_factors(const KernelSpec& spec, const KernelOperand& result);

// A block as rows over its last dimension.
struct Rows {
  int64_t count = 1;
  int64_t size = 1;
};
Rows rows_of(const KernelOperand& block);

template <size_t N>
struct Loop {
  int64_t size = 1;
  Offsets<N> step{};
};

template <size_t N>
class Nest {
 public:
  // The first factor is the outermost loop. Neighbouring loops that step through all blocks alike become one.
  Nest(const KernelSpec& spec, const std::vector<int>& factors, const std::array<const KernelOperand*, N>& blocks) {
    std::array<std::vector<int64_t>, N> strides;
    for (size_t b = 0; b < N; ++b) strides[b] = factor_strides(spec, *blocks[b]);
    for (int f : factors) {
      Loop<N> loop;
      loop.size = spec.factors[static_cast<size_t>(f)].size;
      for (size_t b = 0; b < N; ++b) loop.step[b] = strides[b][static_cast<size_t>(f)];
      points_ *= loop.size;
      if (loop.size != 1) push(loop);
    }
    MESHARD_CHECK(loops_.size() <= kLoops, "a kernel has too many loops");
  }

  int64_t points() const { return points_; }
  const std::vector<Loop<N>>& loops() const { return loops_; }

  // row(offsets, size, step) for each run of the innermost loop.
  template <class F>
  void rows(Offsets<N> at, const F& row) const {
    if (points_ == 0) return;
    if (loops_.empty()) return row(at, int64_t{1}, Offsets<N>{});
    const int inner = static_cast<int>(loops_.size()) - 1;
    std::array<int64_t, kLoops> index{};
    while (true) {
      row(at, loops_[static_cast<size_t>(inner)].size, loops_[static_cast<size_t>(inner)].step);
      int l = inner - 1;
      for (; l >= 0; --l) {
        const Loop<N>& loop = loops_[static_cast<size_t>(l)];
        for (size_t b = 0; b < N; ++b) at[b] += loop.step[b];
        if (++index[static_cast<size_t>(l)] < loop.size) break;
        for (size_t b = 0; b < N; ++b) at[b] -= loop.step[b] * loop.size;
        index[static_cast<size_t>(l)] = 0;
      }
      if (l < 0) return;
    }
  }

  // point(offsets) for each point.
  template <class F>
  void each(Offsets<N> at, const F& point) const {
    rows(at, [&](Offsets<N> here, int64_t size, const Offsets<N>& step) {
      for (int64_t i = 0; i < size; ++i) {
        point(here);
        for (size_t b = 0; b < N; ++b) here[b] += step[b];
      }
    });
  }

 private:
  static constexpr size_t kLoops = 16;

  void push(const Loop<N>& loop) {
    if (!loops_.empty()) {
      Loop<N>& outer = loops_.back();
      bool one = true;
      for (size_t b = 0; b < N; ++b) one = one && outer.step[b] == loop.step[b] * loop.size;
      if (one) {
        outer = {outer.size * loop.size, loop.step};
        return;
      }
    }
    loops_.push_back(loop);
  }

  int64_t points_ = 1;
  std::vector<Loop<N>> loops_;
};

}  // namespace meshard
