// Attention of bf16 and f16 on tensor cores, in the order of FlashAttention-2
// (Dao 2023): a warp has 16 M rows of the result and their scores in registers,
// and goes over tiles of N rows of what all warps of its team read. While it
// computes on one tile the next is fetched. Scores, their exp and all sums are
// f32; p and ds are rounded to the operands' type where they are multiplied.
// Backward, one kernel has queries and makes dq, another has keys and makes dk
// and dv: p is made twice, but each element of a gradient is added up by one
// thread in one order.
//
// Rows have E elements, e rounded up, the last of them zeros. exp(x) is 2^(x
// log2 e), with log2 e in the scale.
#ifndef MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_INL_H
#define MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_INL_H

#include "meshard/kernels/device/attention_rows-inl.h"

namespace meshard::MESHARD_DEVICE {

constexpr double kLog2E = 1.4426950408889634;

MESHARD_BODY inline int lesser(int a, int b) { return a < b ? a : b; }

// Of a warp's 16 M rows, N rows that it goes over, W warps.
template <int E_, int M_, int N_, int W_> struct Tiling {
  static constexpr int E = E_, M = M_, N = N_, kWarps = W_,
                       kRows = 16 * M_ * W_, kThreads = kWarp * W_;
  static constexpr int64_t bytes(int64_t rows) { return rows * kStep<E_> * 2; }
};

// Which keys a query sees, in numbers of 32 bits.
struct Sight {
  int s, shift; // query i sees the keys before shift + i
  MESHARD_BODY explicit Sight(const AttentionTiles &g)
      : s(static_cast<int>(g.a.s)), shift(s) {
    if (!g.a.causal)
      return;
    const int64_t first = g.a.begin + (g.start != nullptr ? *g.start : 0) + 1;
    shift = static_cast<int>(first > s            ? s
                             : first < -(1 << 29) ? -(1 << 29)
                                                  : first);
  }
  MESHARD_BODY int seen(int query) const { return lesser(s, shift + query); }
};

// Begins to copy n rows of E elements into a tile; rows from `rows` on and
// elements from e on are zeros.
template <class Tiles, int n, class T>
MESHARD_BODY void fetch_tile(const Team &team, T *tile, const T *from,
                             HeadStrides step, int64_t rows, int e) {
  constexpr int E = Tiles::E;
  constexpr int kChunks = E / 8;
  if (in_chunks(from, step, e)) {
    team.fetch<Tiles::kThreads, n * kChunks>([&](int i) {
      const int r = i / kChunks, c = i % kChunks * 8;
      const bool there = r < rows && c < e;
      return Fetch{tile + r * kStep<E> + c,
                   there ? from + r * step.row + c : from, there};
    });
    return;
  }
  team.each(n * E, [&](int64_t i) {
    const int r = static_cast<int>(i) / E, c = static_cast<int>(i) % E;
    tile[r * kStep<E> + c] =
        r < rows && c < e ? from[r * step.row + c * step.e] : store<T>(0.0f);
  });
}

template <int E, class T>
MESHARD_BODY void store_tile(const Team &team, T *to, HeadStrides step,
                             const T *tile, int n, int64_t rows, int e) {
  constexpr int kChunks = E / 8;
  if (in_chunks(to, step, e)) {
    team.each(n * kChunks, [&](int64_t i) {
      const int r = static_cast<int>(i) / kChunks,
                c = static_cast<int>(i) % kChunks * 8;
      if (r < rows && c < e)
        copy_chunk(to + r * step.row + c, tile + r * kStep<E> + c);
    });
    return;
  }
  team.each(n * E, [&](int64_t i) {
    const int r = static_cast<int>(i) / E, c = static_cast<int>(i) % E;
    if (r < rows && c < e)
      to[r * step.row + c * step.e] = tile[r * kStep<E> + c];
  });
}

// The sums times a factor of each row, rounded, into rows of a tile that no
// other warp reads.
template <int E, class T, int M, class F>
MESHARD_BODY void write_rows(const Warp &warp, T *rows, Sums (&sums)[M][E / 8],
                             const F &factor) {
  warp.lanes([&](int lane) {
    MESHARD_UNROLL for (int m = 0; m < M; ++m) {
      MESHARD_UNROLL for (int i = 0; i < 4; i += 2) {
        const float times = factor(lane, m, i / 2);
        MESHARD_UNROLL for (int n = 0; n < E / 8; ++n) {
          const uint32_t pair = pack<T>(sums[m][n][lane][i] * times,
                                        sums[m][n][lane][i + 1] * times);
          T *const to = rows + (m * 16 + row_of(lane, i)) * kStep<E> + n * 8 +
                        column_of(lane, i);
#ifdef __CUDACC__
          *reinterpret_cast<uint32_t *>(to) = pair;
#else
          std::memcpy(static_cast<void *>(to), &pair, sizeof pair);
#endif
        }
      }
    }
  });
}

// The tiles of each E, as many rows as registers (255 of a thread, none
// spilled) and memory (kSharedMost) take; those for few queries, whose keys are
// shared out over teams of one warp; and whether one kernel makes dk and dv.
template <int E> struct AttentionTilings;
template <> struct AttentionTilings<32> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<32, 2, 64, 4>;
  using Queries = Tiling<32, 2, 64, 4>;
  using Keys = Tiling<32, 2, 32, 4>;
  using Few = Tiling<32, 1, 64, 1>;
};
template <> struct AttentionTilings<64> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<64, 2, 64, 4>;
  using Queries = Tiling<64, 2, 32, 4>;
  using Keys = Tiling<64, 2, 32, 4>;
  using Few = Tiling<64, 1, 64, 1>;
};
template <> struct AttentionTilings<96> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<96, 2, 32, 4>;
  using Queries = Tiling<96, 2, 32, 4>;
  using Keys = Tiling<96, 1, 32, 4>;
  using Few = Tiling<96, 1, 32, 1>;
};
template <> struct AttentionTilings<128> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<128, 2, 32, 4>;
  using Queries = Tiling<128, 2, 16, 4>;
  using Keys = Tiling<128, 1, 32, 4>;
  using Few = Tiling<128, 1, 32, 1>;
};
template <> struct AttentionTilings<256> {
  static constexpr bool kTogether = false;
  using Forward = Tiling<256, 1, 16, 4>;
  using Queries = Tiling<256, 1, 16, 2>;
  using Keys = Tiling<256, 1, 16, 2>;
  using Few = Tiling<256, 1, 16, 1>;
};

// make.operator()<E>() for the least E that takes rows of e elements.
template <class F> Prepared for_tiles(int64_t e, const F &make) {
  if (e <= 32)
    return make.template operator()<32>();
  if (e <= 64)
    return make.template operator()<64>();
  if (e <= 96)
    return make.template operator()<96>();
  if (e <= 128)
    return make.template operator()<128>();
  return make.template operator()<256>();
}

// Whether the kernels above take it, of numbers of 16 bits: positions of 29,
// and the largest score times a scale above zero.
inline bool on_tensor_cores(const AttentionShape &a) {
  constexpr int64_t kMost = int64_t{1} << 29;
  return a.e > 0 && a.e <= 256 && a.t < kMost && a.s < kMost && a.scale > 0;
}

template <class Body>
void run_tiles(int64_t heads, int64_t rows, const Body &body, void *stream,
               int64_t parts = 1) {
  static_assert(Body::kBytes <= kSharedMost);
  run_teams(heads * ((rows + Body::kRows - 1) / Body::kRows) * parts,
            Body::kThreads, Body::kBytes, body, stream);
}

} // namespace meshard::MESHARD_DEVICE

#endif // MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_INL_H
