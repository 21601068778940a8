// Attention by blocks of queries: keys are laid out once per head so that all inner loops run along rows, and a block's
// scores [64, s] stay in cache between the two products.
#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/attention.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/attention.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

// R rows and N vectors of columns of the product, kept in registers. Each element is one chain of multiply-adds over k,
// so its value is the same in any tile.
template <int R, int N>
HWY_INLINE void tile(const float* a, int64_t row, int64_t column, const float* b, int64_t ldb, int64_t k, bool add,
                     float* c, int64_t ldc) {
  const int64_t step = lanes();
  V sum[R][N];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < N; ++j) sum[r][j] = add ? hn::LoadU(D(), c + r * ldc + j * step) : set(0);
  }
  for (int64_t i = 0; i < k; ++i) {
    V line[N];
    for (int j = 0; j < N; ++j) line[j] = hn::LoadU(D(), b + i * ldb + j * step);
    for (int r = 0; r < R; ++r) {
      const V factor = set(a[r * row + i * column]);
      for (int j = 0; j < N; ++j) sum[r][j] = hn::MulAdd(factor, line[j], sum[r][j]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < N; ++j) hn::StoreU(sum[r][j], D(), c + r * ldc + j * step);
  }
}

template <int N>
HWY_INLINE void panel(const float* a, int64_t row, int64_t column, const float* b, int64_t ldb, int64_t m, int64_t k,
                      bool add, float* c, int64_t ldc) {
  int64_t i = 0;
  for (; i + 6 <= m; i += 6) tile<6, N>(a + i * row, row, column, b, ldb, k, add, c + i * ldc, ldc);
  for (; i + 2 <= m; i += 2) tile<2, N>(a + i * row, row, column, b, ldb, k, add, c + i * ldc, ldc);
  for (; i < m; ++i) tile<1, N>(a + i * row, row, column, b, ldb, k, add, c + i * ldc, ldc);
}

void product(const float* a, int64_t row, int64_t column, const float* b, int64_t ldb, int64_t m, int64_t n, int64_t k,
             bool add, float* c, int64_t ldc) {
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + 2 * step <= n; j += 2 * step) panel<2>(a, row, column, b + j, ldb, m, k, add, c + j, ldc);
  for (; j < n; j += step) panel<1>(a, row, column, b + j, ldb, m, k, add, c + j, ldc);
}

float weigh(float* x, int64_t n, int64_t width, float scale, float* sum) {
  const V factor = set(scale);
  map(x, x, n, [&](V v) HWY_ATTR { return hn::Mul(factor, v); });
  const float top = max_of(x, n);
  const V vtop = set(top);
  map(x, x, n, [&](V v) HWY_ATTR { return exp(hn::Sub(v, vtop)); });
  *sum = sum_of(x, n, 0, [](V v) HWY_ATTR { return v; });
  for (int64_t i = n; i < width; ++i) x[i] = 0;
  return top;
}

void weigh_vjp(float* p, float* dp, int64_t n, int64_t width, float scale, float lse, float total) {
  const V factor = set(scale), vlse = set(lse), vtotal = set(total);
  map(p, p, n, [&](V v) HWY_ATTR { return exp(hn::Sub(hn::Mul(factor, v), vlse)); });
  map(p, dp, dp, n, [&](V vp, V vd) HWY_ATTR { return hn::Mul(hn::Mul(factor, vp), hn::Sub(vd, vtotal)); });
  for (int64_t i = n; i < width; ++i) p[i] = dp[i] = 0;
}

float dot(const float* x, const float* y, int64_t n) {
  return sum_of(x, y, n, [](V a, V b) HWY_ATTR { return hn::Mul(a, b); });
}

void times(const float* x, float factor, int64_t n, float* y) {
  const V f = set(factor);
  map(x, y, n, [&](V v) HWY_ATTR { return hn::Mul(v, f); });
}

AttentionFns attention_functions() { return {product, weigh, weigh_vjp, dot, times}; }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "meshard/kernels/cpu/ranges.h"
#include "meshard/kernels/reference/attention_shape.h"

