// Attention tile by tile: no more of the scores is ever held than one tile of
// them. Forward, a team has the queries of one tile and goes over the keys with
// a running largest score and sum; backward, one kernel makes dq the same way
// and another dk and dv, over all queries that share the keys. bf16 and f16 are
// multiplied on tensor cores (attention_tensor-inl.h). What follows here is for
// f32, f64 and rows of more than 256 elements: all sums are a thread's own, and
// tiles are as large as a team's memory takes.
#ifndef MESHARD_KERNELS_DEVICE_ATTENTION_INL_H
#define MESHARD_KERNELS_DEVICE_ATTENTION_INL_H

#include "meshard/kernels/device/attention_tensor_forward-inl.h"
#include "meshard/kernels/device/attention_tensor_vjp-inl.h"

namespace meshard::MESHARD_DEVICE {

constexpr int kAttentionThreads = 256;

// The global memory that a team uses where its own is too small, and how much.
struct TileMemory {
  std::byte *spill = nullptr;
  int64_t bytes = 0; // of a team

  template <class A> MESHARD_BODY A *of(const Team &team) const {
    if (spill == nullptr)
      return team.memory<A>();
    return reinterpret_cast<A *>(spill + team.index() * bytes);
  }
};

// n rows of e elements, copied into a tile; rows from `rows` on are zeros.
template <class T>
MESHARD_BODY void load_tile(const Team &team, Sum<T> *tile, const T *from,
                            HeadStrides step, int64_t n, int64_t rows,
                            int64_t e) {
  team.each(n * e, [&](int64_t i) {
    const int64_t r = i / e;
    tile[i] = r < rows ? load(from[r * step.row + i % e * step.e]) : Sum<T>(0);
  });
}

template <class A> MESHARD_BODY A row_dot(const A *x, const A *y, int64_t e) {
  A sum = 0;
  for (int64_t c = 0; c < e; ++c)
    sum += x[c] * y[c];
  return sum;
}

template <class T> struct AttentionBody {
  AttentionTiles g;
  Points<5> heads; // q, k, v, o, lse
  TileMemory memory;
  const T *q, *k, *v;
  T *o;
  Side lse;

  MESHARD_BODY void operator()(const Team &team) const {
    using A = Sum<T>;
    const int64_t tiles = (g.a.t + g.tile - 1) / g.tile, e = g.a.e, n = g.tile;
    const auto at = heads.at(team.index() / tiles);
    const int64_t first = team.index() % tiles * n,
                  rows = g.a.t - first < n ? g.a.t - first : n;
    A *queries = memory.of<A>(team); // [n, e]
    A *keys = queries + n * e;       // [n, e]; then the values of the same tile
    A *sums = keys + n * e;          // [n, e], of exp(score - top) v
    A *p = sums + n * e;             // [n, n]
    A *top = p + n * n, *sum = top + n, *shrink = sum + n; // [n]
    load_tile(team, queries, q + at[0] + first * g.a.q.row, g.a.q, n, rows, e);
    team.each(n * e, [&](int64_t i) { sums[i] = 0; });
    team.each(n, [&](int64_t i) {
      top[i] = -infinity<A>();
      sum[i] = 0;
    });
    for (int64_t from = 0; from < g.seen_by(first); from += n) {
      const int64_t there = g.a.s - from < n ? g.a.s - from : n;
      load_tile(team, keys, k + at[1] + from * g.a.k.row, g.a.k, n, there, e);
      team.each(n * n, [&](int64_t i) {
        const int64_t r = i / n, c = i % n;
        p[i] = r < rows && from + c < g.seen(first + r)
                   ? row_dot(queries + r * e, keys + c * e, e) *
                         static_cast<A>(g.a.scale)
                   : -infinity<A>();
      });
      team.each(n, [&](int64_t r) {
        A most = top[r], add = 0;
        for (int64_t c = 0; c < n; ++c)
          most = larger(most, p[r * n + c]);
        shrink[r] = top[r] == most ? A(1) : ::exp(top[r] - most);
        for (int64_t c = 0; c < n; ++c) {
          // Where nothing is seen yet, no score is finite.
          p[r * n + c] = p[r * n + c] == -infinity<A>()
                             ? A(0)
                             : ::exp(p[r * n + c] - most);
          add += p[r * n + c];
        }
        sum[r] = sum[r] * shrink[r] + add;
        top[r] = most;
      });
      load_tile(team, keys, v + at[2] + from * g.a.v.row, g.a.v, n, there, e);
      team.each(n * e, [&](int64_t i) {
        const int64_t r = i / e, c = i % e;
        A value = sums[i] * shrink[r];
        for (int64_t j = 0; j < n; ++j)
          value += p[r * n + j] * keys[j * e + c];
        sums[i] = value;
      });
    }
    team.each(rows * e, [&](int64_t i) {
      const int64_t r = i / e, c = i % e;
      o[at[3] + (first + r) * g.a.o.row + c * g.a.o.e] =
          store<T>(g.seen(first + r) > 0 ? sums[i] / sum[r] : A(0));
    });
    team.each(rows, [&](int64_t r) {
      lse.set(at[4] + (first + r) * g.a.lse.row, top[r] + ::log(sum[r]));
    });
  }
};

// What the two kernels of the gradient have in common. With p = exp(scale q k -
// lse) and D as in attention_rows-inl.h: dv = p^T do, ds = p (do v^T - D)
// scale, dq = ds k, dk = ds^T q.
template <class T> struct AttentionVjp {
  AttentionTiles g;
  Points<9> outer, inner; // heads of k, and those of q that share one: q, k, v,
                          // o, lse, do, dq, dk, dv
  TileMemory memory;
  const T *q, *k, *v, *dout;
  const Sum<T> *logs, *totals; // lse and D
  int64_t padded;              // rows of them for each head
  T *dq, *dk, *dv;

  // The p and ds of a tile of queries and one of keys, where each sees the
  // other; the tile's first query is row `at` of logs and totals.
  MESHARD_BODY void scores(const Team &team, int64_t first, int64_t rows,
                           int64_t from, int64_t there, int64_t at,
                           const Sum<T> *queries, const Sum<T> *douts,
                           const Sum<T> *keys, const Sum<T> *values, Sum<T> *p,
                           Sum<T> *ds) const {
    using A = Sum<T>;
    const int64_t n = g.tile, e = g.a.e;
    team.each(n * n, [&](int64_t i) {
      const int64_t r = i / n, c = i % n;
      A value = 0, slope = 0;
      if (r < rows && c < there && from + c < g.seen(first + r)) {
        value = ::exp(row_dot(queries + r * e, keys + c * e, e) *
                          static_cast<A>(g.a.scale) -
                      logs[at + r]);
        slope = value *
                (row_dot(douts + r * e, values + c * e, e) - totals[at + r]) *
                static_cast<A>(g.a.scale);
      }
      p[i] = value;
      ds[i] = slope;
    });
  }
};

template <class T> struct AttentionQueriesBody {
  AttentionVjp<T> b;

  MESHARD_BODY void operator()(const Team &team) const {
    using A = Sum<T>;
    const AttentionTiles &g = b.g;
    const int64_t tiles = (g.a.t + g.tile - 1) / g.tile, e = g.a.e, n = g.tile;
    const int64_t head = team.index() / tiles;
    const auto group = b.outer.at(head / b.inner.count),
               mine = b.inner.at(head % b.inner.count);
    const auto at = [&](size_t i) { return group[i] + mine[i]; };
    const int64_t first = team.index() % tiles * n,
                  rows = g.a.t - first < n ? g.a.t - first : n;
    A *queries = b.memory.template of<A>(team), *douts = queries + n * e,
      *keys = douts + n * e, *values = keys + n * e, *sums = values + n * e,
      *p = sums + n * e, *ds = p + n * n;
    load_tile(team, queries, b.q + at(0) + first * g.a.q.row, g.a.q, n, rows,
              e);
    load_tile(team, douts, b.dout + at(5) + first * g.a.o.row, g.a.o, n, rows,
              e);
    team.each(n * e, [&](int64_t i) { sums[i] = 0; });
    for (int64_t from = 0; from < g.seen_by(first); from += n) {
      const int64_t there = g.a.s - from < n ? g.a.s - from : n;
      load_tile(team, keys, b.k + at(1) + from * g.a.k.row, g.a.k, n, there, e);
      load_tile(team, values, b.v + at(2) + from * g.a.v.row, g.a.v, n, there,
                e);
      b.scores(team, first, rows, from, there, head * b.padded + first, queries,
               douts, keys, values, p, ds);
      team.each(n * e, [&](int64_t i) {
        const int64_t r = i / e, c = i % e;
        A value = sums[i];
        for (int64_t j = 0; j < n; ++j)
          value += ds[r * n + j] * keys[j * e + c];
        sums[i] = value;
      });
    }
    team.each(rows * e, [&](int64_t i) {
      b.dq[at(6) + (first + i / e) * g.a.q.row + i % e * g.a.q.e] =
          store<T>(sums[i]);
    });
  }
};

template <class T> struct AttentionKeysBody {
  AttentionVjp<T> b;

  MESHARD_BODY void operator()(const Team &team) const {
    using A = Sum<T>;
    const AttentionTiles &g = b.g;
    const int64_t tiles = (g.a.s + g.tile - 1) / g.tile, e = g.a.e, n = g.tile;
    const auto group = b.outer.at(team.index() / tiles);
    const int64_t from = team.index() % tiles * n,
                  there = g.a.s - from < n ? g.a.s - from : n;
    A *queries = b.memory.template of<A>(team), *douts = queries + n * e,
      *keys = douts + n * e, *values = keys + n * e, *dks = values + n * e,
      *dvs = dks + n * e, *p = dvs + n * e, *ds = p + n * n;
    load_tile(team, keys, b.k + group[1] + from * g.a.k.row, g.a.k, n, there,
              e);
    load_tile(team, values, b.v + group[2] + from * g.a.v.row, g.a.v, n, there,
              e);
    team.each(2 * n * e, [&](int64_t i) { dks[i] = 0; }); // and dvs behind it
    for (int64_t h = 0; h < b.inner.count; ++h) {
      const auto mine = b.inner.at(h);
      for (int64_t first = 0; first < g.a.t; first += n) {
        if (g.seen_by(first) <= from)
          continue;
        const int64_t rows = g.a.t - first < n ? g.a.t - first : n;
        load_tile(team, queries, b.q + group[0] + mine[0] + first * g.a.q.row,
                  g.a.q, n, rows, e);
        load_tile(team, douts, b.dout + group[5] + mine[5] + first * g.a.o.row,
                  g.a.o, n, rows, e);
        const int64_t head = team.index() / tiles * b.inner.count + h;
        b.scores(team, first, rows, from, there, head * b.padded + first,
                 queries, douts, keys, values, p, ds);
        team.each(n * e, [&](int64_t i) {
          const int64_t j = i / e, c = i % e;
          A dk = dks[i], dv = dvs[i];
          for (int64_t r = 0; r < n; ++r) {
            dk += ds[r * n + j] * queries[r * e + c];
            dv += p[r * n + j] * douts[r * e + c];
          }
          dks[i] = dk;
          dvs[i] = dv;
        });
      }
    }
    team.each(there * e, [&](int64_t i) {
      const int64_t row = from + i / e, c = i % e;
      b.dk[group[7] + row * g.a.k.row + c * g.a.k.e] = store<T>(dks[i]);
      b.dv[group[8] + row * g.a.v.row + c * g.a.v.e] = store<T>(dvs[i]);
    });
  }
};

// The largest tile of which `blocks` blocks [tile, e] and `squares` of [tile,
// tile], and some rows, fit a team's memory.
inline int64_t tile_elements(int64_t tile, int64_t e, int64_t blocks,
                             int64_t squares) {
  return blocks * tile * e + squares * tile * tile + 4 * tile;
}
inline int64_t tile_for(int64_t e, int64_t blocks, int64_t squares,
                        int64_t element_bytes) {
  int64_t tile = 32;
  while (tile > 4 &&
         tile_elements(tile, e, blocks, squares) * element_bytes > kSharedBytes)
    tile /= 2;
  return tile;
}

// The tiles of a call, which may bring the place where its queries begin.
struct PlacedTiles {
  AttentionTiles g;
  bool moved;
  AttentionTiles operator()(const KernelCall &call, int64_t tile) const {
    AttentionTiles tiles = g;
    tiles.tile = tile;
    if (moved)
      tiles.start = static_cast<const int32_t *>(call.operands.back());
    return tiles;
  }
};

inline Prepared attention(const KernelSpec &spec) {
  const KernelOperand &o = spec.results[0], &lse = spec.results[1];
  const AttentionTiles g{attention_shape(spec, o, lse)};
  std::vector<int> factors = key_heads(spec);
  for (int f : shared_heads(spec))
    factors.push_back(f);
  const Points<5> heads = points_of<5>(
      spec, factors,
      {&spec.operands[0], &spec.operands[1], &spec.operands[2], &o, &lse});
  const Dtype dtype = lse.type.dtype;
  const PlacedTiles placed{g, has_start(spec)};
  return for_float(o.type.dtype, [&]<class T>() -> Prepared {
    if constexpr (kNarrowType<T>) {
      if (on_tensor_cores(g.a)) {
        return for_tiles(g.a.e, [&]<int E>() -> Prepared {
          using Tilings = AttentionTilings<E>;
          const KeyParts parts(heads.count, g.a.s, Tilings::Few::N);
          if (g.a.t <= Tilings::Few::kRows && parts.count > 1) {
            const int64_t rows = heads.count * g.a.t;
            return {
                parts.bytes(rows, E), [=](const KernelCall &call) {
                  const KeyParts here = parts.in(call.workspace, rows, E);
                  const Side log_sums = side(call.results[1], dtype);
                  const TensorForward<T, typename Tilings::Few, true> body{
                      {},
                      placed(call, 1),
                      heads,
                      in<T>(call, 0),
                      in<T>(call, 1),
                      in<T>(call, 2),
                      out<T>(call),
                      log_sums,
                      here};
                  run_tiles(heads.count, g.a.t, body, call.stream, here.count);
                  run_points(rows * g.a.e,
                             TogetherBody<T, E>{placed(call, 1), heads, here,
                                                out<T>(call), log_sums},
                             call.stream);
                }};
          }
          return {
              0, [=](const KernelCall &call) {
                const TensorForward<T, typename Tilings::Forward, false> body{
                    {},
                    placed(call, 1),
                    heads,
                    in<T>(call, 0),
                    in<T>(call, 1),
                    in<T>(call, 2),
                    out<T>(call),
                    side(call.results[1], dtype),
                    {}};
                run_tiles(heads.count, g.a.t, body, call.stream);
              }};
        });
      }
    }
    constexpr auto kSize = static_cast<int64_t>(sizeof(Sum<T>));
    const int64_t tile = tile_for(g.a.e, 3, 1, kSize),
                  bytes = aligned(tile_elements(tile, g.a.e, 3, 1) * kSize);
    const int64_t teams = heads.count * ((g.a.t + tile - 1) / tile);
    const bool spills = bytes > kSharedBytes;
    return {spills ? bytes * teams : 0, [=](const KernelCall &call) {
              const TileMemory memory{
                  spills ? static_cast<std::byte *>(call.workspace) : nullptr,
                  bytes};
              run_teams(teams, kAttentionThreads, spills ? 0 : bytes,
                        AttentionBody<T>{placed(call, tile), heads, memory,
                                         in<T>(call, 0), in<T>(call, 1),
                                         in<T>(call, 2), out<T>(call),
                                         side(call.results[1], dtype)},
                        call.stream);
            }};
  });
}

inline Prepared attention_vjp(const KernelSpec &spec) {
  const KernelOperand &o = spec.operands[3], &lse = spec.operands[4];
  const AttentionTiles g{attention_shape(spec, o, lse)};
  std::array<const KernelOperand *, 9> blocks;
  for (size_t i = 0; i < 6; ++i)
    blocks[i] = &spec.operands[i];
  for (size_t i = 0; i < 3; ++i)
    blocks[6 + i] = &spec.results[i];
  const Points<9> outer = points_of<9>(spec, key_heads(spec), blocks),
                  inner = points_of<9>(spec, shared_heads(spec), blocks);
  const Dtype dtype = lse.type.dtype;
  const PlacedTiles placed{g, has_start(spec)};
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    const AttentionRows<T> rows(outer.count * inner.count, g.a.t);
    const auto run_rows = [=](const KernelCall &call, Sum<T> unit) {
      using Body = AttentionRowsBody<T>;
      run_teams(rows.heads * rows.padded / Body::kRows, kWarp * Body::kWarps, 0,
                Body{placed(call, 1), outer, inner, in<T>(call, 3),
                     in<T>(call, 5), side(call.operands[4], dtype), rows.padded,
                     unit, rows.logs(call.workspace),
                     rows.totals(call.workspace)},
                call.stream);
    };
    if constexpr (kNarrowType<T>) {
      if (on_tensor_cores(g.a)) {
        return for_tiles(g.a.e, [&]<int E>() -> Prepared {
          return {
              rows.bytes(), [=](const KernelCall &call) {
                using Tilings = AttentionTilings<E>;
                run_rows(call, static_cast<float>(kLog2E));
                const TensorVjp<T> b{placed(call, 1),
                                     outer,
                                     inner,
                                     in<T>(call, 0),
                                     in<T>(call, 1),
                                     in<T>(call, 2),
                                     in<T>(call, 5),
                                     rows.logs(call.workspace),
                                     rows.totals(call.workspace),
                                     rows.padded,
                                     out<T>(call, 0),
                                     out<T>(call, 1),
                                     out<T>(call, 2)};
                run_tiles(rows.heads, g.a.t,
                          TensorQueries<T, typename Tilings::Queries>{{}, b},
                          call.stream);
                if constexpr (Tilings::kTogether) {
                  run_tiles(
                      outer.count, g.a.s,
                      TensorKeys<T, typename Tilings::Keys, true, true>{{}, b},
                      call.stream);
                } else {
                  run_tiles(
                      outer.count, g.a.s,
                      TensorKeys<T, typename Tilings::Keys, true, false>{{}, b},
                      call.stream);
                  run_tiles(
                      outer.count, g.a.s,
                      TensorKeys<T, typename Tilings::Keys, false, true>{{}, b},
                      call.stream);
                }
              }};
        });
      }
    }
    constexpr auto kSize = static_cast<int64_t>(sizeof(Sum<T>));
    const int64_t tile = tile_for(g.a.e, 6, 2, kSize),
                  bytes = aligned(tile_elements(tile, g.a.e, 6, 2) * kSize);
    const int64_t of_queries = rows.heads * ((g.a.t + tile - 1) / tile),
                  of_keys = outer.count * ((g.a.s + tile - 1) / tile);
    const bool spills = bytes > kSharedBytes;
    return {rows.bytes() + (spills ? bytes * std::max(of_queries, of_keys) : 0),
            [=](const KernelCall &call) {
              run_rows(call, Sum<T>(1));
              const TileMemory memory{
                  spills
                      ? static_cast<std::byte *>(call.workspace) + rows.bytes()
                      : nullptr,
                  bytes};
              const AttentionVjp<T> b{placed(call, tile),
                                      outer,
                                      inner,
                                      memory,
                                      in<T>(call, 0),
                                      in<T>(call, 1),
                                      in<T>(call, 2),
                                      in<T>(call, 5),
                                      rows.logs(call.workspace),
                                      rows.totals(call.workspace),
                                      rows.padded,
                                      out<T>(call, 0),
                                      out<T>(call, 1),
                                      out<T>(call, 2)};
              run_teams(of_queries, kAttentionThreads, spills ? 0 : bytes,
                        AttentionQueriesBody<T>{b}, call.stream);
              run_teams(of_keys, kAttentionThreads, spills ? 0 : bytes,
                        AttentionKeysBody<T>{b}, call.stream);
            }};
  });
}

} // namespace meshard::MESHARD_DEVICE

#endif // MESHARD_KERNELS_DEVICE_ATTENTION_INL_H
