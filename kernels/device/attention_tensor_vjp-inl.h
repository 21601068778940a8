// The gradient of attention on tensor cores. One kernel has queries and makes
// dq, another has keys and makes dk and dv: p is made twice, but each element
// of a gradient is added up by one thread, in one order. Barriers are those of
// attention_tensor_forward-inl.h.
#ifndef MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_VJP_INL_H
#define MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_VJP_INL_H

#include "meshard/kernels/device/attention_tensor-inl.h"

namespace meshard::MESHARD_DEVICE {

// With p = exp(scale q k - lse), D as in attention_rows-inl.h and ds = p (do
// v^T - D): dv = p^T do, dq = scale ds k, dk = scale ds^T q.
template <class T> struct TensorVjp {
  AttentionTiles g;
  Points<9> outer, inner; // heads of k, and those of q that share one: q, k, v,
                          // o, lse, do, dq, dk, dv
  const T *q, *k, *v, *dout;
  const float *logs, *totals; // in units of log 2
  int64_t padded;             // rows of them for each head
  T *dq, *dk, *dv;
};

template <class T, class Tiles> struct TensorQueries : Tiles {
  using Tiles::E, Tiles::M, Tiles::N, Tiles::kRows;
  static constexpr int64_t kBytes = Tiles::bytes(2 * kRows + 4 * N);

  TensorVjp<T> b;

  struct State {
    Sums dq[M][E / 8];
    RowNumbers log[M], total[M];
  };

  MESHARD_BODY void add_keys(const Warp &warp, const Sight &sight, int row,
                             int from, const T *queries, const T *douts,
                             const T *keys, const T *values,
                             State &mine) const {
    const auto scale = static_cast<float>(b.g.a.scale * kLog2E);
    Sums p[M][N / 8], ds[M][N / 8];
    clear(warp, p);
    multiply_rows<E>(warp, p, queries, keys);
    if (from + N > sight.seen(row)) {
      each_sum(warp, p, [&](int r, int c, float &x) {
        x = from + c < sight.seen(row + r) ? x : -infinity<float>();
      });
    }
    clear(warp, ds);
    multiply_rows<E>(warp, ds, douts, values);
    warp.lanes([&](int lane) {
      MESHARD_UNROLL for (int m = 0; m < M; ++m) {
        MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) {
          MESHARD_UNROLL for (int i = 0; i < 4; ++i) {
            float &x = ds[m][n][lane][i];
            x = power_of_two(p[m][n][lane][i] * scale -
                             mine.log[m][lane][i / 2]) *
                (x - mine.total[m][lane][i / 2]);
          }
        }
      }
    });
    multiply_columns<E, T>(warp, mine.dq, ds, keys);
  }

