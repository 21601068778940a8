// Copies that reorder dimensions, for the transpose kernel and for products that need their operands in another order.
#pragma once

#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {

template <class T>
using Copy = std::function<void(const T* x, T* y)>;

// Rows that lie whole in x: only their order changes.
template <class T>
Copy<T> copy_rows(const std::vector<Loop<2>>& loops, int64_t points, int threads) {
  return [=](const T* x, T* y) {
    parallel_parts(threads, points, kGrain, [&](int64_t, int64_t begin, int64_t end) {
      pieces<2>(loops, begin, end,
                [&](const Offsets<2>& at, int64_t count) { std::copy_n(x + at[0], count, y + at[1]); });
    });
  };
}

// y's innermost loop jumps through x, and loop `along` runs through neighbours in x: in tiles, so that both stay in
// cache.
template <class T>
Copy<T> copy_tiles(const std::vector<Loop<2>>& loops, size_t along, int threads) {
  constexpr int64_t kTile = 16;
  std::vector<Loop<2>> outer = loops;
  const Loop<2> inner = outer.back(), column = outer[along];
  outer.pop_back();
  outer[along] = {(column.size + kTile - 1) / kTile, {column.step[0] * kTile, column.step[1] * kTile}};
  int64_t tasks = 1;
  for (const Loop<2>& loop : outer) tasks *= loop.size;
  return [=](const T* x, T* y) {
    parallel_parts(threads, tasks, kGrain / (kTile * inner.size) + 1, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        Offsets<2> at{};
        int64_t left = task, wide = kTile;
        for (size_t l = outer.size(); l-- > 0;) {
          const int64_t i = left % outer[l].size;
          left /= outer[l].size;
          at[0] += i * outer[l].step[0];
          at[1] += i * outer[l].step[1];
          if (l == along) wide = std::min(kTile, column.size - i * kTile);
        }
        for (int64_t first = 0; first < inner.size; first += kTile) {
          const int64_t last = std::min(first + kTile, inner.size);
          for (int64_t c = 0; c < wide; ++c) {
            const T* from = x + at[0] + c;
            T* to = y + at[1] + c * column.step[1];
            for (int64_t i = first; i < last; ++i) to[i] = from[i * inner.step[0]];
          }
        }
      }
    });
  };
}

// Walks y in order and reads x where the nest says; null where x is repeated or runs in a way not foreseen here.
template <class T>
Copy<T> make_copy(const Nest<2>& nest, int threads) {
  const std::vector<Loop<2>>& loops = nest.loops();
  if (loops.empty() || nest.points() == 0 || loops.back().step == Offsets<2>{1, 1}) {
    return copy_rows<T>(loops, nest.points(), threads);
  }
  if (loops.back().step[1] != 1 || loops.back().step[0] == 0) return nullptr;
  for (size_t l = 0; l + 1 < loops.size(); ++l) {
    if (loops[l].step[0] == 1) return copy_tiles<T>(loops, l, threads);
  }
  return nullptr;
}

}  // namespace meshard::cpu
