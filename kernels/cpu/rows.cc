// Softmax, norms, cross-entropy and rope: a row stays in cache between its passes.
#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/rows.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/rows.h"
#include "meshard/kernels/cpu/vec-inl.h"

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class T>
void softmax(const T* x, int64_t n, int64_t d, float* y) {
  for (int64_t r = 0; r < n; ++r, x += d, y += d) {
    const V top = set(max_of(x, d));
    map(x, y, d, [&](V v) HWY_ATTR { return exp_below_88(hn::Sub(v, top)); });
    const V share = set(1 / sum_of(y, d, 0, [](V v) HWY_ATTR { return v; }));
    map(y, y, d, [&](V v) HWY_ATTR { return hn::Mul(v, share); });
  }
}

template <class T>
void softmax_vjp(const T* y, const T* dy, int64_t n, int64_t d, T* dx) {
  for (int64_t r = 0; r < n; ++r, y += d, dy += d, dx += d) {
    const V dot = set(sum_of(y, dy, d, [](V a, V b) HWY_ATTR { return hn::Mul(a, b); }));
    map(y, dy, dx, d, [&](V a, V b) HWY_ATTR { return hn::Mul(a, hn::Sub(b, dot)); });
  }
}

template <class T>
void norm(const T* x, const float* weight, const float* bias, float eps, int64_t n, int64_t d, T* y, float* mean,
          float* rstd) {
  const float part = 1 / static_cast<float>(d);
  for (int64_t r = 0; r < n; ++r, x += d, y += d) {
    const float centre = mean == nullptr ? 0 : part * sum_of(x, d, 0, [](V v) HWY_ATTR { return v; });
    const V middle = set(centre);
    // Pads are the centre itself: they add nothing.
    const float variance = part * sum_of(x, d, centre, [&](V v) HWY_ATTR {
                             const V off = hn::Sub(v, middle);
                             return hn::Mul(off, off);
                           });
    rstd[r] = 1 / std::sqrt(variance + eps);
    const V scale = set(rstd[r]);
    if (mean == nullptr) {
      map(x, weight, y, d, [&](V v, V w) HWY_ATTR { return hn::Mul(hn::Mul(v, scale), w); });
    } else {
      mean[r] = centre;
      map(x, weight, bias, y, d,
          [&](V v, V w, V b) HWY_ATTR { return hn::MulAdd(hn::Mul(hn::Sub(v, middle), scale), w, b); });
    }
  }
}

template <class T>
void norm_vjp(const T* x, const float* weight, const float* mean, const float* rstd, const T* dy, int64_t n, int64_t d,
              T* dx, float* dweight, float* dbias, float* row) {
  const float part = 1 / static_cast<float>(d);
  for (int64_t r = 0; r < n; ++r, x += d, dy += d, dx += d) {
    const V middle = set(mean == nullptr ? 0 : mean[r]), scale = set(rstd[r]);
    const auto normal = [&](V v) HWY_ATTR { return hn::Mul(hn::Sub(v, middle), scale); };
    map(x, dy, dweight, dweight, d, [&](V v, V g, V sum) HWY_ATTR { return hn::MulAdd(g, normal(v), sum); });
    float dot = 0, sum = 0;
    // Holds dy weight until the row's sums are known: dx itself where it is f32.
    float* held = row;
    if constexpr (std::is_same_v<T, float>) held = dx;
    map(dy, weight, held, d, [](V g, V w) HWY_ATTR { return hn::Mul(g, w); });
    dot = part * sum_of(x, held, d, [&](V v, V g) HWY_ATTR { return hn::Mul(g, normal(v)); });
    if (mean != nullptr) {
      map(dy, dbias, dbias, d, [](V g, V s) HWY_ATTR { return hn::Add(g, s); });
      sum = part * sum_of(held, d, 0, [](V g) HWY_ATTR { return g; });
    }
    const V along = set(dot), common = set(sum);
    map(x, held, dx, d,
        [&](V v, V g) HWY_ATTR { return hn::Mul(scale, hn::Sub(hn::Sub(g, common), hn::Mul(normal(v), along))); });
  }
}

