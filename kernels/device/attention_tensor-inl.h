// Attention of bf16 and f16 on tensor cores, in the order of FlashAttention-2 (Dao 2023): a warp has 16 M rows of the
// result and their scores in registers, and goes over tiles of N rows of what all warps of its team read. While it computes on
// one tile the next is fetched. Scores, their exp and all sums are f32; p and ds are rounded to the operands' type where
// they are multiplied. Backward, one kernel has queries and makes dq, another has keys and makes dk and dv: p is made twice,
// but each element of a gradient is added up by one thread in one order.
//
// RowNumbers have E elements, e rounded up, the last of them zeros. exp(x) is 2^(x log2 e), with log2 e in the scale.
#ifndef MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_INL_H
#define MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_INL_H

#include "meshard/kernels/device/attention_rows-inl.h"

namespace meshard::MESHARD_DEVICE {

constexpr double kLog2E = 1.4426950408889634;

MESHARD_BODY inline int lesser(int a, int b) { return a < b ? a : b; }

// Of a warp's 16 M rows, N rows that it goes over, W warps.
template <int E_, int M_, int N_, int W_>
struct Tiling {
  static constexpr int E = E_, M = M_, N = N_, kWarps = W_, kRows = 16 * M_ * W_, kThreads = kWarp * W_;
  static constexpr int64_t bytes(int64_t rows) { return rows * kStep<E_> * 2; }
};

// Which keys a query sees, in numbers of 32 bits.
struct Sight {
  int s, shift;  // query i sees the keys before shift + i
  MESHARD_BODY explicit Sight(const AttentionTiles& g) : s(static_cast<int>(g.a.s)), shift(s) {
    if (!g.a.causal) return;
    const int64_t first = g.a.begin + (g.start != nullptr ? *g.start : 0) + 1;
    shift = static_cast<int>(first > s ? s : first < -(1 << 29) ? -(1 << 29) : first);
  }
  MESHARD_BODY int seen(int query) const { return lesser(s, shift + query); }
};

// Begins to copy n rows of E elements into a tile; rows from `rows` on and elements from e on are zeros.
template <int E, class T>
MESHARD_BODY void fetch_tile(const Team& team, T* tile, const T* from, HeadStrides step, int n, int64_t rows, int e) {
  constexpr int kChunks = E / 8;
  if (in_chunks(from, step, e)) {
    team.fetch(n * kChunks, [&](int i) {
      const int r = i / kChunks, c = i % kChunks * 8;
      const bool there = r < rows && c < e;
      return Fetch{tile + r * kStep<E> + c, there ? from + r * step.row + c : from, there};
    });
    return;
  }
  team.each(n * E, [&](int64_t i) {
    const int r = static_cast<int>(i) / E, c = static_cast<int>(i) % E;
    tile[r * kStep<E> + c] = r < rows && c < e ? from[r * step.row + c * step.e] : store<T>(0.0f);
  });
}

template <int E, class T>
MESHARD_BODY void store_tile(const Team& team, T* to, HeadStrides step, const T* tile, int n, int64_t rows, int e) {
  constexpr int kChunks = E / 8;
  if (in_chunks(to, step, e)) {
    team.each(n * kChunks, [&](int64_t i) {
      const int r = static_cast<int>(i) / kChunks, c = static_cast<int>(i) % kChunks * 8;
      if (r < rows && c < e) copy_chunk(to + r * step.row + c, tile + r * kStep<E> + c);
    });
    return;
  }
  team.each(n * E, [&](int64_t i) {
    const int r = static_cast<int>(i) / E, c = static_cast<int>(i) % E;
    if (r < rows && c < e) to[r * step.row + c * step.e] = tile[r * kStep<E> + c];
  });
}

// The sums times a factor of each row, rounded, into rows of a tile that no other warp reads.
template <int E, class T, int M, class F>
MESHARD_BODY void write_rows(const Warp& warp, T* rows, Sums (&sums)[M][E / 8], const F& factor) {
  warp.lanes([&](int lane) {
    MESHARD_UNROLL for (int m = 0; m < M; ++m) {
      MESHARD_UNROLL for (int i = 0; i < 4; i += 2) {
        const float times = factor(lane, m, i / 2);
        MESHARD_UNROLL for (int n = 0; n < E / 8; ++n) {
          const uint32_t pair = pack<T>(sums[m][n][lane][i] * times, sums[m][n][lane][i + 1] * times);
          T* const to = rows + (m * 16 + row_of(lane, i)) * kStep<E> + n * 8 + column_of(lane, i);
#ifdef __CUDACC__
          *reinterpret_cast<uint32_t*>(to) = pair;
#else
          std::memcpy(static_cast<void*>(to), &pair, sizeof pair);
#endif
        }
      }
    }
  });
}

template <class T, class Tiles>
struct TensorForward : Tiles {
  using Tiles::E, Tiles::M, Tiles::N, Tiles::kRows;
  static constexpr int64_t kBytes = Tiles::bytes(kRows + 4 * N);