  MESHARD_BODY void operator()(const Team &team) const {
    const AttentionTiles &g = b.g;
    const int t = static_cast<int>(g.a.t), s = static_cast<int>(g.a.s),
              e = static_cast<int>(g.a.e);
    const int tiles = (t + kRows - 1) / kRows;
    const int64_t head = team.index() / tiles;
    const auto group = b.outer.at(head / b.inner.count),
               shared = b.inner.at(head % b.inner.count);
    const int first =
        (tiles - 1 - static_cast<int>(team.index() % tiles)) * kRows;
    const Sight sight(g);
    const int end = sight.seen(lesser(first + kRows, t) - 1);
    T *queries = team.memory<T>(), *douts = queries + kRows * kStep<E>,
      *keys = douts + kRows * kStep<E>, *values = keys + 2 * N * kStep<E>;
    const auto fetch_keys = [&](int from, int turn) {
      fetch_tile<Tiles, N>(team, keys + turn * N * kStep<E>,
                           b.k + group[1] + shared[1] + from * g.a.k.row, g.a.k,
                           s - from, e);
      fetch_tile<Tiles, N>(team, values + turn * N * kStep<E>,
                           b.v + group[2] + shared[2] + from * g.a.v.row, g.a.v,
                           s - from, e);
    };
    fetch_tile<Tiles, kRows>(team, queries,
                             b.q + group[0] + shared[0] + first * g.a.q.row,
                             g.a.q, t - first, e);
    fetch_tile<Tiles, kRows>(team, douts,
                             b.dout + group[5] + shared[5] + first * g.a.o.row,
                             g.a.o, t - first, e);
    if (end > 0)
      fetch_keys(0, 0);
    PerWarp<State> states;
    team.warps([&](const Warp &warp) {
      State &mine = states[warp];
      clear(warp, mine.dq);
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 2 * M; ++i) {
          const int r = first + warp.index * 16 * M + i / 2 * 16 +
                        row_of(lane, i % 2 * 2);
          mine.log[i / 2][lane][i % 2] =
              r < t ? b.logs[head * b.padded + r] : infinity<float>();
          mine.total[i / 2][lane][i % 2] =
              r < t ? b.totals[head * b.padded + r] : 0;
        }
      });
    });
    for (int from = 0, turn = 0; from < end; from += N, turn ^= 1) {
      if (from + N < end)
        fetch_keys(from + N, turn ^ 1);
      team.warps([&](const Warp &warp) {
        const int mine = warp.index * 16 * M, row = first + mine;
        if (row >= t || from >= sight.seen(lesser(row + 16 * M, t) - 1))
          return;
        add_keys(warp, sight, row, from, queries + mine * kStep<E>,
                 douts + mine * kStep<E>, keys + turn * N * kStep<E>,
                 values + turn * N * kStep<E>, states[warp]);
      });
    }
    team.warps([&](const Warp &warp) {
      write_rows<E>(
          warp, queries + warp.index * 16 * M * kStep<E>, states[warp].dq,
          [&](int, int, int) { return static_cast<float>(g.a.scale); });
    });
    store_tile<E>(team, b.dq + group[6] + shared[6] + first * g.a.q.row, g.a.q,
                  queries, kRows, t - first, e);
  }
};

// Rows are keys here, and what a warp goes over are queries: products are those
// of the transposed matrices. Where the sums of dk and dv together are more
// than the registers hold, one kernel makes one of them.
template <class T, class Tiles, bool kKeys, bool kValues>
struct TensorKeys : Tiles {
  using Tiles::E, Tiles::M, Tiles::N, Tiles::kRows;
  static constexpr int64_t kBytes = Tiles::bytes(2 * kRows + 4 * N) +
                                    4 * N * static_cast<int64_t>(sizeof(float));

  TensorVjp<T> b;

  struct State {
    Sums dk[kKeys ? M : 1][kKeys ? E / 8 : 1],
        dv[kValues ? M : 1][kValues ? E / 8 : 1];
  };