template <class T>
void cross_entropy(const T* x, const int32_t* targets, int64_t begin, int64_t n, int64_t d, float* nll,
                   float* lse) {
  for (int64_t r = 0; r < n; ++r, x += d) {
    const float top = max_of(x, d);
    const V vtop = set(top);
    const float sum = sum_of(x, d, -kInfinity, [&](V v) HWY_ATTR { return exp_below_88(hn::Sub(v, vtop)); });
    lse[r] = top + std::log(sum);
    const int64_t target = targets[r] - begin;
    nll[r] = lse[r] - (target >= 0 && target < d ? static_cast<float>(x[target]) : 0);
  }
}

template <class T>
void cross_entropy_vjp(const T* x, const int32_t* targets, int64_t begin, const float* lse, const float* dnll,
                       int64_t n, int64_t d, T* dx) {
  for (int64_t r = 0; r < n; ++r, x += d, dx += d) {
    const V total = set(lse[r]), scale = set(dnll[r]);
    const int64_t target = targets[r] - begin;
    const bool here = target >= 0 && target < d;
    const auto share = [&](V v) HWY_ATTR { return hn::Mul(scale, exp_below_88(hn::Sub(v, total))); };
    // Rounded once, and read before dx takes the place of x.
    const float hit = here ? hn::GetLane(share(set(static_cast<float>(x[target])))) - dnll[r] : 0;
    map(x, dx, d, share);
    if (here) dx[target] = static_cast<T>(hit);
  }
}

template <class T>
void rotate(const T* x, const float* cosines, const float* sines, int64_t half, T* y) {
  map(x, x + half, cosines, sines, y, y + half, half, [](V low, V high, V c, V s, V* first, V* second) HWY_ATTR {
    *first = hn::NegMulAdd(high, s, hn::Mul(low, c));
    *second = hn::MulAdd(low, s, hn::Mul(high, c));
  });
}

template <class T>
RowFns<T> row_functions() {
  return {softmax<T>, softmax_vjp<T>, norm<T>, norm_vjp<T>, cross_entropy<T>, cross_entropy_vjp<T>, rotate<T>};
}
RowFns<float> rows_f32() { return row_functions<float>(); }
RowFns<bfloat16> rows_bf16() { return row_functions<bfloat16>(); }
RowFns<float16> rows_f16() { return row_functions<float16>(); }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <memory>

#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {
namespace {

HWY_EXPORT(rows_f32);
HWY_EXPORT(rows_bf16);
HWY_EXPORT(rows_f16);

template <class T>
RowFns<T> table() {
  if constexpr (std::is_same_v<T, float>) {
    return HWY_DYNAMIC_DISPATCH(rows_f32)();
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return HWY_DYNAMIC_DISPATCH(rows_bf16)();
  } else {
    return HWY_DYNAMIC_DISPATCH(rows_f16)();
  }
}

constexpr Dtype f32 = Dtype::f32, i32 = Dtype::i32;

int64_t row_grain(const Rows& rows) { return kGrain / std::max<int64_t>(rows.size, 1) + 1; }

template <class T>
Prepared norm(const KernelSpec& spec, bool centred) {
  const Rows rows = rows_of(spec.operands[0]);
  const auto eps = static_cast<float>(spec.attributes->number("eps", 1e-5));
  return {0, [=, f = table<T>().norm, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t, int64_t begin, int64_t end) {
              f(in<T>(call, 0) + begin * rows.size, in<float>(call, 1), centred ? in<float>(call, 2) : nullptr, eps,
                end - begin, rows.size, out<T>(call) + begin * rows.size, centred ? out<float>(call, 1) + begin : nullptr,
                out<float>(call, centred ? 2 : 1) + begin);
            });
          }};
}