namespace meshard::cpu {
namespace {

HWY_EXPORT(attention_functions);

constexpr int64_t kQueries = 64;  // queries in a block

int64_t padded(int64_t n) { return (n + kColumns - 1) / kColumns * kColumns; }

// [rows, e] at the given strides -> rows of `width`, zeros beyond e.
void pack(const float* x, HeadStrides at, int64_t rows, int64_t e, int64_t width, float* y) {
  for (int64_t i = 0; i < rows; ++i, y += width) {
    if (at.e == 1) {
      std::copy_n(x + i * at.row, e, y);
    } else {
      for (int64_t c = 0; c < e; ++c) y[c] = x[i * at.row + c * at.e];
    }
    std::fill(y + e, y + width, 0.0f);
  }
}

// The same turned round: [e, width], zeros beyond `rows`.
void pack_turned(const float* x, HeadStrides at, int64_t rows, int64_t e, int64_t width, float* y) {
  constexpr int64_t kTile = 16;
  for (int64_t first = 0; first < width; first += kTile) {
    const int64_t last = std::min(first + kTile, rows);
    for (int64_t c = 0; c < e; ++c) {
      for (int64_t i = first; i < last; ++i) y[c * width + i] = x[i * at.row + c * at.e];
      for (int64_t i = std::max(first, last); i < first + kTile; ++i) y[c * width + i] = 0;
    }
  }
}

void unpack(const float* x, int64_t width, HeadStrides at, int64_t rows, int64_t e, float* y) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < e; ++c) y[i * at.row + c * at.e] = x[i * width + c];
  }
}

// One head's queries begin .. begin + rows: local t.
struct Block {
  int64_t begin = 0, rows = 0;
  int64_t seen = 0;   // keys that the last of them sees
  int64_t width = 0;  // padded(seen)
};

Block query_block(const AttentionShape& a, int64_t i) {
  Block b;
  b.begin = i * kQueries;
  b.rows = std::min(kQueries, a.t - b.begin);
  b.seen = b.rows > 0 ? a.seen(b.begin + b.rows - 1) : 0;
  b.width = padded(b.seen);
  return b;
}

int64_t bytes(int64_t floats, int64_t parts) { return parts * floats * static_cast<int64_t>(sizeof(float)); }

}  // namespace

Prepared attention(const KernelSpec& spec) {
  if (!all_f32(spec)) return {};
  const KernelOperand &o = spec.results[0], &lse = spec.results[1];
  const AttentionShape a = attention_shape(spec, o, lse);
  std::vector<int> heads = key_heads(spec);
  for (int f : shared_heads(spec)) heads.push_back(f);
  const Nest<5> nest(spec, heads, {&spec.operands[0], &spec.operands[1], &spec.operands[2], &o, &lse});
  const int64_t blocks = (a.t + kQueries - 1) / kQueries, tasks = nest.points() * blocks;
  const int64_t s = padded(a.s), e = padded(a.e);
  const int64_t floats = 2 * s * e + kQueries * (s + e);  // a thread's keys, values, scores and results
  const AttentionFns f = HWY_DYNAMIC_DISPATCH(attention_functions)();
  return {bytes(floats, part_count(spec.threads, tasks, 1)), [=, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, tasks, 1, [&](int64_t part, int64_t begin, int64_t end) {
              float* keys = static_cast<float*>(call.workspace) + part * floats;  // [e, s]
              float* values = keys + s * e;                                       // [s, e]
              float* scores = values + s * e;                                     // [64, s]
              float* result = scores + kQueries * s;                              // [64, e]
              for (int64_t task = begin; task < end;) {
                const int64_t head = task / blocks, stop = std::min(end, (head + 1) * blocks);
                pieces<5>(nest.loops(), head, head + 1, [&](const Offsets<5>& at, int64_t) {
                  pack_turned(in<float>(call, 1) + at[1], a.k, a.s, a.e, s, keys);
                  pack(in<float>(call, 2) + at[2], a.v, a.s, a.e, e, values);
                  for (; task < stop; ++task) {
                    const Block b = query_block(a, task % blocks);
                    const float* q = in<float>(call, 0) + at[0] + b.begin * a.q.row;
                    f.product(q, a.q.row, a.q.e, keys, s, b.rows, b.width, a.e, false, scores, s);
                    float sums[kQueries];
                    for (int64_t i = 0; i < b.rows; ++i) {
                      const float top =
                          f.weigh(scores + i * s, a.seen(b.begin + i), b.width, static_cast<float>(a.scale), &sums[i]);
                      out<float>(call, 1)[at[4] + (b.begin + i) * a.lse.row] = top + std::log(sums[i]);
                    }
                    f.product(scores, s, 1, values, e, b.rows, e, b.seen, false, result, e);
                    for (int64_t i = 0; i < b.rows; ++i)
                      f.times(result + i * e, b.seen > 0 ? 1 / sums[i] : 0, e, result + i * e);
                    unpack(result, e, a.o, b.rows, a.e, out<float>(call) + at[3] + b.begin * a.o.row);
                  }
                });
              }
            });
          }};
}

