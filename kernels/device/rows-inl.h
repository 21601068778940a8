// Softmax, norms and losses: a team has a row. The gradients of a norm's weights are sums down columns.
#ifndef MESHARD_KERNELS_DEVICE_ROWS_INL_H
#define MESHARD_KERNELS_DEVICE_ROWS_INL_H

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

constexpr int kLongRowThreads = 256;  // of a team whose row is a vocabulary

template <class A, class T>
MESHARD_BODY A row_top(const Team& team, const T* x, int64_t n) {
  return team.fold<A>(n, -infinity<A>(), [&](int64_t i) { return load(x[i]); }, [](A a, A b) { return larger(a, b); });
}

template <class T>
struct SoftmaxBody {
  int64_t size;
  const T* x;
  T* y;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const T* row = x + team.index() * size;
    T* to = y + team.index() * size;
    const A top = row_top<A>(team, row, size);
    const A sum = team.sum<A>(size, [&](int64_t i) { return ::exp(load(row[i]) - top); });
    team.each(size, [&](int64_t i) { to[i] = store<T>(::exp(load(row[i]) - top) / sum); });
  }
};

template <class T>
struct SoftmaxVjpBody {
  int64_t size;
  const T *y, *dy;
  T* dx;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t at = team.index() * size;
    const A dot = team.sum<A>(size, [&](int64_t i) { return load(y[at + i]) * load(dy[at + i]); });
    team.each(size, [&](int64_t i) { dx[at + i] = store<T>(load(y[at + i]) * (load(dy[at + i]) - dot)); });
  }
};

// y = (x - mean) rstd weight + bias; without a bias nothing is taken off.
template <class T>
struct NormBody {
  int64_t size;
  double eps;
  const T *x, *weight, *bias;
  T* y;
  Side mean_out, rstd_out;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t r = team.index();
    const T* row = x + r * size;
    T* to = y + r * size;
    A mean = 0;
    if (bias != nullptr) mean = team.sum<A>(size, [&](int64_t i) { return load(row[i]); }) / static_cast<A>(size);
    const A squares = team.sum<A>(size, [&](int64_t i) {
      const A off = load(row[i]) - mean;
      return off * off;
    });
    const A rstd = 1 / ::sqrt(squares / static_cast<A>(size) + static_cast<A>(eps));
    team.each(size, [&](int64_t i) {
      const A hat = (load(row[i]) - mean) * rstd * load(weight[i]);
      to[i] = store<T>(bias != nullptr ? hat + load(bias[i]) : hat);
    });
    team.each(1, [&](int64_t) {
      if (bias != nullptr) mean_out.set(r, mean);
      rstd_out.set(r, rstd);
    });
  }
};

template <class T>
struct NormVjp {
  int64_t rows, size;
  bool centred;
  const T *x, *weight, *dy;
  Side mean, rstd;
  T *dx, *dweight, *dbias;

  MESHARD_BODY Sum<T> hat(int64_t r, int64_t i) const {
    const Sum<T> off = centred ? static_cast<Sum<T>>(mean.get(r)) : Sum<T>(0);
    return (load(x[r * size + i]) - off) * static_cast<Sum<T>>(rstd.get(r));
  }
  MESHARD_BODY void put(int64_t i, Sum<T> weight_sum, Sum<T> bias_sum) const {
    dweight[i] = store<T>(weight_sum);
    if (centred) dbias[i] = store<T>(bias_sum);
  }
};

// A team's threads as strips of 32 neighbouring columns from `first` on: add(i, dweight, dbias) for the i of a strip, the
// strips put together by halves, and end(column, dweight, dbias).
template <class A, class Add, class End>
MESHARD_BODY void add_columns(const Team& team, int64_t begin, int64_t last, const Add& add, const End& end) {
  A* dweight = team.memory<A>();  // [strip][column]
  A* dbias = dweight + team.threads();
  const int64_t strips = team.threads() / 32;
  team.each(team.threads(), [&](int64_t thread) {
    A w = 0, b = 0;
    for (int64_t i = begin + thread / 32; i < last; i += strips) add(thread % 32, i, w, b);
    dweight[thread] = w;
    dbias[thread] = b;
  });
  for (int64_t half = strips / 2; half > 0; half /= 2) {
    team.each(half * 32, [&](int64_t i) {
      dweight[i] += dweight[i + half * 32];
      dbias[i] += dbias[i + half * 32];
    });
  }
  team.each(32, [&](int64_t column) { end(column, dweight[column], dbias[column]); });
}