// Each part of the rows sums its weight gradients by itself; the parts are then added in order.
template <class T>
Prepared norm_vjp(const KernelSpec& spec, bool centred) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t d = rows.size, parts = part_count(spec.threads, rows.count, row_grain(rows));
  // [parts, lines, d]: sums of dweight and of dbias, and where rows are narrow one of them in f32.
  constexpr int64_t lines = std::is_same_v<T, float> ? 2 : 3;
  return {parts * lines * d * static_cast<int64_t>(sizeof(float)),
          [=, f = table<T>().norm_vjp, threads = spec.threads](const KernelCall& call) {
            auto* sums = static_cast<float*>(call.workspace);
            std::fill_n(sums, parts * lines * d, 0.0f);
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t part, int64_t begin, int64_t end) {
              const float* mean = centred ? in<float>(call, 2) + begin : nullptr;
              float* mine = sums + part * lines * d;
              f(in<T>(call, 0) + begin * d, in<float>(call, 1), mean, in<float>(call, centred ? 3 : 2) + begin,
                in<T>(call, centred ? 4 : 3) + begin * d, end - begin, d, out<T>(call) + begin * d, mine, mine + d,
                mine + 2 * d);
            });
            for (int64_t which = 0; which < (centred ? 2 : 1); ++which) {
              float* total = out<float>(call, 1 + static_cast<size_t>(which));
              std::copy_n(sums + which * d, d, total);
              for (int64_t p = 1; p < parts; ++p) {
                for (int64_t i = 0; i < d; ++i) total[i] += sums[(p * lines + which) * d + i];
              }
            }
          }};
}

template <class T>
Prepared softmax_of(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return {0, [=, f = table<T>().softmax, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t, int64_t begin, int64_t end) {
              const int64_t at = begin * rows.size;
              f(in<T>(call, 0) + at, end - begin, rows.size, out<float>(call) + at);
            });
          }};
}

template <class T>
Prepared softmax_vjp_of(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return {0, [=, f = table<T>().softmax_vjp, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t, int64_t begin, int64_t end) {
              const int64_t at = begin * rows.size;
              f(in<T>(call, 0) + at, in<T>(call, 1) + at, end - begin, rows.size, out<T>(call) + at);
            });
          }};
}

template <class T>
Prepared cross_entropy_of(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return {0, [=, f = table<T>().cross_entropy, first = spec.factor("v").begin,
              threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t, int64_t begin, int64_t end) {
              f(in<T>(call, 0) + begin * rows.size, in<int32_t>(call, 1) + begin, first, end - begin, rows.size,
                out<float>(call) + begin, out<float>(call, 1) + begin);
            });
          }};
}

template <class T>
Prepared cross_entropy_vjp_of(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return {0, [=, f = table<T>().cross_entropy_vjp, first = spec.factor("v").begin,
              threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t, int64_t begin, int64_t end) {
              const int64_t at = begin * rows.size;
              f(in<T>(call, 0) + at, in<int32_t>(call, 1) + begin, first, in<float>(call, 2) + begin,
                in<float>(call, 3) + begin, end - begin, rows.size, out<T>(call) + at);
            });
          }};
}