// As in the reference: p = exp(scale q k - lse), D = sum over e of o do; dv = p^T do, ds = p (do v^T - D) scale, dq =
// ds k, dk = ds^T q. A thread has heads of k to itself, with all the heads of q that share them.
Prepared attention_vjp(const KernelSpec& spec) {
  if (!all_f32(spec)) return {};
  const AttentionShape a = attention_shape(spec, spec.operands[3], spec.operands[4]);
  std::array<const KernelOperand*, 9> operands;  // q, k, v, o, lse, do, dq, dk, dv
  for (size_t i = 0; i < 6; ++i) operands[i] = &spec.operands[i];
  for (size_t i = 0; i < 3; ++i) operands[6 + i] = &spec.results[i];
  const Nest<9> outer(spec, key_heads(spec), operands), inner(spec, shared_heads(spec), operands);
  const int64_t blocks = (a.t + kQueries - 1) / kQueries, s = padded(a.s), e = padded(a.e);
  const int64_t floats = 5 * s * e + kQueries * (2 * s + 4 * e);
  const AttentionFns f = HWY_DYNAMIC_DISPATCH(attention_functions)();
  return {bytes(floats, part_count(spec.threads, outer.points(), 1)),
          [=, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, outer.points(), 1, [&](int64_t part, int64_t begin, int64_t end) {
              float* keys = static_cast<float*>(call.workspace) + part * floats;  // [s, e]
              float* keys_turned = keys + s * e;                                  // [e, s]
              float* values_turned = keys_turned + s * e;                         // [e, s]
              float* dk = values_turned + s * e;                                  // [s, e]
              float* dv = dk + s * e;                                             // [s, e]
              float* p = dv + s * e;                                              // [64, s]
              float* dp = p + kQueries * s;                                       // [64, s]
              float* queries = dp + kQueries * s;                                 // [64, e]
              float* dout = queries + kQueries * e;                               // [64, e]
              float* o = dout + kQueries * e;                                     // [64, e]
              float* dq = o + kQueries * e;                                       // [64, e]
              const auto one_block = [&](const Offsets<9>& at, const Block& b) {
                pack(in<float>(call, 0) + at[0] + b.begin * a.q.row, a.q, b.rows, a.e, e, queries);
                pack(in<float>(call, 3) + at[3] + b.begin * a.o.row, a.o, b.rows, a.e, e, o);
                pack(in<float>(call, 5) + at[5] + b.begin * a.o.row, a.o, b.rows, a.e, e, dout);
                f.product(queries, e, 1, keys_turned, s, b.rows, b.width, a.e, false, p, s);
                f.product(dout, e, 1, values_turned, s, b.rows, b.width, a.e, false, dp, s);
                for (int64_t i = 0; i < b.rows; ++i) {
                  const float lse = in<float>(call, 4)[at[4] + (b.begin + i) * a.lse.row];
                  f.weigh_vjp(p + i * s, dp + i * s, a.seen(b.begin + i), b.width, static_cast<float>(a.scale), lse,
                              f.dot(o + i * e, dout + i * e, a.e));
                }
                f.product(p, 1, s, dout, e, b.seen, e, b.rows, true, dv, e);
                f.product(dp, 1, s, queries, e, b.seen, e, b.rows, true, dk, e);
                f.product(dp, s, 1, keys, e, b.rows, e, b.seen, false, dq, e);
                unpack(dq, e, a.q, b.rows, a.e, out<float>(call) + at[6] + b.begin * a.q.row);
              };
              pieces<9>(outer.loops(), begin, end, [&](Offsets<9> head, int64_t count) {
                for (int64_t h = 0; h < count; ++h) {
                  const float *k = in<float>(call, 1) + head[1], *v = in<float>(call, 2) + head[2];
                  pack(k, a.k, a.s, a.e, e, keys);
                  pack_turned(k, a.k, a.s, a.e, s, keys_turned);
                  pack_turned(v, a.v, a.s, a.e, s, values_turned);
                  std::fill_n(dk, 2 * s * e, 0.0f);
                  inner.each(head, [&](const Offsets<9>& at) {
                    for (int64_t i = 0; i < blocks; ++i) one_block(at, query_block(a, i));
                  });
                  unpack(dk, e, a.k, a.s, a.e, out<float>(call, 1) + head[7]);
                  unpack(dv, e, a.v, a.s, a.e, out<float>(call, 2) + head[8]);
                  if (!outer.loops().empty()) {
                    for (size_t x = 0; x < 9; ++x) head[x] += outer.loops().back().step[x];
                  }
                }
              });
            });
          }};
}

}  // namespace meshard::cpu
#endif