// A team has 32 columns of a piece of the rows; of several pieces NormJoinBody puts the sums together.
template <class T>
struct NormColumnsBody {
  NormVjp<T> v;
  int64_t pieces, piece;
  Sum<T>* sums;  // [piece][dweight, dbias][column], where there are several

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t number = team.index() % pieces, first = team.index() / pieces * 32, begin = number * piece;
    add_columns<A>(
        team, begin, begin + piece < v.rows ? begin + piece : v.rows,
        [&](int64_t column, int64_t r, A& dweight, A& dbias) {
          const int64_t i = first + column;
          if (i >= v.size) return;
          const A d = load(v.dy[r * v.size + i]);
          dweight += d * v.hat(r, i);
          dbias += d;
        },
        [&](int64_t column, A dweight, A dbias) {
          const int64_t i = first + column;
          if (i >= v.size) return;
          if (pieces == 1) return v.put(i, dweight, dbias);
          sums[2 * number * v.size + i] = dweight;
          sums[(2 * number + 1) * v.size + i] = dbias;
        });
  }
};

template <class T>
struct NormJoinBody {
  NormVjp<T> v;
  int64_t pieces;
  const Sum<T>* sums;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t first = team.index() * 32;
    add_columns<A>(
        team, 0, pieces,
        [&](int64_t column, int64_t p, A& dweight, A& dbias) {
          if (first + column >= v.size) return;
          dweight += sums[2 * p * v.size + first + column];
          dbias += sums[(2 * p + 1) * v.size + first + column];
        },
        [&](int64_t column, A dweight, A dbias) {
          if (first + column < v.size) v.put(first + column, dweight, dbias);
        });
  }
};

template <class T>
struct NormRowsBody {
  NormVjp<T> v;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t r = team.index(), at = r * v.size;
    const auto dhat = [&](int64_t i) { return load(v.dy[at + i]) * load(v.weight[i]); };
    A sum = 0;
    if (v.centred) sum = team.sum<A>(v.size, dhat) / static_cast<A>(v.size);
    const A dot = team.sum<A>(v.size, [&](int64_t i) { return dhat(i) * v.hat(r, i); }) / static_cast<A>(v.size);
    const A rstd = static_cast<A>(v.rstd.get(r));
    team.each(v.size, [&](int64_t i) { v.dx[at + i] = store<T>(rstd * (dhat(i) - sum - v.hat(r, i) * dot)); });
  }
};

// The largest of some numbers, and the sum of exponentials beneath it.
template <class A>
struct TopSum {
  A top, sum;
};

// In one pass over the row, which is the largest thing that a language model has.
template <class T>
struct CrossEntropyBody {
  int64_t size, begin;
  const T* x;
  const int32_t* targets;
  T* nll;
  Side lse_out;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t r = team.index();
    const T* row = x + r * size;
    const auto folded = team.fold<TopSum<A>>(
        size, {-infinity<A>(), 0}, [&](int64_t i) { return TopSum<A>{load(row[i]), 1}; },
        [](TopSum<A> a, TopSum<A> b) {
          const bool first = !(a.top < b.top);
          const A top = first ? a.top : b.top, low = first ? b.top : a.top;
          const A shrink = low == top ? A(1) : ::exp(low - top);
          return TopSum<A>{top, first ? a.sum + b.sum * shrink : b.sum + a.sum * shrink};
        });
    team.each(1, [&](int64_t) {
      const A lse = folded.top + ::log(folded.sum);
      const int64_t target = targets[r] - begin;
      nll[r] = store<T>(lse - (target >= 0 && target < size ? load(row[target]) : A(0)));
      lse_out.set(r, lse);
    });
  }
};

template <class T>
struct CrossEntropyVjpBody {
  int64_t size, begin;
  const T* x;
  const int32_t* targets;
  Side lse, outer;
  T* dx;

  MESHARD_BODY void operator()(const Team& team) const {
    using A = Sum<T>;
    const int64_t r = team.index(), at = r * size, target = targets[r] - begin;
    const A log_sum = static_cast<A>(lse.get(r)), scale = static_cast<A>(outer.get(r));
    team.each(size, [&](int64_t i) {
      const A p = ::exp(load(x[at + i]) - log_sum);
      dx[at + i] = store<T>(scale * (p - (i == target ? 1 : 0)));
    });
  }
};

template <class T>
struct PickBody {
  int64_t size, begin;
  const T* x;
  const int32_t* targets;
  T* y;

  MESHARD_BODY void operator()(int64_t r) const {
    const int64_t target = targets[r] - begin;
    y[r] = target >= 0 && target < size ? x[r * size + target] : T{};
  }
};

// The index of a row's first element that no other one beats, or that is equal to `m`.
template <class T>
struct IndexBody {
  enum Kind : uint8_t { largest, smallest, equal } kind;
  int64_t size, begin;
  const T *x, *m;
  int32_t* y;