  AttentionTiles g;
  Points<5> heads;  // q, k, v, o, lse
  const T *q, *k, *v;
  T* o;
  Side lse;

  // Of a warp's rows: sum over keys of 2^(score - top) v, the largest score, and a lane's part of the sum of 2^(score - top).
  struct State {
    Sums sums[M][E / 8];
    RowNumbers top[M], sum[M];
  };

  // What the keys from `from` on add to a warp's rows, of which the first is query `row`.
  MESHARD_BODY void add_keys(const Warp& warp, const Sight& sight, int row, int from, const T* queries, const T* keys, const T* values,
                             State& mine) const {
    const auto scale = static_cast<float>(g.a.scale * kLog2E);
    Sums p[M][N / 8];
    clear(warp, p);
    multiply_rows<E>(warp, p, queries, keys);
    if (from + N > sight.seen(row)) {
      each_sum(warp, p, [&](int r, int c, float& x) { x = from + c < sight.seen(row + r) ? x : -infinity<float>(); });
    }
    MESHARD_UNROLL for (int m = 0; m < M; ++m) {
      RowNumbers most;
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 4; ++i) {
          if (i % 2 == 0) most[lane][i / 2] = mine.top[m][lane][i / 2];
          MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) most[lane][i / 2] = ::fmaxf(most[lane][i / 2], p[m][n][lane][i]);
        }
      });
      fold_rows(warp, most, [](float a, float b) { return ::fmaxf(a, b); });
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int h = 0; h < 2; ++h) {
          // Where nothing is seen yet, no score is finite, and each 2^ is to be 0.
          const float top = most[lane][h] == -infinity<float>() ? 0 : most[lane][h] * scale;
          const float shrink = power_of_two(mine.top[m][lane][h] * scale - top);
          float sum = mine.sum[m][lane][h] * shrink;
          MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) {
            MESHARD_UNROLL for (int i = 2 * h; i < 2 * h + 2; ++i) sum += p[m][n][lane][i] = power_of_two(p[m][n][lane][i] * scale - top);
          }
          MESHARD_UNROLL for (int n = 0; n < E / 8; ++n) {
            MESHARD_UNROLL for (int i = 2 * h; i < 2 * h + 2; ++i) mine.sums[m][n][lane][i] *= shrink;
          }
          mine.sum[m][lane][h] = sum;
          mine.top[m][lane][h] = most[lane][h];
        }
      });
    }
    multiply_columns<E, T>(warp, mine.sums, p, values);
  }

  MESHARD_BODY void operator()(const Team& team) const {
    const int t = static_cast<int>(g.a.t), s = static_cast<int>(g.a.s), e = static_cast<int>(g.a.e);
    const int tiles = (t + kRows - 1) / kRows;
    const auto at = heads.at(team.index() / tiles);
    const int first = (tiles - 1 - static_cast<int>(team.index() % tiles)) * kRows;  // the last queries see most: they begin
    const Sight sight(g);
    const int end = sight.seen(lesser(first + kRows, t) - 1);
    T *queries = team.memory<T>(), *keys = queries + kRows * kStep<E>, *values = keys + 2 * N * kStep<E>;  // keys, values: two tiles
    const auto fetch_keys = [&](int from, int turn) {
      fetch_tile<E>(team, keys + turn * N * kStep<E>, k + at[1] + from * g.a.k.row, g.a.k, N, s - from, e);
      fetch_tile<E>(team, values + turn * N * kStep<E>, v + at[2] + from * g.a.v.row, g.a.v, N, s - from, e);
    };
    fetch_tile<E>(team, queries, q + at[0] + first * g.a.q.row, g.a.q, kRows, t - first, e);
    if (end > 0) fetch_keys(0, 0);
    PerWarp<State> states;
    team.warps([&](const Warp& warp) {
      State& mine = states[warp];
      clear(warp, mine.sums);
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 2 * M; ++i) {
          mine.top[i / 2][lane][i % 2] = -infinity<float>();
          mine.sum[i / 2][lane][i % 2] = 0;
        }
      });
    });
    for (int from = 0, turn = 0; from < end; from += N, turn ^= 1) {
      if (from + N < end) fetch_keys(from + N, turn ^ 1);  // where the tile before this one was, with which all are done
      team.warps([&](const Warp& warp) {
        const int mine = warp.index * 16 * M, row = first + mine;
        if (row >= t || from >= sight.seen(lesser(row + 16 * M, t) - 1)) return;
        add_keys(warp, sight, row, from, queries + mine * kStep<E>, keys + turn * N * kStep<E>, values + turn * N * kStep<E>, states[warp]);
      });
    }
    team.warps([&](const Warp& warp) {
      State& mine = states[warp];
      const int row = first + warp.index * 16 * M;
      MESHARD_UNROLL for (int m = 0; m < M; ++m) fold_rows(warp, mine.sum[m], [](float a, float b) { return a + b; });
      write_rows<E>(warp, queries + warp.index * 16 * M * kStep<E>, mine.sums, [&](int lane, int m, int h) {
        return sight.seen(row + m * 16 + row_of(lane, 2 * h)) > 0 ? 1 / mine.sum[m][lane][h] : 0.0f;
      });
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 2 * M; ++i) {
          const int r = row + i / 2 * 16 + row_of(lane, i % 2 * 2);
          if (lane % 4 != 0 || r >= t) continue;
          lse.set(at[4] + r * g.a.lse.row, mine.top[i / 2][lane][i % 2] * static_cast<float>(g.a.scale) + ::logf(mine.sum[i / 2][lane][i % 2]));
        }
      });
    });
    store_tile<E>(team, o + at[3] + first * g.a.o.row, g.a.o, queries, kRows, t - first, e);
  }
};