  // What the queries from `first` on add to a warp's rows, of which the first
  // is key `row`.
  MESHARD_BODY void add_queries(const Warp &warp, const Sight &sight, int row,
                                int first, const T *keys, const T *values,
                                const T *queries, const T *douts,
                                const float *logs, const float *totals,
                                State &mine) const {
    const auto scale = static_cast<float>(b.g.a.scale * kLog2E);
    Sums p[M][N / 8];
    clear(warp, p);
    multiply_rows<E>(warp, p, keys, queries);
    if (row + 16 * M > sight.seen(first)) {
      each_sum(warp, p, [&](int r, int c, float &x) {
        x = row + r < sight.seen(first + c) ? x : -infinity<float>();
      });
    }
    each_sum(warp, p, [&](int, int c, float &x) {
      x = power_of_two(x * scale - logs[c]);
    });
    if constexpr (kValues)
      multiply_columns<E, T>(warp, mine.dv, p, douts);
    if constexpr (kKeys) {
      Sums ds[M][N / 8];
      clear(warp, ds);
      multiply_rows<E>(warp, ds, values, douts);
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int m = 0; m < M; ++m) {
          MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) {
            MESHARD_UNROLL for (int i = 0; i < 4; ++i) {
              float &x = ds[m][n][lane][i];
              x = p[m][n][lane][i] * (x - totals[n * 8 + column_of(lane, i)]);
            }
          }
        }
      });
      multiply_columns<E, T>(warp, mine.dk, ds, queries);
    }
  }

  MESHARD_BODY void operator()(const Team &team) const {
    const AttentionTiles &g = b.g;
    const int t = static_cast<int>(g.a.t), s = static_cast<int>(g.a.s),
              e = static_cast<int>(g.a.e);
    const int tiles = (s + kRows - 1) / kRows;
    const auto group = b.outer.at(team.index() / tiles);
    const int from = static_cast<int>(team.index() % tiles) * kRows;
    const Sight sight(g);
    // The first tile of queries that see one of these keys; none where begin >=
    // t.
    const int begin = from < sight.shift ? 0 : (from - sight.shift + 1) / N * N;
    const int heads = begin < t ? static_cast<int>(b.inner.count) : 0;
    T *keys = team.memory<T>(), *values = keys + kRows * kStep<E>,
      *queries = values + kRows * kStep<E>, *douts = queries + 2 * N * kStep<E>;
    auto *logs =
        reinterpret_cast<float *>(douts + 2 * N * kStep<E>); // then the totals
    int64_t q_at = 0, do_at = 0,
            rows_at = 0; // where the head begins that is fetched from
    const auto fetch_queries = [&](int head, int first, int half) {
      if (first == begin) {
        const auto shared = b.inner.at(head);
        q_at = group[0] + shared[0];
        do_at = group[5] + shared[5];
        rows_at = (team.index() / tiles * b.inner.count + head) * b.padded;
      }
      fetch_tile<Tiles, N>(team, queries + half * N * kStep<E>,
                           b.q + q_at + first * g.a.q.row, g.a.q, t - first, e);
      fetch_tile<Tiles, N>(team, douts + half * N * kStep<E>,
                           b.dout + do_at + first * g.a.o.row, g.a.o, t - first,
                           e);
      team.fetch<Tiles::kThreads, N / 2>([&](int i) {
        const int c = i % (N / 4) * 4;
        return Fetch{logs + (i < N / 4 ? 0 : 2 * N) + half * N + c,
                     (i < N / 4 ? b.logs : b.totals) + rows_at + first + c,
                     true};
      });
    };
    fetch_tile<Tiles, kRows>(team, keys, b.k + group[1] + from * g.a.k.row,
                             g.a.k, s - from, e);
    if constexpr (kKeys)
      fetch_tile<Tiles, kRows>(team, values, b.v + group[2] + from * g.a.v.row,
                               g.a.v, s - from, e);
    if (heads > 0)
      fetch_queries(0, begin, 0);
    PerWarp<State> states;
    team.warps([&](const Warp &warp) {
      if constexpr (kKeys)
        clear(warp, states[warp].dk);
      if constexpr (kValues)
        clear(warp, states[warp].dv);
    });
    for (int head = 0, first = begin, half = 0; head < heads; half ^= 1) {
      const bool last = first + N >= t;
      const int next = last ? begin : first + N, next_head = head + last;
      if (next_head < heads)
        fetch_queries(next_head, next, half ^ 1);
      team.warps([&](const Warp &warp) {
        const int mine = warp.index * 16 * M, row = from + mine;
        if (row >= sight.seen(lesser(first + N, t) - 1))
          return;
        add_queries(warp, sight, row, first, keys + mine * kStep<E>,
                    values + mine * kStep<E>, queries + half * N * kStep<E>,
                    douts + half * N * kStep<E>, logs + half * N,
                    logs + (2 + half) * N, states[warp]);
      });
      first = next;
      head = next_head;
    }
    team.warps([&](const Warp &warp) {
      const int mine = warp.index * 16 * M * kStep<E>;
      if constexpr (kKeys)
        write_rows<E>(warp, keys + mine, states[warp].dk, [&](int, int, int) {
          return static_cast<float>(g.a.scale);
        });
      if constexpr (kValues)
        write_rows<E>(warp, values + mine, states[warp].dv,
                      [](int, int, int) { return 1.0f; });
    });
    if constexpr (kKeys)
      store_tile<E>(team, b.dk + group[7] + from * g.a.k.row, g.a.k, keys,
                    kRows, s - from, e);
    if constexpr (kValues)
      store_tile<E>(team, b.dv + group[8] + from * g.a.v.row, g.a.v, values,
                    kRows, s - from, e);
  }
};

} // namespace meshard::MESHARD_DEVICE

#endif // MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_VJP_INL_H