  MESHARD_BODY bool wins(Sum<T> a, Sum<T> b) const {
    return b == b && (a != a || (kind == largest ? a > b : a < b));
  }
  MESHARD_BODY void operator()(const Team& team) const {
    const int64_t r = team.index(), nowhere = INT32_MAX;
    const T* row = x + r * size;
    const Sum<T> wanted = kind == equal ? load(m[r]) : Sum<T>(0);
    const int64_t found = team.fold<int64_t>(
        size, nowhere,
        [&](int64_t i) {
          const Sum<T> value = load(row[i]);
          return kind != equal || value == wanted || (value != value && wanted != wanted) ? i : nowhere;
        },
        [&](int64_t i, int64_t j) {
          const int64_t low = i < j ? i : j, high = i < j ? j : i;
          return kind != equal && high != nowhere && wins(load(row[high]), load(row[low])) ? high : low;
        });
    team.each(1, [&](int64_t) { y[r] = static_cast<int32_t>(found == nowhere ? nowhere : found + begin); });
  }
};

inline Prepared softmax(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [rows](const KernelCall& call) {
              run_teams(rows.count, kRowThreads, 0, SoftmaxBody<T>{rows.size, in<T>(call, 0), out<T>(call)},
                        call.stream);
            }};
  });
}

inline Prepared softmax_vjp(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [rows](const KernelCall& call) {
              run_teams(rows.count, kRowThreads, 0,
                        SoftmaxVjpBody<T>{rows.size, in<T>(call, 0), in<T>(call, 1), out<T>(call)}, call.stream);
            }};
  });
}

template <bool centred>
Prepared norm(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const double eps = spec.attributes->number("eps", 1e-5);
  const Dtype dtype = spec.results[1].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const size_t last = centred ? 2 : 1;
              run_teams(rows.count, kRowThreads, 0,
                        NormBody<T>{rows.size, eps, in<T>(call, 0), in<T>(call, 1), centred ? in<T>(call, 2) : nullptr,
                                    out<T>(call), side(call.results[1], dtype), side(call.results[last], dtype)},
                        call.stream);
            }};
  });
}

template <bool centred>
Prepared norm_vjp(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const Dtype dtype = spec.operands[2].type.dtype;
  constexpr int kThreads = 256;
  const int64_t teams = (rows.size + 31) / 32, pieces = pieces_of(rows.count, teams, kThreads / 32);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    using A = Sum<T>;
    constexpr auto kSize = static_cast<int64_t>(sizeof(A));
    return {pieces > 1 ? 2 * pieces * rows.size * kSize : 0, [=](const KernelCall& call) {
              constexpr size_t kRstd = centred ? 3 : 2;
              const NormVjp<T> v{rows.count, rows.size, centred, in<T>(call, 0), in<T>(call, 1), in<T>(call, kRstd + 1),
                                 side(call.operands[2], dtype), side(call.operands[kRstd], dtype), out<T>(call, 0),
                                 out<T>(call, 1), centred ? out<T>(call, 2) : nullptr};
              auto* sums = static_cast<A*>(call.workspace);
              // The columns first: dx may lie where x or dy does.
              run_teams(teams * pieces, kThreads, 2 * kThreads * kSize,
                        NormColumnsBody<T>{v, pieces, (rows.count + pieces - 1) / pieces, sums}, call.stream);
              if (pieces > 1) run_teams(teams, kThreads, 2 * kThreads * kSize, NormJoinBody<T>{v, pieces, sums}, call.stream);
              run_teams(rows.count, kRowThreads, 0, NormRowsBody<T>{v}, call.stream);
            }};
  });
}

inline Prepared cross_entropy(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  const Dtype dtype = spec.results[1].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_teams(rows.count, kLongRowThreads, 0,
                        CrossEntropyBody<T>{rows.size, begin, in<T>(call, 0), in<int32_t>(call, 1), out<T>(call),
                                            side(call.results[1], dtype)},
                        call.stream);
            }};
  });
}

inline Prepared cross_entropy_vjp(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  const Dtype lse = spec.operands[2].type.dtype, outer = spec.operands[3].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_teams(rows.count, kLongRowThreads, 0,
                        CrossEntropyVjpBody<T>{rows.size, begin, in<T>(call, 0), in<int32_t>(call, 1),
                                               side(call.operands[2], lse), side(call.operands[3], outer), out<T>(call)},
                        call.stream);
            }};
  });
}

inline Prepared pick(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(rows.count,
                         PickBody<T>{rows.size, begin, in<T>(call, 0), in<int32_t>(call, 1), out<T>(call)},
                         call.stream);
            }};
  });
}

template <int kind>
Prepared index_in_row(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = kind == 2 ? spec.factor("v").begin : 0;
  return for_any(spec.operands[0].type.dtype, [&]<class T>() -> Prepared {
    using Body = IndexBody<T>;
    return {0, [=](const KernelCall& call) {
              run_teams(rows.count, kRowThreads, 0,
                        Body{static_cast<typename Body::Kind>(kind), rows.size, begin, in<T>(call, 0),
                             kind == Body::equal ? in<T>(call, 1) : nullptr, out<int32_t>(call)},
                        call.stream);
            }};
  });
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_ROWS_INL_H
