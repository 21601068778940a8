// The inner loops of attention: products whose tiles stay in registers, and the passes over a block of scores between
// them. Every element of a product is one chain of multiply-adds, taken up again from one block of keys to the next, and
// a key that a query does not see adds exact zeros: a query's results do not depend on the queries beside it.
#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/attention_blocks.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/attention.h"
#include "meshard/kernels/cpu/vec-inl.h"

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

// Rows of a tile of two vectors: as many as the registers hold, 32 with AVX-512 and else 16.
constexpr int kRows = HWY_MAX_BYTES >= 64 ? 14 : 6;

HWY_INLINE int64_t panel_width() { return 2 * lanes(); }
static_assert(2 * HWY_MAX_BYTES / sizeof(float) <= kPanel);

// An operand of a product, read at x[row * i + column * j].
struct Operand {
  const float* x;
  int64_t row, column;
};

// R rows and N vectors of columns of c (+)= a b over k.
template <int R, int N, bool kAdd>
HWY_INLINE void tile(Operand a, const float* b, int64_t ldb, int64_t k, float* c, int64_t ldc) {
  const int64_t step = lanes();
  V sum[R][N];
  MESHARD_UNROLL for (int r = 0; r < R; ++r) {
    MESHARD_UNROLL for (int j = 0; j < N; ++j) sum[r][j] = kAdd ? hn::LoadU(D(), c + r * ldc + j * step) : set(0);
  }
  for (int64_t i = 0; i < k; ++i) {
    V line[N];
    MESHARD_UNROLL for (int j = 0; j < N; ++j) line[j] = hn::LoadU(D(), b + i * ldb + j * step);
    MESHARD_UNROLL for (int r = 0; r < R; ++r) {
      const V factor = set(a.x[r * a.row + i * a.column]);
      MESHARD_UNROLL for (int j = 0; j < N; ++j) sum[r][j] = hn::MulAdd(factor, line[j], sum[r][j]);
    }
  }
  MESHARD_UNROLL for (int r = 0; r < R; ++r) {
    MESHARD_UNROLL for (int j = 0; j < N; ++j) hn::StoreU(sum[r][j], D(), c + r * ldc + j * step);
  }
}

// One row of tiles, `n` columns in panels: b's panel p begins at p * panel and has rows of ldb elements.
template <int R, bool kAdd>
void tiles(Operand a, const float* b, int64_t panel, int64_t ldb, int64_t n, int64_t k, float* c, int64_t ldc) {
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + 2 * step <= n; j += 2 * step, b += panel) tile<R, 2, kAdd>(a, b, ldb, k, c + j, ldc);
  for (; j < n; j += step, b += panel / 2) tile<R, 1, kAdd>(a, b, ldb, k, c + j, ldc);
}

template <int R, bool kAdd>
HWY_INLINE void tiles_of(int64_t rows, Operand a, const float* b, int64_t panel, int64_t ldb, int64_t n, int64_t k,
                         float* c, int64_t ldc) {
  if (rows == R) return tiles<R, kAdd>(a, b, panel, ldb, n, k, c, ldc);
  if constexpr (R > 1) tiles_of<R - 1, kAdd>(rows, a, b, panel, ldb, n, k, c, ldc);
}

// run(first, count): the rows in tiles of nearly equal height.
template <class F>
HWY_INLINE void each_tile(int64_t rows, const F& run) {
  const int64_t parts = (rows + kRows - 1) / kRows;
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t first = rows * p / parts;
    run(first, rows * (p + 1) / parts - first);
  }
}

// Queries times the keys of the block that begins at `begin` and has `count`; columns that no query of a tile sees are
// left out.
HWY_INLINE void scores(const AttentionRows& at, Operand a, const float* panels, int64_t begin, int64_t count, float* c,
                       int64_t ldc) {
  const int64_t w = panel_width();
  each_tile(at.rows, [&](int64_t first, int64_t rows) {
    const int64_t seen = std::min(count, at.seen(first + rows - 1) - begin);
    if (seen <= 0) return;
    tiles_of<kRows, false>(rows, {a.x + first * a.row, a.row, a.column}, panels + begin / w * at.e * w, at.e * w, w,
                           (seen + w - 1) / w * w, at.e, c + first * ldc, ldc);
  });
}