// With p = exp(scale q k - lse), D as in attention_rows-inl.h and ds = p (do v^T - D): dv = p^T do, dq = scale ds k,
// dk = scale ds^T q.
template <class T>
struct TensorVjp {
  AttentionTiles g;
  Points<9> outer, inner;  // heads of k, and those of q that share one: q, k, v, o, lse, do, dq, dk, dv
  const T *q, *k, *v, *dout;
  const float *logs, *totals;  // in units of log 2
  int64_t padded;              // rows of them for each head
  T *dq, *dk, *dv;
};

template <class T, class Tiles>
struct TensorQueries : Tiles {
  using Tiles::E, Tiles::M, Tiles::N, Tiles::kRows;
  static constexpr int64_t kBytes = Tiles::bytes(2 * kRows + 4 * N);

  TensorVjp<T> b;

  struct State {
    Sums dq[M][E / 8];
    RowNumbers log[M], total[M];
  };

  MESHARD_BODY void add_keys(const Warp& warp, const Sight& sight, int row, int from, const T* queries, const T* douts, const T* keys,
                             const T* values, State& mine) const {
    const auto scale = static_cast<float>(b.g.a.scale * kLog2E);
    Sums p[M][N / 8], ds[M][N / 8];
    clear(warp, p);
    multiply_rows<E>(warp, p, queries, keys);
    if (from + N > sight.seen(row)) {
      each_sum(warp, p, [&](int r, int c, float& x) { x = from + c < sight.seen(row + r) ? x : -infinity<float>(); });
    }
    clear(warp, ds);
    multiply_rows<E>(warp, ds, douts, values);
    warp.lanes([&](int lane) {
      MESHARD_UNROLL for (int m = 0; m < M; ++m) {
        MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) {
          MESHARD_UNROLL for (int i = 0; i < 4; ++i) {
            float& x = ds[m][n][lane][i];
            x = power_of_two(p[m][n][lane][i] * scale - mine.log[m][lane][i / 2]) * (x - mine.total[m][lane][i / 2]);
          }
        }
      }
    });
    multiply_columns<E, T>(warp, mine.dq, ds, keys);
  }

  MESHARD_BODY void operator()(const Team& team) const {
    const AttentionTiles& g = b.g;
    const int t = static_cast<int>(g.a.t), s = static_cast<int>(g.a.s), e = static_cast<int>(g.a.e);
    const int tiles = (t + kRows - 1) / kRows;
    const int64_t head = team.index() / tiles;
    const auto group = b.outer.at(head / b.inner.count), shared = b.inner.at(head % b.inner.count);
    const int first = (tiles - 1 - static_cast<int>(team.index() % tiles)) * kRows;
    const Sight sight(g);
    const int end = sight.seen(lesser(first + kRows, t) - 1);
    T *queries = team.memory<T>(), *douts = queries + kRows * kStep<E>, *keys = douts + kRows * kStep<E>, *values = keys + 2 * N * kStep<E>;
    const auto fetch_keys = [&](int from, int turn) {
      fetch_tile<E>(team, keys + turn * N * kStep<E>, b.k + group[1] + shared[1] + from * g.a.k.row, g.a.k, N, s - from, e);
      fetch_tile<E>(team, values + turn * N * kStep<E>, b.v + group[2] + shared[2] + from * g.a.v.row, g.a.v, N, s - from, e);
    };
    fetch_tile<E>(team, queries, b.q + group[0] + shared[0] + first * g.a.q.row, g.a.q, kRows, t - first, e);
    fetch_tile<E>(team, douts, b.dout + group[5] + shared[5] + first * g.a.o.row, g.a.o, kRows, t - first, e);
    if (end > 0) fetch_keys(0, 0);
    PerWarp<State> states;
    team.warps([&](const Warp& warp) {
      State& mine = states[warp];
      clear(warp, mine.dq);
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 2 * M; ++i) {
          const int r = first + warp.index * 16 * M + i / 2 * 16 + row_of(lane, i % 2 * 2);
          mine.log[i / 2][lane][i % 2] = r < t ? b.logs[head * b.padded + r] : infinity<float>();
          mine.total[i / 2][lane][i % 2] = r < t ? b.totals[head * b.padded + r] : 0;
        }
      });
    });
    for (int from = 0, turn = 0; from < end; from += N, turn ^= 1) {
      if (from + N < end) fetch_keys(from + N, turn ^ 1);
      team.warps([&](const Warp& warp) {
        const int mine = warp.index * 16 * M, row = first + mine;
        if (row >= t || from >= sight.seen(lesser(row + 16 * M, t) - 1)) return;
        add_keys(warp, sight, row, from, queries + mine * kStep<E>, douts + mine * kStep<E>, keys + turn * N * kStep<E>,
                 values + turn * N * kStep<E>, states[warp]);
      });
    }
    team.warps([&](const Warp& warp) {
      write_rows<E>(warp, queries + warp.index * 16 * M * kStep<E>, states[warp].dq, [&](int, int, int) { return static_cast<float>(g.a.scale); });
    });
    store_tile<E>(team, b.dq + group[6] + shared[6] + first * g.a.q.row, g.a.q, queries, kRows, t - first, e);
  }
};

