#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/reduce.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/reduce.h"
#include "meshard/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

// NaN once seen stays.
struct Larger {
  V operator()(V s, V x) const { return hn::IfThenElse(hn::Or(hn::Gt(x, s), hn::IsNaN(x)), x, s); }
};
struct Smaller {
  V operator()(V s, V x) const { return hn::IfThenElse(hn::Or(hn::Lt(x, s), hn::IsNaN(x)), x, s); }
};
struct Plus {
  V operator()(V s, V x) const { return hn::Add(s, x); }
};
struct PlusSquare {
  V operator()(V s, V x) const { return hn::MulAdd(x, x, s); }
};

template <class T>
float sum_row(const T* x, int64_t n, float) {
  return sum_of(x, n, 0, [](V v) HWY_ATTR { return v; });
}
template <class T>
float squares_row(const T* x, int64_t n, float) {
  return sum_of(x, n, 0, [](V v) HWY_ATTR { return hn::Mul(v, v); });
}
template <class T>
float exp_row(const T* x, int64_t n, float m) {
  const V top = set(m);
  return sum_of(x, n, -std::numeric_limits<float>::infinity(), [=](V v) HWY_ATTR { return exp(hn::Sub(v, top)); });
}

template <class F, class T>
float extreme_row(const T* x, int64_t n, float neutral) {
  HWY_ALIGN float lane[kMaxLanes];
  const F f;
  hn::Store(fold(x, n, set(neutral), neutral, f, f), D(), lane);
  V best = set(neutral);
  for (int64_t i = 0; i < lanes(); ++i) best = f(best, set(lane[i]));
  return hn::GetLane(best);
}
template <class T>
float max_row(const T* x, int64_t n, float) {
  return extreme_row<Larger>(x, n, -std::numeric_limits<float>::infinity());
}
template <class T>
float min_row(const T* x, int64_t n, float) {
  return extreme_row<Smaller>(x, n, std::numeric_limits<float>::infinity());
}

// y[j] = factor times f folded over rows of x, where[row] + j.
template <class F, class T>
void columns(const T* x, const FoldRows& where, int64_t cols, float neutral, float factor, float* y) {
  const F f;
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + 4 * step <= cols; j += 4 * step) {
    V s0 = set(neutral), s1 = s0, s2 = s0, s3 = s0;
    for (int64_t o = 0; o < where.outer; ++o) {
      const T* row = x + o * where.outer_stride + j;
      for (int64_t r = 0; r < where.rows; ++r, row += where.stride) {
        s0 = f(s0, load(row));
        s1 = f(s1, load(row + step));
        s2 = f(s2, load(row + 2 * step));
        s3 = f(s3, load(row + 3 * step));
      }
    }
    hn::StoreU(hn::Mul(s0, set(factor)), D(), y + j);
    hn::StoreU(hn::Mul(s1, set(factor)), D(), y + j + step);
    hn::StoreU(hn::Mul(s2, set(factor)), D(), y + j + 2 * step);
    hn::StoreU(hn::Mul(s3, set(factor)), D(), y + j + 3 * step);
  }
  for (; j < cols; j += step) {
    const int64_t n = cols - j < step ? cols - j : step;
    V s = set(neutral);
    for (int64_t o = 0; o < where.outer; ++o) {
      for (int64_t r = 0; r < where.rows; ++r) {
        s = f(s, load_some(x + o * where.outer_stride + r * where.stride + j, n, 0));
      }
    }
    store_some(hn::Mul(s, set(factor)), y + j, n);
  }
}

template <class T>
Reductions<T> reductions() {
  const float inf = std::numeric_limits<float>::infinity();
  return {{sum_row<T>, columns<Plus, T>, 0},
          {squares_row<T>, columns<PlusSquare, T>, 0},
          {exp_row<T>, nullptr, 0},
          {max_row<T>, columns<Larger, T>, -inf},
          {min_row<T>, columns<Smaller, T>, inf}};
}
Reductions<float> reductions_f32() { return reductions<float>(); }
Reductions<bfloat16> reductions_bf16() { return reductions<bfloat16>(); }
Reductions<float16> reductions_f16() { return reductions<float16>(); }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {
namespace {

HWY_EXPORT(reductions_f32);
HWY_EXPORT(reductions_bf16);
HWY_EXPORT(reductions_f16);

constexpr int64_t kBlock = 8192;  // elements summed in f32; sums of blocks are added in f64

template <class T>
double join(const FoldFns<T>& op, double a, double b) {
  if (op.neutral == 0) return a + b;
  return (op.neutral < 0 ? b > a : b < a) || b != b ? b : a;
}

template <class T>
double reduce_row(const FoldFns<T>& op, const T* x, int64_t n, float m) {
  double total = op.neutral;
  for (int64_t i = 0; i < n; i += kBlock) total = join(op, total, op.row(x + i, std::min(kBlock, n - i), m));
  return total;
}

// All of x to one number: partial results of the blocks, in `partial`, are joined in order whatever the threads.
template <class T>
double reduce_all(const FoldFns<T>& op, const T* x, int64_t n, float m, double* partial, int threads) {
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  parallel_parts(threads, blocks, 2, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) partial[b] = op.row(x + b * kBlock, std::min(kBlock, n - b * kBlock), m);
  });
  double total = op.neutral;
  for (int64_t b = 0; b < blocks; ++b) total = join(op, total, partial[b]);
  return total;
}

