// What the kernels of attention have in common: who sees whom, and what the gradient needs of each query beside q, k, v
// and do, made once: lse, and D = sum over e of o do.
#ifndef MESHARD_KERNELS_DEVICE_ATTENTION_ROWS_INL_H
#define MESHARD_KERNELS_DEVICE_ATTENTION_ROWS_INL_H

#include "meshard/kernels/device/warp-inl.h"
#include "meshard/kernels/reference/attention_shape.h"

namespace meshard::MESHARD_DEVICE {

struct AttentionTiles {
  AttentionShape a;
  int64_t tile = 1;                // queries, and keys
  const int32_t* start = nullptr;  // added to the queries' positions
  // Keys that some query of the tile from `first` on sees.
  MESHARD_BODY int64_t seen_by(int64_t first) const {
    const int64_t last = (first + tile < a.t ? first + tile : a.t) - 1;
    return seen(last);
  }
  MESHARD_BODY int64_t seen(int64_t i) const {
    if (!a.causal) return a.s;
    const int64_t n = a.begin + (start != nullptr ? *start : 0) + i + 1;
    return n < a.s ? n : a.s;
  }
};

// 16 bytes, both ends aligned to as many.
MESHARD_BODY inline void copy_chunk(void* to, const void* from) {
#ifdef __CUDACC__
  *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#else
  std::memcpy(to, from, 16);
#endif
}

// Whether rows of e elements from `at` on may be read 16 bytes at a time.
template <class T>
MESHARD_BODY bool in_chunks(const T* at, HeadStrides step, int64_t e) {
  constexpr int kChunk = 16 / static_cast<int>(sizeof(T));
  return step.e == 1 && (e | step.row) % kChunk == 0 && reinterpret_cast<uintptr_t>(at) % 16 == 0;
}

// Of a query that is not there, or that sees nothing, lse is infinite: its exp(score - lse) is 0.
template <class T>
struct AttentionRowsBody {
  static constexpr int kWarps = 8, kRows = 8 * kWarps;
  using A = Sum<T>;

  AttentionTiles g;
  Points<9> outer, inner;
  const T *o, *dout;
  Side lse;
  int64_t padded;    // rows of a head: t, rounded up to kRows
  A unit;            // lse is multiplied by it
  A *logs, *totals;  // [heads, padded]

  MESHARD_BODY void operator()(const Team& team) const {
    const int64_t tiles = padded / kRows, head = team.index() / tiles, first = team.index() % tiles * kRows;
    const auto group = outer.at(head / inner.count), mine = inner.at(head % inner.count);
    const T *x = o + group[3] + mine[3], *y = dout + group[5] + mine[5];
    const bool chunks = sizeof(T) == 2 && in_chunks(x, g.a.o, g.a.e) && in_chunks(y, g.a.o, g.a.e);
    team.warps([&](const Warp& warp) {
      Lanes<A[1]> sum;
      const auto row = [&](int lane) { return first + warp.index * 8 + lane / 4; };
      warp.lanes([&](int lane) {
        A so_far = 0;
        for (int64_t c = lane % 4 * 8; row(lane) < g.a.t && c < g.a.e; c += 32) {
          const int64_t at = row(lane) * g.a.o.row + c * g.a.o.e;
          if (chunks) {
            alignas(16) T p[8], q[8];
            copy_chunk(p, x + at);
            copy_chunk(q, y + at);
            MESHARD_UNROLL for (int i = 0; i < 8; ++i) so_far += load(p[i]) * load(q[i]);
          } else {
            for (int64_t i = 0; i < 8 && c + i < g.a.e; ++i)
              so_far += load(x[at + i * g.a.o.e]) * load(y[at + i * g.a.o.e]);
          }
        }
        sum[lane][0] = so_far;
      });
      fold_rows(warp, sum, [](A a, A b) { return a + b; });
      warp.lanes([&](int lane) {
        if (lane % 4 != 0) return;
        const int64_t r = row(lane), at = head * padded + r;
        totals[at] = sum[lane][0];
        logs[at] = r < g.a.t && g.seen(r) > 0 ? static_cast<A>(lse.get(group[4] + mine[4] + r * g.a.lse.row)) * unit
                                              : infinity<A>();
      });
    });
  }
};

// What the gradient's kernels read of the rows, in a workspace.
template <class T>
struct AttentionRows {
  int64_t heads, padded;
  AttentionRows(int64_t heads, int64_t t)
      : heads(heads),
        padded((t + AttentionRowsBody<T>::kRows - 1) / AttentionRowsBody<T>::kRows * AttentionRowsBody<T>::kRows) {}
  int64_t bytes() const { return aligned(2 * heads * padded * static_cast<int64_t>(sizeof(Sum<T>))); }
  Sum<T>* logs(void* workspace) const { return static_cast<Sum<T>*>(workspace); }
  Sum<T>* totals(void* workspace) const { return logs(workspace) + heads * padded; }
};

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_ATTENTION_ROWS_INL_H
