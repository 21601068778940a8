// Sums by index, in the order of the specification, whatever the threads do. Where ids have no dimension of the result,
// they are put in order first: each id counts those equal to it before it and after (n^2 comparisons of numbers that all
// threads read together, no atomics), a prefix sum of the counts says where each row's list begins, and a result sums its
// row's list. Else a result goes over all ids that may be its own. What is added to a base begins with the base's element;
// where the base lies in the result's memory only the rows of some id are touched.
#ifndef MESHARD_KERNELS_DEVICE_SCATTER_INL_H
#define MESHARD_KERNELS_DEVICE_SCATTER_INL_H

#include "meshard/kernels/device/index-inl.h"
#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

struct IdLists {
  Points<2> points;  // of what is summed: ids, x
  int64_t begin, rows;
  const int32_t* ids;
  int64_t* first;  // [rows + 1]: where each row's list begins
  int64_t* list;   // [points]: the ids by row
  int32_t* row;    // [points]: of each id; -1: none here
  int32_t* place;  // [points]: of each id in its row's list
};

struct RowsOfIdsBody {
  IdLists l;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t r = l.ids[l.points.at(i)[0]] - l.begin;
    l.row[i] = r >= 0 && r < l.rows ? static_cast<int32_t>(r) : -1;
  }
};

struct ClearBody {
  int64_t* to;
  MESHARD_BODY void operator()(int64_t i) const { to[i] = 0; }
};

// The place of each id among those equal to it; the first of them writes how many there are.
struct CountIdsBody {
  IdLists l;
  MESHARD_BODY void operator()(int64_t i) const {
    const int32_t r = l.row[i];
    if (r < 0) return;
    int32_t before = 0, after = 0;
    for (int64_t j = 0; j < i; ++j) before += l.row[j] == r;
    for (int64_t j = i; j < l.points.count; ++j) after += l.row[j] == r;
    l.place[i] = before;
    if (before == 0) l.first[r] = after;
  }
};

// Counts become beginnings. One team: each thread has a part of the rows.
struct BeginListsBody {
  IdLists l;
  MESHARD_BODY void operator()(const Team& team) const {
    auto* sums = team.memory<int64_t>();
    const int64_t threads = team.threads(), part = (l.rows + threads - 1) / threads;
    const auto end = [&](int64_t t) { return (t + 1) * part < l.rows ? (t + 1) * part : l.rows; };
    team.each(threads, [&](int64_t t) {
      sums[t] = 0;
      for (int64_t r = t * part; r < end(t); ++r) sums[t] += l.first[r];
    });
    team.each(1, [&](int64_t) {
      int64_t so_far = 0;
      for (int64_t t = 0; t < threads; ++t) {
        const int64_t mine = sums[t];
        sums[t] = so_far;
        so_far += mine;
      }
      l.first[l.rows] = so_far;
    });
    team.each(threads, [&](int64_t t) {
      int64_t so_far = sums[t];
      for (int64_t r = t * part; r < end(t); ++r) {
        const int64_t mine = l.first[r];
        l.first[r] = so_far;
        so_far += mine;
      }
    });
  }
};

struct ListIdsBody {
  IdLists l;
  MESHARD_BODY void operator()(int64_t i) const {
    if (l.row[i] >= 0) l.list[l.first[l.row[i]] + l.place[i]] = i;
  }
};

template <class T>
struct SumListsBody {
  IdLists l;
  Points<2> others;  // dimensions of x and y besides the row: x, y
  int64_t stride;    // of the rows of y
  const T* x;
  T* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t r = i / others.count;
    const auto at = others.at(i % others.count);
    Sum<T> sum = 0;
    for (int64_t j = l.first[r]; j < l.first[r + 1]; ++j) sum += load(x[at[0] + l.points.at(l.list[j])[1]]);
    y[at[1] + r * stride] = store<T>(sum);
  }
};

// As SumListsBody, onto what y has: for each id and element, done by the first id of a row.
template <class T>
struct AddListsBody {
  IdLists l;
  Points<2> others;
  int64_t stride;
  const T* x;
  T* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t id = i / others.count;
    const int64_t r = l.row[id];
    if (r < 0 || l.place[id] != 0) return;
    const auto at = others.at(i % others.count);
    T& to = y[at[1] + r * stride];
    Sum<T> sum = load(to);
    for (int64_t j = l.first[r]; j < l.first[r + 1]; ++j) sum += load(x[at[0] + l.points.at(l.list[j])[1]]);
    to = store<T>(sum);
  }
};

