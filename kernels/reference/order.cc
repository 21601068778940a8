// Rows over the last dimension, in order. Equal elements keep theirs; a NaN stands behind all others.
#include <algorithm>
#include <limits>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

// Whether a, at index i, stands before b, at index j.
template <class T>
bool before(T a, int64_t i, T b, int64_t j, bool descending) {
  const auto x = static_cast<Sum<T>>(a), y = static_cast<Sum<T>>(b);
  if (x != x || y != y) return (x != x) != (y != y) ? y != y : i < j;
  if (x != y) return descending ? x > y : x < y;
  return i < j;
}

template <class T>
T lowest() {
  if constexpr (std::is_same_v<T, int32_t>) return std::numeric_limits<T>::min();
  return static_cast<T>(-std::numeric_limits<Sum<T>>::infinity());
}

// Puts the first `k` of n elements into values and ids, from place 0 on; what is missing is the lowest there is, at the
// index `none`.
template <class T>
void first_k(const T* x, const int32_t* index, int64_t begin, int64_t n, int64_t k, int32_t none, T* values,
             int32_t* ids) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t id = index != nullptr ? index[i] : static_cast<int32_t>(begin + i);
    if (found == k && (k == 0 || !before(x[i], id, values[k - 1], ids[k - 1], true))) continue;
    int64_t at = found < k ? found++ : k - 1;
    for (; at > 0 && before(x[i], id, values[at - 1], ids[at - 1], true); --at) {
      values[at] = values[at - 1];
      ids[at] = ids[at - 1];
    }
    values[at] = x[i];
    ids[at] = id;
  }
  for (; found < k; ++found) {
    values[found] = lowest<T>();
    ids[found] = none;
  }
}

}  // namespace

Prepared sort(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const bool descending = spec.attributes->flag("descending");
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                T* y = out<T>(call, 0) + r * rows.size;
                int32_t* ids = out<int32_t>(call, 1) + r * rows.size;
                for (int64_t i = 0; i < rows.size; ++i) ids[i] = static_cast<int32_t>(i);
                std::sort(ids, ids + rows.size,
                          [&](int32_t i, int32_t j) { return before(x[i], i, x[j], j, descending); });
                for (int64_t i = 0; i < rows.size; ++i) y[i] = x[ids[i]];
              }
            }};
  });
}

Prepared block_top_k(const KernelSpec& spec) {
  const size_t last = spec.operands[0].dims.size() - 1;
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t made = spec.results[0].type.shape.dims.back();
  const int64_t first = spec.factors[static_cast<size_t>(spec.results[0].dims[last][0])].begin;
  const int64_t read = spec.operands[0].begin_of(last), n = spec.operands[0].global_of(last);
  const int64_t k = spec.attributes->integer("k"), parts = spec.attributes->integer("parts", 1);
  // A block of the result may begin within the k of one block.
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {k * static_cast<int64_t>(sizeof(T) + sizeof(int32_t)), [=](const KernelCall& call) {
              T* values = static_cast<T*>(call.workspace);
              auto* ids = reinterpret_cast<int32_t*>(static_cast<std::byte*>(call.workspace) +
                                                     k * static_cast<int64_t>(sizeof(T)));
              if constexpr (sizeof(T) < sizeof(int32_t)) {
                ids = static_cast<int32_t*>(call.workspace);
                values = reinterpret_cast<T*>(ids + k);
              }
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                for (int64_t i = 0; i < made; ++i) {
                  const int64_t p = (first + i) / k, place = (first + i) % k;
                  const int64_t begin = (p * n + parts - 1) / parts, end = ((p + 1) * n + parts - 1) / parts;
                  if (i == 0 || place == 0) {
                    first_k(x + begin - read, nullptr, begin, end - begin, k, static_cast<int32_t>(n), values, ids);
                  }
                  out<T>(call, 0)[r * made + i] = values[place];
                  out<int32_t>(call, 1)[r * made + i] = ids[place];
                }
              }
            }};
  });
}

Prepared top_k(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const bool given = spec.operands.size() > 1;  // the elements' indices
  const int64_t k = spec.results[0].type.shape.dims.back();
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              for (int64_t r = 0; r < rows.count; ++r) {
                const int32_t* index = given ? in<int32_t>(call, 1) + r * rows.size : nullptr;
                first_k(in<T>(call, 0) + r * rows.size, index, 0, rows.size, k, static_cast<int32_t>(rows.size),
                        out<T>(call, 0) + r * k, out<int32_t>(call, 1) + r * k);
              }
            }};
  });
}

namespace {

template <bool kLargest>
Prepared arg_extreme(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return for_any(spec.operands[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                int64_t best = 0;
                for (int64_t i = 1; i < rows.size; ++i) {
                  const auto a = static_cast<Sum<T>>(x[i]), b = static_cast<Sum<T>>(x[best]);
                  const bool wins = b == b && (a != a || (kLargest ? a > b : a < b));
                  if (wins) best = i;
                }
                out<int32_t>(call)[r] = rows.size == 0 ? std::numeric_limits<int32_t>::max() : static_cast<int32_t>(best);
              }
            }};
  });
}

}  // namespace

Prepared argmax(const KernelSpec& spec) { return arg_extreme<true>(spec); }
Prepared argmin(const KernelSpec& spec) { return arg_extreme<false>(spec); }

Prepared index_of(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  return for_any(spec.operands[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              for (int64_t r = 0; r < rows.count; ++r) {
                const auto m = static_cast<Sum<T>>(in<T>(call, 1)[r]);
                int32_t found = std::numeric_limits<int32_t>::max();
                for (int64_t i = rows.size; i-- > 0;) {
                  const auto x = static_cast<Sum<T>>(in<T>(call, 0)[r * rows.size + i]);
                  if (x == m || (x != x && m != m)) found = static_cast<int32_t>(begin + i);
                }
                out<int32_t>(call)[r] = found;
              }
            }};
  });
}

}  // namespace meshard::reference