// y [rows, width] (+)= weights [rows, count] times b's rows.
template <bool kAdd>
HWY_INLINE void weighted(const AttentionRows& at, const float* weights, int64_t ld, const float* b, int64_t ldb,
                         int64_t begin, int64_t count, float* y) {
  each_tile(at.rows, [&](int64_t first, int64_t rows) {
    const int64_t seen = std::max<int64_t>(0, std::min(count, at.seen(first + rows - 1) - begin));
    tiles_of<kRows, kAdd>(rows, {weights + first * ld, ld, 1}, b, panel_width(), ldb, at.width, seen,
                          y + first * at.width, at.width);
  });
}

// y [count, width] += the weights turned round times b's rows; queries that see no key of a tile are left out.
HWY_INLINE void weighted_turned(const AttentionRows& at, const float* weights, int64_t ld, const float* b, int64_t ldb,
                                int64_t begin, int64_t count, float* y) {
  each_tile(count, [&](int64_t first, int64_t keys) {
    const int64_t from = at.causal ? std::max<int64_t>(0, begin + first + 1 - at.first) : 0;
    if (from >= at.rows) return;
    tiles_of<kRows, true>(keys, {weights + from * ld + first, 1, ld}, b + from * ldb, panel_width(), ldb, at.width,
                          at.rows - from, y + first * at.width, at.width);
  });
}

// x = scale x for n elements; the largest of them.
HWY_INLINE float scale_and_max(float* x, int64_t n, float scale) {
  const int64_t step = lanes();
  const V factor = set(scale);
  V top = set(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    const V v = hn::Mul(factor, hn::LoadU(D(), x + i));
    hn::StoreU(v, D(), x + i);
    top = hn::Max(top, v);
  }
  float most = hn::GetLane(hn::MaxOfLanes(D(), top));
  for (; i < n; ++i) most = std::max(most, x[i] *= scale);
  return most;
}

// x = e^(x - top) for n elements; their sum.
HWY_INLINE float weigh(float* x, int64_t n, float top) {
  const int64_t step = lanes();
  const V vtop = set(top);
  V sum = set(0);
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    const V v = exp_below_88(hn::Sub(hn::LoadU(D(), x + i), vtop));
    hn::StoreU(v, D(), x + i);
    sum = hn::Add(sum, v);
  }
  if (i < n) {
    const V v = exp_below_88(hn::Sub(load_some(x + i, n - i, -std::numeric_limits<float>::infinity()), vtop));
    store_some(v, x + i, n - i);
    sum = hn::Add(sum, v);
  }
  return add_lanes(sum);
}

int64_t seen_by(const AttentionRows& at) { return at.rows > 0 ? std::max<int64_t>(0, at.seen(at.rows - 1)) : 0; }

// What a block of queries has of the keys from `begin` on, `count` of them.
void forward_keys(const AttentionForward& f, int64_t begin, int64_t count) {
  const AttentionRows& at = f.at;
  float *top = f.lse, *sum = f.sum;
  scores(at, {f.q, f.q_row, f.q_e}, f.keys, begin, count, f.scores, kKeys);
  for (int64_t i = 0; i < at.rows; ++i) {
    float* x = f.scores + i * kKeys;
    const int64_t n = std::max<int64_t>(0, std::min(count, at.seen(i) - begin));
    if (n > 0) {
      const float higher = std::max(top[i], scale_and_max(x, n, at.scale));
      float keep = 1;
      if (begin > 0 && higher != top[i]) {  // what was added up so far was weighed against a lower top
        keep = std::exp(top[i] - higher);
        const V factor = set(keep);
        map(f.o + i * at.width, f.o + i * at.width, at.width, [&](V v) HWY_ATTR { return hn::Mul(v, factor); });
      }
      top[i] = higher;
      sum[i] = sum[i] * keep + weigh(x, n, higher);
    }
    std::fill(x + n, x + count, 0.0f);
  }
  const float* values = f.values + begin * f.ld_values;
  if (begin == 0) {
    weighted<false>(at, f.scores, kKeys, values, f.ld_values, begin, count, f.o);
  } else {
    weighted<true>(at, f.scores, kKeys, values, f.ld_values, begin, count, f.o);
  }
}

