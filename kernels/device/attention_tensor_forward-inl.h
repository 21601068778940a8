// Attention on tensor cores, forward: a warp has 16 M queries. What separates
// the warps of a team: they read the tiles of keys and values that all of them
// fetched before the last barrier (the end of warps()), and write to nobody's
// memory but their own rows of `queries`, which no other warp reads; a tile is
// fetched to where the one before last was, with which all were done at that
// barrier.
#ifndef MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_FORWARD_INL_H
#define MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_FORWARD_INL_H

#include "meshard/kernels/device/attention_tensor-inl.h"

namespace meshard::MESHARD_DEVICE {

// Where there are few queries, so few teams that most of a GPU would wait, each
// head's keys are shared out: a team has a part of them and leaves here, of
// each row and part, the sum of 2^(score - top) v, top (in units of log 2), and
// the sum of 2^(score - top).
struct KeyParts {
  int count = 1, keys = 0; // keys of a part: whole tiles
  float *sums = nullptr;   // [rows, count, E]
  float *tops = nullptr;   // [rows, count]
  float *totals = nullptr;

  // Of `heads` heads whose s keys are read in tiles of n. 512 teams of a warp
  // are four for each SM of the largest GPUs.
  KeyParts(int64_t heads, int64_t s, int64_t n) {
    const int64_t tiles = std::max<int64_t>((s + n - 1) / n, 1),
                  wanted = std::clamp<int64_t>(
                      512 / std::max<int64_t>(heads, 1), 1, tiles);
    const int64_t each = (tiles + wanted - 1) / wanted;
    keys = static_cast<int>(each * n);
    count = static_cast<int>((tiles + each - 1) / each);
  }
  KeyParts() = default;
  int64_t bytes(int64_t rows, int64_t e) const {
    return aligned(rows * count * (e + 2) *
                   static_cast<int64_t>(sizeof(float)));
  }
  KeyParts in(void *workspace, int64_t rows, int64_t e) const {
    KeyParts parts = *this;
    parts.sums = static_cast<float *>(workspace);
    parts.tops = parts.sums + rows * count * e;
    parts.totals = parts.tops + rows * count;
    return parts;
  }
};

template <class T, class Tiles, bool kParts> struct TensorForward : Tiles {
  using Tiles::E, Tiles::M, Tiles::N, Tiles::kRows;
  static constexpr int64_t kBytes = Tiles::bytes(kRows + 4 * N);

  AttentionTiles g;
  Points<5> heads; // q, k, v, o, lse
  const T *q, *k, *v;
  T *o;
  Side lse;
  KeyParts parts;

  // Of a warp's rows: sum over keys of 2^(score - top) v, the largest score,
  // and a lane's part of the sum of 2^(score - top).
  struct State {
    Sums sums[M][E / 8];
    RowNumbers top[M], sum[M];
  };

  // What the keys from `from` on add to a warp's rows, of which the first is
  // query `row`.
  MESHARD_BODY void add_keys(const Warp &warp, const Sight &sight, int row,
                             int from, const T *queries, const T *keys,
                             const T *values, State &mine) const {
    const auto scale = static_cast<float>(g.a.scale * kLog2E);
    Sums p[M][N / 8];
    clear(warp, p);
    multiply_rows<E>(warp, p, queries, keys);
    if (from + N > sight.seen(row)) {
      each_sum(warp, p, [&](int r, int c, float &x) {
        x = from + c < sight.seen(row + r) ? x : -infinity<float>();
      });
    }
    MESHARD_UNROLL for (int m = 0; m < M; ++m) {
      RowNumbers most;
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 4; ++i) {
          if (i % 2 == 0)
            most[lane][i / 2] = mine.top[m][lane][i / 2];
          MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) most[lane][i / 2] =
              ::fmaxf(most[lane][i / 2], p[m][n][lane][i]);
        }
      });
      fold_rows(warp, most, [](float a, float b) { return ::fmaxf(a, b); });
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int h = 0; h < 2; ++h) {
          // Where nothing is seen yet, no score is finite, and each 2^ is to be
          // 0.
          const float top =
              most[lane][h] == -infinity<float>() ? 0 : most[lane][h] * scale;
          const float shrink = power_of_two(mine.top[m][lane][h] * scale - top);
          float sum = mine.sum[m][lane][h] * shrink;
          MESHARD_UNROLL for (int n = 0; n < N / 8; ++n) {
            MESHARD_UNROLL for (int i = 2 * h; i < 2 * h + 2; ++i) sum +=
                p[m][n][lane][i] = power_of_two(p[m][n][lane][i] * scale - top);
          }
          MESHARD_UNROLL for (int n = 0; n < E / 8; ++n) {
            MESHARD_UNROLL for (int i = 2 * h; i < 2 * h + 2; ++i)
                mine.sums[m][n][lane][i] *= shrink;
          }
          mine.sum[m][lane][h] = sum;
          mine.top[m][lane][h] = most[lane][h];
        }
      });
    }
    multiply_columns<E, T>(warp, mine.sums, p, values);
  }

  MESHARD_BODY void operator()(const Team &team) const {
    const int t = static_cast<int>(g.a.t), s = static_cast<int>(g.a.s),
              e = static_cast<int>(g.a.e);
    const int tiles = (t + kRows - 1) / kRows;
    const int64_t place = kParts ? team.index() / parts.count : team.index(),
                  head = place / tiles;
    const auto at = heads.at(head);
    // The last queries see most: they begin.
    const int first = (tiles - 1 - static_cast<int>(place % tiles)) * kRows;
    const Sight sight(g);
    const int part = kParts ? static_cast<int>(team.index() % parts.count) : 0,
              begin = part * parts.keys;
    const int seen = sight.seen(lesser(first + kRows, t) - 1),
              end = kParts ? lesser(seen, begin + parts.keys) : seen;
    T *queries = team.memory<T>(), *keys = queries + kRows * kStep<E>,
      *values = keys + 2 * N * kStep<E>; // keys, values: two tiles
    const auto fetch_keys = [&](int from, int turn) {
      fetch_tile<Tiles, N>(team, keys + turn * N * kStep<E>,
                           k + at[1] + from * g.a.k.row, g.a.k, s - from, e);
      fetch_tile<Tiles, N>(team, values + turn * N * kStep<E>,
                           v + at[2] + from * g.a.v.row, g.a.v, s - from, e);
    };
    fetch_tile<Tiles, kRows>(team, queries, q + at[0] + first * g.a.q.row,
                             g.a.q, t - first, e);
    if (begin < end)
      fetch_keys(begin, 0);
    PerWarp<State> states;
    team.warps([&](const Warp &warp) {
      State &mine = states[warp];
      clear(warp, mine.sums);
      warp.lanes([&](int lane) {
        MESHARD_UNROLL for (int i = 0; i < 2 * M; ++i) {
          mine.top[i / 2][lane][i % 2] = -infinity<float>();
          mine.sum[i / 2][lane][i % 2] = 0;
        }
      });
    });
    for (int from = begin, turn = 0; from < end; from += N, turn ^= 1) {
      if (from + N < end)
        fetch_keys(from + N, turn ^ 1); // where the tile before this one was,
                                        // with which all are done
      team.warps([&](const Warp &warp) {
        const int mine = warp.index * 16 * M, row = first + mine;
        if (row >= t || from >= sight.seen(lesser(row + 16 * M, t) - 1))
          return;
        add_keys(warp, sight, row, from, queries + mine * kStep<E>,
                 keys + turn * N * kStep<E>, values + turn * N * kStep<E>,
                 states[warp]);
      });
    }
    team.warps([&](const Warp &warp) {
      State &mine = states[warp];
      const int row = first + warp.index * 16 * M;
      MESHARD_UNROLL for (int m = 0; m < M; ++m)
          fold_rows(warp, mine.sum[m], [](float a, float b) { return a + b; });
      // f(query, top, sum) for each of the warp's rows, once.
      const auto each_row = [&](const auto &f) {
        warp.lanes([&](int lane) {
          MESHARD_UNROLL for (int i = 0; i < 2 * M; ++i) {
            const int r = row + i / 2 * 16 + row_of(lane, i % 2 * 2);
            if (lane % 4 == 0 && r < t)
              f(r, mine.top[i / 2][lane][i % 2], mine.sum[i / 2][lane][i % 2]);
          }
        });
      };
      if constexpr (kParts) {
        const auto at_part = [&](int r) {
          return (head * t + r) * parts.count + part;
        };
        each_sum(warp, mine.sums, [&](int r, int c, float &x) {
          if (row + r < t)
            parts.sums[at_part(row + r) * E + c] = x;
        });
        each_row([&](int r, float top, float sum) {
          parts.tops[at_part(r)] = top * static_cast<float>(g.a.scale * kLog2E);
          parts.totals[at_part(r)] = sum;
        });
      } else {
        write_rows<E>(warp, queries + warp.index * 16 * M * kStep<E>, mine.sums,
                      [&](int lane, int m, int h) {
                        return sight.seen(row + m * 16 + row_of(lane, 2 * h)) >
                                       0
                                   ? 1 / mine.sum[m][lane][h]
                                   : 0.0f;
                      });
        each_row([&](int r, float top, float sum) {
          lse.set(at[4] + r * g.a.lse.row,
                  top * static_cast<float>(g.a.scale) + ::logf(sum));
        });
      }
    });
    if constexpr (!kParts)
      store_tile<E>(team, o + at[3] + first * g.a.o.row, g.a.o, queries, kRows,
                    t - first, e);
  }
};

