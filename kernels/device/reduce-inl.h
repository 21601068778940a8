// Reductions over factors. Few or far-apart terms: a team has 32 neighbouring results, each the work of some of its
// threads. Else a team has one result. Few results of many terms are made in pieces by more teams, whose states are put
// together after. The order of a sum depends on sizes alone.
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

// What has been folded becomes a result.
template <class T>
struct FoldEnd {
  Fold fold;
  double factor;

  MESHARD_BODY T operator()(FoldState<Sum<T>> folded) const {
    using A = Sum<T>;
    A value = folded.value;
    if (fold == Fold::logsumexp) value = value + static_cast<A>(::log(static_cast<double>(folded.sum)));
    if (factor != 1) value *= static_cast<A>(factor);
    return store<T>(value);
  }
};

// A team's threads as strips of neighbouring columns: element(column, i) for the i of a strip, the strips put together
// by halves, and end(column, state).
template <class T, class Element, class End>
MESHARD_BODY void fold_columns(const Team& team, Fold fold, int64_t columns, int64_t begin, int64_t end_i,
                               const Element& element, const End& end) {
  auto* parts = team.memory<FoldState<Sum<T>>>();  // [strip][column]
  const int64_t strips = team.threads() / columns;
  team.each(team.threads(), [&](int64_t thread) {
    FoldState<Sum<T>> so_far = fold_start<T>(fold);
    for (int64_t i = begin + thread / columns; i < end_i; i += strips) so_far = element(thread % columns, i, so_far);
    parts[thread] = so_far;
  });
  for (int64_t half = strips / 2; half > 0; half /= 2) {
    team.each(half * columns, [&](int64_t i) { parts[i] = fold_join(fold, parts[i], parts[i + half * columns]); });
  }
  team.each(columns, [&](int64_t column) { end(column, parts[column]); });
}

// A piece of the terms of `columns` neighbouring results. Of one piece comes the result, of several a state each, which
// JoinBody puts together.
template <class T>
struct ReduceBody {
  using State = FoldState<Sum<T>>;
  FoldEnd<T> end;
  Points<3> kept, folded;  // x, m, y
  const T *x, *m;
  T* y;
  int64_t columns;        // results of a team, a power of two
  int64_t pieces, piece;  // how many, and the terms of one
  State* states;          // [piece][result], where there are several

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t number = team.index() % pieces, first = team.index() / pieces * columns;
    const int64_t begin = number * piece, last = begin + piece < folded.count ? begin + piece : folded.count;
    const int64_t here = kept.count - first < columns ? kept.count - first : columns;
    fold_columns<T>(
        team, end.fold, columns, begin, last,
        [&](int64_t column, int64_t i, State so_far) {
          if (column >= here) return so_far;
          const auto at = kept.at(first + column), term = folded.at(i);
          const A off = m != nullptr ? load(m[at[1] + term[1]]) : A(0);
          return fold_one(end.fold, so_far, load(x[at[0] + term[0]]), off);
        },
        [&](int64_t column, State state) {
          if (column >= here) return;
          if (pieces > 1) {
            states[number * kept.count + first + column] = state;
          } else {
            y[kept.at(first + column)[2]] = end(state);
          }
        });
  }
};

template <class T>
struct JoinBody {
  using State = FoldState<Sum<T>>;
  FoldEnd<T> end;
  Points<3> kept;
  const State* states;
  T* y;
  int64_t columns, pieces;

  MESHARD_BODY void operator()(const Team& team) const {
    const int64_t first = team.index() * columns;
    fold_columns<T>(
        team, end.fold, columns, 0, pieces,
        [&](int64_t column, int64_t i, State so_far) {
          if (first + column >= kept.count) return so_far;
          return fold_join(end.fold, so_far, states[i * kept.count + first + column]);
        },
        [&](int64_t column, State state) {
          if (first + column < kept.count) y[kept.at(first + column)[2]] = end(state);
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
  const int64_t teams = (kept.count + columns - 1) / columns, pieces = pieces_of(folded.count, teams, threads / columns);
  return for_any(y.type.dtype, [&]<class T>() -> Prepared {
    using State = FoldState<Sum<T>>;
    const int64_t bytes = threads * static_cast<int64_t>(sizeof(State));
    const int64_t kept_bytes = pieces > 1 ? pieces * kept.count * static_cast<int64_t>(sizeof(State)) : 0;
    return {kept_bytes, [=](const KernelCall& call) {
              const FoldEnd<T> end{fold, factor};
              auto* states = static_cast<State*>(call.workspace);
              run_teams(teams * pieces, threads, bytes,
                        ReduceBody<T>{end, kept, folded, in<T>(call, 0), two ? in<T>(call, 1) : nullptr, out<T>(call),
                                      columns, pieces, (folded.count + pieces - 1) / pieces, states},
                        call.stream);
              if (pieces == 1) return;
              run_teams(teams, threads, bytes, JoinBody<T>{end, kept, states, out<T>(call), columns, pieces}, call.stream);
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