void forward(const AttentionForward* blocks, int64_t number) {
  int64_t most = 0;
  for (int64_t b = 0; b < number; ++b) {
    const AttentionForward& f = blocks[b];
    std::fill_n(f.lse, f.at.rows, -std::numeric_limits<float>::infinity());
    std::fill_n(f.sum, f.at.rows, 0.0f);
    if (seen_by(f.at) == 0) std::fill_n(f.o, f.at.rows * f.at.width, 0.0f);
    most = std::max(most, seen_by(f.at));
  }
  for (int64_t begin = 0; begin < most; begin += kKeys) {
    for (int64_t b = 0; b < number; ++b) {
      const int64_t count = std::min(kKeys, seen_by(blocks[b].at) - begin);
      if (count > 0) forward_keys(blocks[b], begin, count);
    }
  }
  for (int64_t b = 0; b < number; ++b) {
    const AttentionForward& f = blocks[b];
    for (int64_t i = 0; i < f.at.rows; ++i) {
      f.lse[i] += std::log(f.sum[i]);
      if (seen_by(f.at) == 0) continue;
      const V share = set(1 / f.sum[i]);
      float* o = f.o + i * f.at.width;
      map(o, o, f.at.width, [&](V v) HWY_ATTR { return hn::Mul(v, share); });
    }
  }
}

float dot(const float* x, const float* y, int64_t n) {
  return sum_of(x, y, n, [](V a, V b) HWY_ATTR { return hn::Mul(a, b); });
}

// y [columns] = the sum over rows of weight times row; N vectors at a time.
template <int N>
HWY_INLINE void weighted_rows(const float* weights, const float* rows, int64_t ld, int64_t count, float* y) {
  const int64_t step = lanes();
  V sum[N];
  MESHARD_UNROLL for (int j = 0; j < N; ++j) sum[j] = set(0);
  for (int64_t i = 0; i < count; ++i) {
    const V weight = set(weights[i]);
    MESHARD_UNROLL for (int j = 0; j < N; ++j) sum[j] = hn::MulAdd(weight, hn::LoadU(D(), rows + i * ld + j * step), sum[j]);
  }
  MESHARD_UNROLL for (int j = 0; j < N; ++j) hn::StoreU(sum[j], D(), y + j * step);
}

float one(const AttentionOne& f) {
  const int64_t step = lanes(), whole = f.e / step * step;
  for (int64_t j = 0; j < f.seen; ++j) f.scores[j] = dot(f.q, f.keys + j * f.ld_keys, f.e);
  const float top = f.seen > 0 ? scale_and_max(f.scores, f.seen, f.scale) : -std::numeric_limits<float>::infinity();
  const float sum = f.seen > 0 ? weigh(f.scores, f.seen, top) : 0;
  int64_t c = 0;
  for (; c + 4 * step <= whole; c += 4 * step) weighted_rows<4>(f.scores, f.values + c, f.ld_values, f.seen, f.o + c);
  for (; c < whole; c += step) weighted_rows<1>(f.scores, f.values + c, f.ld_values, f.seen, f.o + c);
  for (; c < f.e; ++c) {
    float value = 0;
    for (int64_t j = 0; j < f.seen; ++j) value += f.scores[j] * f.values[j * f.ld_values + c];
    f.o[c] = value;
  }
  if (f.seen > 0) {
    const V share = set(1 / sum);
    map(f.o, f.o, f.e, [&](V v) HWY_ATTR { return hn::Mul(v, share); });
  }
  return top + std::log(sum);
}

// p = e^(scale p - lse), dp = scale p (dp - total) for n elements.
HWY_INLINE void weigh_vjp(float* p, float* dp, int64_t n, float scale, float lse, float total) {
  const V factor = set(scale), vlse = set(lse), vtotal = set(total);
  map(p, p, n, [&](V v) HWY_ATTR { return exp_below_88(hn::Sub(hn::Mul(factor, v), vlse)); });
  map(p, dp, dp, n, [&](V vp, V vd) HWY_ATTR { return hn::Mul(hn::Mul(factor, vp), hn::Sub(vd, vtotal)); });
}