// RowNumbers are keys here, and what a warp goes over are queries: products are those of the transposed matrices. Where the sums
// of dk and dv together are more than the registers hold, one kernel makes one of them.
template <class T, class Tiles, bool kKeys, bool kValues>
struct TensorKeys : Tiles {
  using Tiles::E, Tiles::M, Tiles::N, Tiles::kRows;
  static constexpr int64_t kBytes = Tiles::bytes(2 * kRows + 4 * N) + 4 * N * static_cast<int64_t>(sizeof(float));

  TensorVjp<T> b;

  struct State {
    Sums dk[kKeys ? M : 1][kKeys ? E / 8 : 1], dv[kValues ? M : 1][kValues ? E / 8 : 1];
  };

  // What the queries from `first` on add to a warp's rows, of which the first is key `row`.
  MESHARD_BODY void add_queries(const Warp& warp, const Sight& sight, int row, int first, const T* keys, const T* values, const T* queries,
                                const T* douts, const float* logs, const float* totals, State& mine) const {
    const auto scale = static_cast<float>(b.g.a.scale * kLog2E);
    Sums p[M][N / 8];
    clear(warp, p);
    multiply_rows<E>(warp, p, keys, queries);
    if (row + 16 * M > sight.seen(first)) {
      each_sum(warp, p, [&](int r, int c, float& x) { x = row + r < sight.seen(first + c) ? x : -infinity<float>(); });
    }
    each_sum(warp, p, [&](int, int c, float& x) { x = power_of_two(x * scale - logs[c]); });
    if constexpr (kValues) multiply_columns<E, T>(warp, mine.dv, p, douts);
    if constexpr (kKeys) {
      Sums ds[M][N / 8];
      clear(warp, ds);
      multiply_rows<E>(warp, ds, values, douts);
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int m = 0; m < M; ++m) {
          MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) {
            MESHARD_UNROLL for (int i = 0; i < 4; ++i) {
              float& x = ds[m][n][lane][i];
              x = p[m][n][lane][i] * (x - totals[n * 8 + column_of(lane, i)]);
            }
          }
        }
      });
      multiply_columns<E, T>(warp, mine.dk, ds, queries);
    }
  }

  MESHARD_BODY void operator()(const Team& team) const {
    const AttentionTiles& g = b.g;
    const int t = static_cast<int>(g.a.t), s = static_cast<int>(g.a.s), e = static_cast<int>(g.a.e);
    const int tiles = (s + kRows - 1) / kRows;
    const auto group = b.outer.at(team.index() / tiles);
    const int from = static_cast<int>(team.index() % tiles) * kRows;
    const Sight sight(g);
    // Tiles of queries, head by head; those before `skipped` see none of these keys.
    const int skipped = from < sight.shift ? 0 : lesser((from - sight.shift + 1) / N, (t + N - 1) / N), per_head = (t + N - 1) / N - skipped;
    const int64_t turns = b.inner.count * per_head;
    T *keys = team.memory<T>(), *values = keys + kRows * kStep<E>, *queries = values + kRows * kStep<E>, *douts = queries + 2 * N * kStep<E>;
    auto* logs = reinterpret_cast<float*>(douts + 2 * N * kStep<E>);  // then the totals
    const auto first_of = [&](int64_t turn) { return (skipped + static_cast<int>(turn % per_head)) * N; };
    const auto fetch_queries = [&](int64_t turn) {
      const int half = static_cast<int>(turn & 1), first = first_of(turn);
      const int64_t head = team.index() / tiles * b.inner.count + turn / per_head;
      const auto shared = b.inner.at(turn / per_head);
      fetch_tile<E>(team, queries + half * N * kStep<E>, b.q + group[0] + shared[0] + first * g.a.q.row, g.a.q, N, t - first, e);
      fetch_tile<E>(team, douts + half * N * kStep<E>, b.dout + group[5] + shared[5] + first * g.a.o.row, g.a.o, N, t - first, e);
      const int64_t row = head * b.padded + first;
      team.fetch(N / 2, [&](int i) {
        const int c = i % (N / 4) * 4;
        return Fetch{logs + (i < N / 4 ? 0 : 2 * N) + half * N + c, (i < N / 4 ? b.logs : b.totals) + row + c, true};
      });
    };
    fetch_tile<E>(team, keys, b.k + group[1] + from * g.a.k.row, g.a.k, kRows, s - from, e);
    if constexpr (kKeys) fetch_tile<E>(team, values, b.v + group[2] + from * g.a.v.row, g.a.v, kRows, s - from, e);
    if (turns > 0) fetch_queries(0);
    PerWarp<State> states;
    team.warps([&](const Warp& warp) {
      if constexpr (kKeys) clear(warp, states[warp].dk);
      if constexpr (kValues) clear(warp, states[warp].dv);
    });
    for (int64_t turn = 0; turn < turns; ++turn) {
      if (turn + 1 < turns) fetch_queries(turn + 1);
      const int half = static_cast<int>(turn & 1), first = first_of(turn);
      team.warps([&](const Warp& warp) {
        const int mine = warp.index * 16 * M, row = from + mine;
        if (row >= sight.seen(lesser(first + N, t) - 1)) return;
        add_queries(warp, sight, row, first, keys + mine * kStep<E>, values + mine * kStep<E>, queries + half * N * kStep<E>,
                    douts + half * N * kStep<E>, logs + half * N, logs + (2 + half) * N, states[warp]);
      });
    }
    team.warps([&](const Warp& warp) {
      const int mine = warp.index * 16 * M * kStep<E>;
      if constexpr (kKeys) write_rows<E>(warp, keys + mine, states[warp].dk, [&](int, int, int) { return static_cast<float>(g.a.scale); });
      if constexpr (kValues) write_rows<E>(warp, values + mine, states[warp].dv, [](int, int, int) { return 1.0f; });
    });
    if constexpr (kKeys) store_tile<E>(team, b.dk + group[7] + from * g.a.k.row, g.a.k, keys, kRows, s - from, e);
    if constexpr (kValues) store_tile<E>(team, b.dv + group[8] + from * g.a.v.row, g.a.v, values, kRows, s - from, e);
  }
};