// Cosines and sines of all positions are made once, and again where they start elsewhere: [t, 2, e / 2].
template <class T>
Prepared rope_of(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t e = rows.size, half = e / 2;
  MESHARD_CHECK(e % 2 == 0, "rope turns pairs: its last dimension must be even");
  const double theta = spec.attributes->number("theta", 10000), sign = spec.attributes->flag("inverse") ? -1 : 1;
  const auto t = static_cast<size_t>(factor_index(spec, "t"));
  const int64_t count = spec.factors[t].size, stride = factor_strides(spec, spec.operands[0])[t];
  struct Turns {
    int64_t first = -1;
    std::vector<float> at;
  };
  auto turns = std::make_shared<Turns>();
  turns->at.resize(static_cast<size_t>(count * e));
  const auto make = [=, at = turns->at.data()](int64_t first) {
    if (turns->first == first) return;
    turns->first = first;
    for (int64_t j = 0; j < half; ++j) {
      const double speed = std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(e));
      for (int64_t i = 0; i < count; ++i) {
        const double angle = static_cast<double>(first + i) * speed;
        at[i * e + j] = static_cast<float>(std::cos(angle));
        at[i * e + half + j] = static_cast<float>(sign * std::sin(angle));
      }
    }
  };
  const bool moved = spec.operands.size() > 1;
  const int64_t begin_here = spec.factors[t].begin;
  if (!moved) make(begin_here);
  return {0, [=, f = table<T>().rotate, threads = spec.threads](const KernelCall& call) {
            if (e == 0) return;
            if (moved) make(begin_here + in<int32_t>(call, 1)[0]);
            parallel_parts(threads, rows.count, row_grain(rows), [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t r = begin; r < end; ++r) {
                const float* turn = turns->at.data() + r * e / stride % count * e;
                f(in<T>(call, 0) + r * e, turn, turn + half, half, out<T>(call) + r * e);
              }
            });
          }};
}

// make for narrow rows where the other operands and results are of the types that follow, `half` being the rows' own.
template <class F>
Prepared for_rows(const KernelSpec& spec, std::initializer_list<Dtype> operands, std::initializer_list<Dtype> results, const F& make) {
  const Dtype half = spec.operands[0].type.dtype;
  return is_narrow(half) && has_types(spec, operands, results) ? for_narrow(half, make) : Prepared();
}

}  // namespace

Prepared softmax(const KernelSpec& spec) {
  if (all_f32(spec)) return softmax_of<float>(spec);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half}, {f32}, [&]<class T>() { return softmax_of<T>(spec); });
}

Prepared softmax_vjp(const KernelSpec& spec) {
  if (all_f32(spec)) return softmax_vjp_of<float>(spec);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, half}, {half}, [&]<class T>() { return softmax_vjp_of<T>(spec); });
}

Prepared layer_norm(const KernelSpec& spec) {
  if (all_f32(spec)) return norm<float>(spec, true);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, f32, f32}, {half, f32, f32}, [&]<class T>() { return norm<T>(spec, true); });
}

Prepared layer_norm_vjp(const KernelSpec& spec) {
  if (all_f32(spec)) return norm_vjp<float>(spec, true);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, f32, f32, f32, half}, {half, f32, f32}, [&]<class T>() { return norm_vjp<T>(spec, true); });
}

Prepared rms_norm(const KernelSpec& spec) {
  if (all_f32(spec)) return norm<float>(spec, false);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, f32}, {half, f32}, [&]<class T>() { return norm<T>(spec, false); });
}

Prepared rms_norm_vjp(const KernelSpec& spec) {
  if (all_f32(spec)) return norm_vjp<float>(spec, false);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, f32, f32, half}, {half, f32}, [&]<class T>() { return norm_vjp<T>(spec, false); });
}

Prepared cross_entropy(const KernelSpec& spec) {
  if (has_types(spec, {f32, i32}, {f32, f32})) return cross_entropy_of<float>(spec);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, i32}, {f32, f32}, [&]<class T>() { return cross_entropy_of<T>(spec); });
}

Prepared cross_entropy_vjp(const KernelSpec& spec) {
  if (has_types(spec, {f32, i32, f32, f32}, {f32})) return cross_entropy_vjp_of<float>(spec);
  const Dtype half = spec.operands[0].type.dtype;
  return for_rows(spec, {half, i32, f32, f32}, {half}, [&]<class T>() { return cross_entropy_vjp_of<T>(spec); });
}

Prepared rope(const KernelSpec& spec) {
  const Dtype dtype = spec.operands[0].type.dtype;
  if (is_narrow(dtype)) return for_narrow(dtype, [&]<class T>() { return rope_of<T>(spec); });
  return dtype == f32 ? rope_of<float>(spec) : Prepared();
}

}  // namespace meshard::cpu
#endif