// Puts the parts of a row together: one element of the result.
template <class T, int E> struct TogetherBody {
  AttentionTiles g;
  Points<5> heads;
  KeyParts parts;
  T *o;
  Side lse;

  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t row = i / g.a.e, c = i % g.a.e, r = row % g.a.t;
    const auto at = heads.at(row / g.a.t);
    const float *tops = parts.tops + row * parts.count,
                *totals = parts.totals + row * parts.count;
    float top = -infinity<float>(), sum = 0, total = 0;
    for (int p = 0; p < parts.count; ++p)
      top = ::fmaxf(top, tops[p]);
    for (int p = 0; p < parts.count; ++p) {
      const float weight =
          top == -infinity<float>() ? 0 : power_of_two(tops[p] - top);
      sum += weight * parts.sums[(row * parts.count + p) * E + c];
      total += weight * totals[p];
    }
    o[at[3] + r * g.a.o.row + c * g.a.o.e] =
        store<T>(g.seen(r) > 0 ? sum / total : 0.0f);
    if (c == 0)
      lse.set(at[4] + r * g.a.lse.row,
              top * static_cast<float>(1 / kLog2E) + ::logf(total));
  }
};

} // namespace meshard::MESHARD_DEVICE

#endif // MESHARD_KERNELS_DEVICE_ATTENTION_TENSOR_FORWARD_INL_H