// The tiles of each E, as many rows as registers (255 of a thread, none spilled) and memory (kSharedMost) take; and whether
// one kernel makes dk and dv.
template <int E>
struct AttentionTilings;
template <>
struct AttentionTilings<32> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<32, 2, 64, 4>;
  using Queries = Tiling<32, 2, 32, 4>;
  using Keys = Tiling<32, 2, 32, 4>;
};
template <>
struct AttentionTilings<64> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<64, 2, 64, 4>;
  using Queries = Tiling<64, 2, 32, 4>;
  using Keys = Tiling<64, 1, 64, 4>;
};
template <>
struct AttentionTilings<96> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<96, 1, 64, 4>;
  using Queries = Tiling<96, 1, 32, 4>;
  using Keys = Tiling<96, 1, 32, 4>;
};
template <>
struct AttentionTilings<128> {
  static constexpr bool kTogether = true;
  using Forward = Tiling<128, 1, 64, 4>;
  using Queries = Tiling<128, 1, 32, 4>;
  using Keys = Tiling<128, 1, 32, 4>;
};
template <>
struct AttentionTilings<256> {
  static constexpr bool kTogether = false;
  using Forward = Tiling<256, 1, 16, 4>;
  using Queries = Tiling<256, 1, 16, 2>;
  using Keys = Tiling<256, 1, 16, 2>;
};

// make.operator()<E>() for the least E that takes rows of e elements.
template <class F>
Prepared for_tiles(int64_t e, const F& make) {
  if (e <= 32) return make.template operator()<32>();
  if (e <= 64) return make.template operator()<64>();
  if (e <= 96) return make.template operator()<96>();
  if (e <= 128) return make.template operator()<128>();
  return make.template operator()<256>();
}

// Whether the kernels above take it, of numbers of 16 bits: positions of 29, and the largest score times a scale above zero.
inline bool on_tensor_cores(const AttentionShape& a) {
  constexpr int64_t kMost = int64_t{1} << 29;
  return a.e > 0 && a.e <= 256 && a.t < kMost && a.s < kMost && a.scale > 0;
}

template <class Body>
void run_tiles(int64_t heads, int64_t rows, const Body& body, void* stream) {
  static_assert(Body::kBytes <= kSharedMost);
  run_teams(heads * ((rows + Body::kRows - 1) / Body::kRows), Body::kThreads, Body::kBytes, body, stream);
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_INL_H
