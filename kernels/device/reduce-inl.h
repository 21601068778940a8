// Reductions over factors. Few or far-apart terms: a team has 32 neighbouring results, each the work of some of its
// threads. Else a team has one result. The order of a sum depends on sizes alone.
#ifndef MESHARD_KERNELS_DEVICE_REDUCE_INL_H
#define MESHARD_KERNELS_DEVICE_REDUCE_INL_H

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

enum class Fold : uint8_t { sum, max, min, sum_squares, sum_exp, logsumexp };

// The numbers of a fold in progress: of logsumexp the largest so far and the sum of exponentials beneath it.
template <class A>
struct FoldState {
  A value, sum;
};

template <class T>
MESHARD_BODY FoldState<Sum<T>> fold_start(Fold fold) {
  using A = Sum<T>;
  if constexpr (std::is_same_v<T, int32_t>) {
    if (fold == Fold::max) return {INT32_MIN, 0};
    if (fold == Fold::min) return {INT32_MAX, 0};
  } else {
    if (fold == Fold::max || fold == Fold::logsumexp) return {-infinity<A>(), 0};
    if (fold == Fold::min) return {infinity<A>(), 0};
  }
  return {0, 0};
}

// The sum of exponentials beneath `top`, of one that was beneath `was`.
template <class A>
MESHARD_BODY A lowered(A sum, A was, A top) {
  return was == top ? sum : sum * ::exp(was - top);
}

template <class A>
MESHARD_BODY FoldState<A> fold_join(Fold fold, FoldState<A> a, FoldState<A> b) {
  switch (fold) {
    case Fold::max: return {b.value > a.value || b.value != b.value ? b.value : a.value, 0};
    case Fold::min: return {b.value < a.value || b.value != b.value ? b.value : a.value, 0};
    case Fold::logsumexp: {
      const A top = larger(a.value, b.value);
      return {top, lowered(a.sum, a.value, top) + lowered(b.sum, b.value, top)};
    }
    default: return {a.value + b.value, 0};
  }
}

// One more element; `m` is what sum_exp takes off.
template <class A>
MESHARD_BODY FoldState<A> fold_one(Fold fold, FoldState<A> so_far, A x, A m) {
  switch (fold) {
    case Fold::sum_squares: return {so_far.value + x * x, 0};
    case Fold::sum_exp: return {so_far.value + static_cast<A>(::exp(x - m)), 0};
    case Fold::logsumexp: return fold_join(fold, so_far, {x, 1});
    default: return fold_join(fold, so_far, {x, 0});
  }
}

template <class T>
struct ReduceBody {
  using A = Sum<T>;
  Fold fold;
  Points<3> kept, folded;  // x, m, y
  const T *x, *m;
  T* y;
  double factor;
  int64_t columns;  // results of a team, a power of two

  MESHARD_BODY void operator()(const Team& team) const {
    auto* parts = team.memory<FoldState<A>>();  // [strip][column]
    const int64_t first = team.index() * columns, strips = team.threads() / columns;
    team.each(team.threads(), [&](int64_t thread) {
      const int64_t column = thread % columns, strip = thread / columns;
      FoldState<A> so_far = fold_start<T>(fold);
      if (first + column < kept.count) {
        const auto at = kept.at(first + column);
        for (int64_t i = strip; i < folded.count; i += strips) {
          const auto here = folded.at(i);
          const A value = load(x[at[0] + here[0]]), off = m != nullptr ? load(m[at[1] + here[1]]) : A(0);
          so_far = fold_one(fold, so_far, value, off);
        }
      }
      parts[thread] = so_far;
    });
    for (int64_t half = strips / 2; half > 0; half /= 2) {
      team.each(half * columns, [&](int64_t i) { parts[i] = fold_join(fold, parts[i], parts[i + half * columns]); });
    }
    team.each(columns, [&](int64_t column) {
      if (first + column >= kept.count) return;
      A value = parts[column].value;
      if (fold == Fold::logsumexp) value = value + static_cast<A>(::log(static_cast<double>(parts[column].sum)));
      if (factor != 1) value *= static_cast<A>(factor);
      y[kept.at(first + column)[2]] = store<T>(value);
    });
  }
};

inline Prepared prepare_reduce(const KernelSpec& spec, Fold fold, double factor = 1) {
  const bool two = spec.operands.size() > 1;
  const KernelOperand &x = spec.operands[0], &m = spec.operands[two ? 1 : 0], &y = spec.results[0];
  const Points<3> kept = points_of<3>(spec, factors_of(y), {&x, &m, &y});
  const Points<3> folded = points_of<3>(spec, reduced_factors(spec, y), {&x, &m, &y});
  // Neighbouring threads read neighbouring elements: of one result, or of results that are next to one another.
  const bool along = folded.loops > 0 && folded.step[folded.loops - 1][0] == 1;
  const int threads = along && folded.count < 64 ? 32 : kRowThreads;
  const int64_t columns = along && folded.count >= 64 ? 1 : 32;
  const int64_t teams = (kept.count + columns - 1) / columns;
  return for_any(y.type.dtype, [&]<class T>() -> Prepared {
    const int64_t bytes = threads * static_cast<int64_t>(sizeof(FoldState<Sum<T>>));
    return {0, [=](const KernelCall& call) {
              run_teams(teams, threads, bytes,
                        ReduceBody<T>{fold, kept, folded, in<T>(call, 0), two ? in<T>(call, 1) : nullptr, out<T>(call),
                                      factor, columns},
                        call.stream);
            }};
  });
}

template <Fold fold>
Prepared reduce(const KernelSpec& spec) {
  return prepare_reduce(spec, fold);
}

inline Prepared mean(const KernelSpec& spec) {
  double count = 1;
  for (int f : reduced_factors(spec, spec.results[0])) {
    count *= static_cast<double>(spec.factors[static_cast<size_t>(f)].global);
  }
  return prepare_reduce(spec, Fold::sum, 1 / count);
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_REDUCE_INL_H
