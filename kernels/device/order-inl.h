// Rows in order. A thread has an element and counts those that stand before it: its place.
#ifndef MESHARD_KERNELS_DEVICE_ORDER_INL_H
#define MESHARD_KERNELS_DEVICE_ORDER_INL_H

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

// Whether a, at index i, stands before b, at index j. A NaN stands behind all others.
template <class A>
MESHARD_BODY bool stands_before(A a, int64_t i, A b, int64_t j, bool descending) {
  if (a != a || b != b) return (a != a) != (b != b) ? b != b : i < j;
  if (a != b) return descending ? a > b : a < b;
  return i < j;
}

template <class T>
MESHARD_BODY T lowest_number() {
  if constexpr (std::is_same_v<T, int32_t>) {
    return INT32_MIN;
  } else {
    return store<T>(-infinity<Sum<T>>());
  }
}

template <class T>
struct SortBody {
  int64_t size;
  bool descending;
  const T* x;
  T* y;
  int32_t* ids;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t row = i / size * size, mine = i % size;
    int64_t place = 0;
    for (int64_t j = 0; j < size; ++j) place += stands_before(load(x[row + j]), j, load(x[i]), mine, descending);
    y[row + place] = x[i];
    ids[row + place] = static_cast<int32_t>(mine);
  }
};

// The largest k of each block of a row's elements; which blocks, and which of their places are made here, is as
// kernels/reference/order.cc says. `index`: the elements' own indices, else they are counted.
template <class T>
struct TopBody {
  int64_t size, k, made, first, read, n, parts;
  int32_t none;
  const T* x;
  const int32_t* index;
  T* y;
  int32_t* ids;

  MESHARD_BODY int64_t begin(int64_t p) const { return (p * n + parts - 1) / parts; }
  MESHARD_BODY int64_t id(int64_t row, int64_t j) const { return index != nullptr ? index[row * size + j] : read + j; }
  MESHARD_BODY bool before(int64_t row, int64_t i, int64_t j) const {
    const Sum<T> a = load(x[row * size + i]), b = load(x[row * size + j]);
    if (stands_before(a, id(row, i), b, id(row, j), true)) return true;
    return !stands_before(b, id(row, j), a, id(row, i), true) && i < j;
  }
  // One element of x: is it among its block's k?
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t row = i / size, mine = i % size, p = (mine + read) * parts / n;
    // floor(e parts / n) is the block of element e, or the one before where a block begins at a rounded-up place.
    int64_t block = p;
    while (begin(block + 1) <= mine + read) ++block;
    while (begin(block) > mine + read) --block;
    int64_t place = 0;
    for (int64_t j = begin(block) - read; j < begin(block + 1) - read && place < k; ++j) {
      if (j >= 0 && j < size) place += before(row, j, mine);
    }
    const int64_t to = block * k + place - first;
    if (place >= k || to < 0 || to >= made) return;
    y[row * made + to] = x[i];
    ids[row * made + to] = static_cast<int32_t>(id(row, mine));
  }
};

// Places for which a block has no element.
template <class T>
struct TopRestBody {
  TopBody<T> top;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t at = top.first + i % top.made, p = at / top.k;
    if (at % top.k < top.begin(p + 1) - top.begin(p)) return;
    top.y[i] = lowest_number<T>();
    top.ids[i] = top.none;
  }
};

inline Prepared sort(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const bool descending = spec.attributes->flag("descending");
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(rows.count * rows.size,
                         SortBody<T>{rows.size, descending, in<T>(call, 0), out<T>(call, 0), out<int32_t>(call, 1)},
                         call.stream);
            }};
  });
}

template <class T>
void run_top(int64_t rows, const TopBody<T>& body, void* stream) {
  run_points(rows * body.size, body, stream);
  run_points(rows * body.made, TopRestBody<T>{body}, stream);
}

inline Prepared block_top_k(const KernelSpec& spec) {
  const size_t last = spec.operands[0].dims.size() - 1;
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t made = spec.results[0].type.shape.dims.back();
  const int64_t first = spec.factors[static_cast<size_t>(spec.results[0].dims[last][0])].begin;
  const int64_t read = spec.operands[0].begin_of(last), n = spec.operands[0].global_of(last);
  const int64_t k = spec.attributes->integer("k"), parts = spec.attributes->integer("parts", 1);
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_top(rows.count,
                      TopBody<T>{rows.size, k, made, first, read, n, parts, static_cast<int32_t>(n), in<T>(call, 0),
                                 nullptr, out<T>(call, 0), out<int32_t>(call, 1)},
                      call.stream);
            }};
  });
}

inline Prepared top_k(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const bool given = spec.operands.size() > 1;
  const int64_t k = spec.results[0].type.shape.dims.back();
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_top(rows.count,
                      TopBody<T>{rows.size, k, k, 0, 0, rows.size, 1, static_cast<int32_t>(rows.size), in<T>(call, 0),
                                 given ? in<int32_t>(call, 1) : nullptr, out<T>(call, 0), out<int32_t>(call, 1)},
                      call.stream);
            }};
  });
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_ORDER_INL_H