void backward_keys(const AttentionBackward& b, int64_t begin, int64_t count) {
  const AttentionRows& at = b.at;
  scores(at, {b.q, b.ld_q, 1}, b.key_panels, begin, count, b.p, kKeysBack);
  scores(at, {b.dout, b.ld_dout, 1}, b.value_panels, begin, count, b.dp, kKeysBack);
  for (int64_t i = 0; i < at.rows; ++i) {
    float *p = b.p + i * kKeysBack, *dp = b.dp + i * kKeysBack;
    const int64_t n = std::max<int64_t>(0, std::min(count, at.seen(i) - begin));
    weigh_vjp(p, dp, n, at.scale, b.lse[i], b.total[i]);
    std::fill(p + n, p + count, 0.0f);
    std::fill(dp + n, dp + count, 0.0f);
  }
  weighted_turned(at, b.p, kKeysBack, b.dout, b.ld_dout, begin, count, b.dv + begin * at.width);
  weighted_turned(at, b.dp, kKeysBack, b.q, b.ld_q, begin, count, b.dk + begin * at.width);
  const float* keys = b.keys + begin * b.ld_keys;
  if (begin == 0) {
    weighted<false>(at, b.dp, kKeysBack, keys, b.ld_keys, begin, count, b.dq);
  } else {
    weighted<true>(at, b.dp, kKeysBack, keys, b.ld_keys, begin, count, b.dq);
  }
}

void backward(const AttentionBackward* blocks, int64_t number) {
  int64_t most = 0;
  for (int64_t b = 0; b < number; ++b) {
    const AttentionRows& at = blocks[b].at;
    if (seen_by(at) == 0) std::fill_n(blocks[b].dq, at.rows * at.width, 0.0f);
    most = std::max(most, seen_by(at));
  }
  for (int64_t begin = 0; begin < most; begin += kKeysBack) {
    for (int64_t b = 0; b < number; ++b) {
      const int64_t count = std::min(kKeysBack, seen_by(blocks[b].at) - begin);
      if (count > 0) backward_keys(blocks[b], begin, count);
    }
  }
}

// Four rows of four elements become four columns.
HWY_INLINE void turn_four(const float* x, int64_t row, float* y, int64_t ldy) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t c = 0; c < 4; ++c) y[c * ldy + i] = x[i * row + c];
  }
#else
  const hn::FixedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> wide;
  const auto r0 = hn::LoadU(d, x), r1 = hn::LoadU(d, x + row);
  const auto r2 = hn::LoadU(d, x + 2 * row), r3 = hn::LoadU(d, x + 3 * row);
  const auto low01 = hn::BitCast(wide, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(wide, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(wide, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(wide, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, low01, low23)), d, y);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, low01, low23)), d, y + ldy);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, high01, high23)), d, y + 2 * ldy);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, high01, high23)), d, y + 3 * ldy);
#endif
}

void turn(const float* x, int64_t row, int64_t column, int64_t rows, int64_t e, float* panels) {
  const int64_t w = panel_width();
  for (int64_t first = 0; first < rows; first += w, panels += w * e) {
    const int64_t count = std::min(w, rows - first);
    const int64_t fours = column == 1 ? count / 4 * 4 : 0, whole = column == 1 ? e / 4 * 4 : 0;
    for (int64_t i = 0; i < fours; i += 4) {
      const float* from = x + (first + i) * row;
      for (int64_t c = 0; c < whole; c += 4) turn_four(from + c, row, panels + c * w + i, w);
      for (int64_t c = whole; c < e; ++c) {
        for (int64_t l = 0; l < 4; ++l) panels[c * w + i + l] = from[l * row + c];
      }
    }
    for (int64_t i = fours; i < count; ++i) {
      for (int64_t c = 0; c < e; ++c) panels[c * w + i] = x[(first + i) * row + c * column];
    }
    for (int64_t c = 0; count < w && c < e; ++c) std::fill(panels + c * w + count, panels + (c + 1) * w, 0.0f);
  }
}

AttentionFns attention_functions() { return {turn, forward, one, backward, dot}; }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace meshard::cpu {

HWY_EXPORT(attention_functions);
AttentionFns best_attention_functions() { return HWY_DYNAMIC_DISPATCH(attention_functions)(); }

}  // namespace meshard::cpu
#endif