template <class T>
struct SearchIdsBody {
  Points<3> others, summed;  // ids, x, y
  int64_t begin, stride;
  const int32_t* ids;
  const T* x;
  const T* base;  // laid out as y; null: zeros
  T* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t r = i / others.count;
    const auto at = others.at(i % others.count);
    Sum<T> sum = base != nullptr ? load(base[at[2] + r * stride]) : Sum<T>(0);
    for (int64_t j = 0; j < summed.count; ++j) {
      const auto here = summed.at(j);
      if (ids[at[0] + here[0]] - begin == r) sum += load(x[at[1] + here[1]]);
    }
    y[at[2] + r * stride] = store<T>(sum);
  }
};

// ids, x [, base] -> y, whose rows are `factor`.
inline Prepared prepare_scatter(const KernelSpec& spec, std::string_view factor, bool onto) {
  const KernelOperand &ids = spec.operands[0], &x = spec.operands[1], &y = spec.results[0];
  const int k = factor_index(spec, factor);
  const int64_t begin = spec.factors[static_cast<size_t>(k)].begin, rows = spec.factors[static_cast<size_t>(k)].size;
  const int64_t stride = factor_strides(spec, y)[static_cast<size_t>(k)];
  const std::vector<int> kept = without(factors_of(y), {k}), gone = without(factors_of(x), kept);
  const bool lists = without(factors_of(ids), gone).empty();
  if (!lists) {
    const Points<3> others = points_of<3>(spec, kept, {&ids, &x, &y}), summed = points_of<3>(spec, gone, {&ids, &x, &y});
    return for_any(y.type.dtype, [&]<class T>() -> Prepared {
      return {0, [=](const KernelCall& call) {
                run_points(rows * others.count,
                           SearchIdsBody<T>{others, summed, begin, stride, in<int32_t>(call, 0), in<T>(call, 1),
                                            onto ? in<T>(call, 2) : nullptr, out<T>(call)},
                           call.stream);
              }};
    });
  }
  const Points<2> summed = points_of<2>(spec, gone, {&ids, &x}), others = points_of<2>(spec, kept, {&x, &y});
  const int64_t n = summed.count, elements = y.type.shape.elements();
  MESHARD_CHECK(n <= INT32_MAX && rows <= INT32_MAX, "a scatter has too many ids or rows");
  return for_any(y.type.dtype, [&]<class T>() -> Prepared {
    return {(rows + 1 + 2 * n) * static_cast<int64_t>(sizeof(int64_t)), [=](const KernelCall& call) {
              auto* first = static_cast<int64_t*>(call.workspace);
              auto* row = reinterpret_cast<int32_t*>(first + rows + 1 + n);
              const IdLists l{summed, begin, rows, in<int32_t>(call, 0), first, first + rows + 1, row, row + n};
              constexpr int kThreads = 256;
              run_points(rows + 1, ClearBody{first}, call.stream);
              run_points(n, RowsOfIdsBody{l}, call.stream);
              run_points(n, CountIdsBody{l}, call.stream);
              run_teams(1, kThreads, kThreads * static_cast<int64_t>(sizeof(int64_t)), BeginListsBody{l}, call.stream);
              run_points(n, ListIdsBody{l}, call.stream);
              if (onto) {
                if (call.results[0] != call.operands[2]) {
                  run_points(elements, CopyBody<T>{in<T>(call, 2), out<T>(call)}, call.stream);
                }
                run_points(n * others.count, AddListsBody<T>{l, others, stride, in<T>(call, 1), out<T>(call)}, call.stream);
                return;
              }
              run_points(rows * others.count, SumListsBody<T>{l, others, stride, in<T>(call, 1), out<T>(call)},
                         call.stream);
            }};
  });
}
inline Prepared scatter_add(const KernelSpec& spec) { return prepare_scatter(spec, "k", false); }
inline Prepared scatter_add_onto(const KernelSpec& spec) { return prepare_scatter(spec, "k", true); }
inline Prepared embedding_vjp(const KernelSpec& spec) { return prepare_scatter(spec, "v", false); }
inline Prepared embedding_vjp_onto(const KernelSpec& spec) { return prepare_scatter(spec, "v", true); }

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_SCATTER_INL_H