// Kept and folded loops that alternate, the innermost kept: [b, h, t, e] -> [h, e].
template <class T>
Prepared reduce_columns(const FoldFns<T>& op, const std::vector<Loop<2>>& kept, const std::vector<Loop<2>>& folded,
                        double factor, int threads) {
  if (op.columns == nullptr || kept.empty() || kept.back().step != Offsets<2>{1, 1}) return {};
  if (kept.size() > 2 || folded.empty() || folded.size() > 2) return {};
  FoldRows where{1, 0, folded.back().size, folded.back().step[0]};
  if (folded.size() == 2) {
    where.outer = folded[0].size;
    where.outer_stride = folded[0].step[0];
  }
  const int64_t columns = kept.back().size, n = where.outer * where.rows;
  const Loop<2> outer = kept.size() == 2 ? kept[0] : Loop<2>{1, {0, 0}};
  return {0, [=](const KernelCall& call) {
            parallel_parts(threads, outer.size, kGrain / std::max<int64_t>(n * columns, 1) + 1,
                           [&](int64_t, int64_t begin, int64_t end) {
                             for (int64_t i = begin; i < end; ++i) {
                               op.columns(in<T>(call, 0) + i * outer.step[0], where, columns, op.neutral,
                                          static_cast<float>(factor), out<float>(call) + i * outer.step[1]);
                             }
                           });
          }};
}

template <class T>
Prepared reduce_of(const KernelSpec& spec, const FoldFns<T>& op, double factor) {
  const bool shifted = spec.operands.size() == 2;  // sum_exp: its m has the result's shape
  if (shifted && spec.operands[1].dims != spec.results[0].dims) return {};
  const std::array<const KernelOperand*, 2> blocks = {&spec.operands[0], &spec.results[0]};
  const Nest<2> kept(spec, factors_of(spec.results[0]), blocks),
      folded(spec, reduced_factors(spec, spec.results[0]), blocks);
  if (kept.loops().size() > 1 || folded.loops().size() > 1) {
    return shifted ? Prepared() : reduce_columns(op, kept.loops(), folded.loops(), factor, spec.threads);
  }
  const int64_t rows = kept.points(), n = folded.points();
  const Loop<2> outer = rows > 1 ? kept.loops()[0] : Loop<2>{1, {n, 1}};
  const Loop<2> inner = n > 1 ? folded.loops()[0] : Loop<2>{1, {1, 0}};
  const int threads = spec.threads;
  if (outer.step[1] != 1 && rows > 1) return {};
  if (inner.step[0] == 1 && rows == 1) {
    const int64_t workspace = (n + kBlock - 1) / kBlock * static_cast<int64_t>(sizeof(double));
    return {workspace, [=](const KernelCall& call) {
              const float m = shifted ? in<float>(call, 1)[0] : 0;
              const double total =
                  reduce_all(op, in<T>(call, 0), n, m, static_cast<double*>(call.workspace), threads);
              out<float>(call)[0] = static_cast<float>(total * factor);
            }};
  }
  if (n == 0 || rows == 0 || (inner.step[0] == 1 && outer.step[0] == n)) {
    return {
        0, [=](const KernelCall& call) {
          parallel_parts(threads, rows, kGrain / std::max<int64_t>(n, 1) + 1, [&](int64_t, int64_t begin, int64_t end) {
            for (int64_t r = begin; r < end; ++r) {
              const float m = shifted ? in<float>(call, 1)[r] : 0;
              out<float>(call)[r] = static_cast<float>(reduce_row(op, in<T>(call, 0) + r * n, n, m) * factor);
            }
          });
        }};
  }
  if (outer.step[0] == 1 && inner.step[0] == rows && op.columns != nullptr && !shifted) {
    return {0, [=](const KernelCall& call) {
              parallel_parts(threads, rows, kGrain / std::max<int64_t>(n, 1) + 64,
                             [&](int64_t, int64_t begin, int64_t end) {
                               op.columns(in<T>(call, 0) + begin, {1, 0, n, rows}, end - begin, op.neutral,
                                          static_cast<float>(factor), out<float>(call) + begin);
                             });
            }};
  }
  return {};
}

// pick(table) gives the reduction of the table for the spec's type.
template <class Pick>
Prepared reduce(const KernelSpec& spec, const Pick& pick, double factor = 1) {
  if (all_f32(spec)) return reduce_of<float>(spec, pick(HWY_DYNAMIC_DISPATCH(reductions_f32)()), factor);
  KernelSpec rest = spec;
  rest.operands.erase(rest.operands.begin());
  const Dtype from = spec.operands[0].type.dtype;
  if (!is_narrow(from) || !all_f32(rest)) return {};
  if (from == Dtype::bf16) return reduce_of<bfloat16>(spec, pick(HWY_DYNAMIC_DISPATCH(reductions_bf16)()), factor);
  return reduce_of<float16>(spec, pick(HWY_DYNAMIC_DISPATCH(reductions_f16)()), factor);
}

}  // namespace

Prepared sum(const KernelSpec& spec) { return reduce(spec, [](const auto& f) { return f.sum; }); }
Prepared sum_squares(const KernelSpec& spec) { return reduce(spec, [](const auto& f) { return f.sum_squares; }); }
Prepared sum_exp(const KernelSpec& spec) { return reduce(spec, [](const auto& f) { return f.sum_exp; }); }
Prepared max(const KernelSpec& spec) { return reduce(spec, [](const auto& f) { return f.max; }); }
Prepared min(const KernelSpec& spec) { return reduce(spec, [](const auto& f) { return f.min; }); }

Prepared mean(const KernelSpec& spec) {
  double count = 1;
  for (int f : reduced_factors(spec, spec.results[0]))
    count *= static_cast<double>(spec.factors[static_cast<size_t>(f)].global);
  return reduce(spec, [](const auto& f) { return f.sum; }, 1 / count);
}

}  // namespace meshard::cpu
#endif
