// Every element of a product is one chain of sums over k in a fixed order, whatever columns a thread has.
#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/few_rows.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/few_rows.h"
#include "meshard/kernels/cpu/vec-inl.h"

#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

// Rows of w that are read side by side: as many streams as the hardware follows.
constexpr int kSide = 8;

// y += (x's elements k .. k + S) times S rows of w; kFirst: y = .
template <int R, int S, bool kFirst>
HWY_INLINE void add_rows(const FewRows& p, int64_t k) {
  const int64_t step = lanes();
  const float* w = p.w + k * p.ld_w;
  int64_t j = 0;
  for (; j + step <= p.n; j += step) {
    V line[S];
    MESHARD_UNROLL for (int s = 0; s < S; ++s) {
      line[s] = hn::LoadU(D(), w + s * p.ld_w + j);
      hwy::Prefetch(w + (s + S) * p.ld_w + j);  // the hardware stops at the ends of rows and pages
    }
    MESHARD_UNROLL for (int r = 0; r < R; ++r) {
      V sum = kFirst ? set(0) : hn::LoadU(D(), p.y + r * p.ld_y + j);
      MESHARD_UNROLL for (int s = 0; s < S; ++s) sum = hn::MulAdd(set(p.x[r * p.ld_x + k + s]), line[s], sum);
      hn::StoreU(sum, D(), p.y + r * p.ld_y + j);
    }
  }
  const int64_t left = p.n - j;
  if (left == 0) return;
  for (int r = 0; r < R; ++r) {
    V sum = kFirst ? set(0) : load_some(p.y + r * p.ld_y + j, left, 0);
    for (int s = 0; s < S; ++s) {
      sum = hn::MulAdd(set(p.x[r * p.ld_x + k + s]), load_some(w + s * p.ld_w + j, left, 0), sum);
    }
    store_some(sum, p.y + r * p.ld_y + j, left);
  }
}

template <int R>
void across_rows(const FewRows& p) {
  int64_t k = 0;
  if (p.k >= kSide) {
    add_rows<R, kSide, true>(p, 0);
    for (k = kSide; k + kSide <= p.k; k += kSide) add_rows<R, kSide, false>(p, k);
  } else {
    add_rows<R, 1, true>(p, 0);
    k = 1;
  }
  for (; k < p.k; ++k) add_rows<R, 1, false>(p, k);
}

void across(const FewRows& p) {
  switch (p.rows) {
    case 1: return across_rows<1>(p);
    case 2: return across_rows<2>(p);
    case 3: return across_rows<3>(p);
    default: return across_rows<4>(p);
  }
}

// The scalar products of R rows of x with C rows of w.
template <int R, int C>
HWY_INLINE void dots(const FewRows& p, int64_t j) {
  const int64_t step = lanes();
  V sum[R][C];
  MESHARD_UNROLL for (int r = 0; r < R; ++r) {
    MESHARD_UNROLL for (int c = 0; c < C; ++c) sum[r][c] = set(0);
  }
  int64_t k = 0;
  for (; k + step <= p.k; k += step) {
    V line[C];
    MESHARD_UNROLL for (int c = 0; c < C; ++c) {
      line[c] = hn::LoadU(D(), p.w + (j + c) * p.ld_w + k);
      hwy::Prefetch(p.w + (j + c + C) * p.ld_w + k);
    }
    MESHARD_UNROLL for (int r = 0; r < R; ++r) {
      const V x = hn::LoadU(D(), p.x + r * p.ld_x + k);
      MESHARD_UNROLL for (int c = 0; c < C; ++c) sum[r][c] = hn::MulAdd(x, line[c], sum[r][c]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) {
      V all = sum[r][c];
      if (k < p.k) {
        all = hn::MulAdd(load_some(p.x + r * p.ld_x + k, p.k - k, 0), load_some(p.w + (j + c) * p.ld_w + k, p.k - k, 0), all);
      }
      p.y[r * p.ld_y + j + c] = add_lanes(all);
    }
  }
}

template <int R>
void along_rows(const FewRows& p) {
  constexpr int kColumnsAtOnce = 4;
  int64_t j = 0;
  for (; j + kColumnsAtOnce <= p.n; j += kColumnsAtOnce) dots<R, kColumnsAtOnce>(p, j);
  for (; j < p.n; ++j) dots<R, 1>(p, j);
}

void along(const FewRows& p) {
  switch (p.rows) {
    case 1: return along_rows<1>(p);
    case 2: return along_rows<2>(p);
    case 3: return along_rows<3>(p);
    default: return along_rows<4>(p);
  }
}

FewRowsFns few_rows_functions() { return {across, along}; }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace meshard::cpu {

HWY_EXPORT(few_rows_functions);
FewRowsFns best_few_rows_functions() { return HWY_DYNAMIC_DISPATCH(few_rows_functions)(); }

}  // namespace meshard::cpu
#endif
