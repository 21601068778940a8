// Copies of elements: reshape, transpose, take, embedding, convert, and values made from nothing. No arithmetic, or so little
// that memory decides: plain loops.
#include <cstring>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/ranges.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::cpu {
namespace {

void copy_bytes(void* to, const void* from, int64_t bytes, int threads) {
  parallel_parts(threads, bytes, int64_t{1} << 18, [&](int64_t, int64_t begin, int64_t end) {
    if (end > begin) std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, static_cast<size_t>(end - begin));
  });
}

// Rows that lie whole in x: only their order changes.
template <class T>
Prepared copy_rows(const Nest<2>& nest, int threads) {
  return {0, [loops = nest.loops(), n = nest.points(), threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              pieces<2>(loops, begin, end, [&](const Offsets<2>& at, int64_t count) {
                std::copy_n(in<T>(call, 0) + at[0], count, out<T>(call) + at[1]);
              });
            });
          }};
}

// y's innermost loop runs along one dimension of x, and loop `along` through neighbours in x: tiles of both fit in cache.
template <class T>
Prepared copy_tiles(const Nest<2>& nest, size_t along, int threads) {
  constexpr int64_t kTile = 16;
  std::vector<Loop<2>> outer = nest.loops();
  const Loop<2> inner = outer.back(), column = outer[along];
  outer.pop_back();
  const int64_t bands = (column.size + kTile - 1) / kTile;
  outer[along] = {bands, {column.step[0] * kTile, column.step[1] * kTile}};
  int64_t tasks = 1;
  for (const Loop<2>& loop : outer) tasks *= loop.size;
  return {0, [=](const KernelCall& call) {
            parallel_parts(threads, tasks, kGrain / (kTile * inner.size) + 1, [&](int64_t, int64_t begin, int64_t end) {
              for (int64_t task = begin; task < end; ++task) {
                Offsets<2> at{};
                int64_t left = task, wide = kTile;
                for (size_t l = outer.size(); l-- > 0;) {
                  const int64_t i = left % outer[l].size;
                  left /= outer[l].size;
                  at[0] += i * outer[l].step[0];
                  at[1] += i * outer[l].step[1];
                  if (l == along) wide = std::min(kTile, column.size - i * kTile);
                }
                for (int64_t first = 0; first < inner.size; first += kTile) {
                  const int64_t last = std::min(first + kTile, inner.size);
                  for (int64_t c = 0; c < wide; ++c) {
                    const T* from = in<T>(call, 0) + at[0] + c;
                    T* to = out<T>(call) + at[1] + c * column.step[1];
                    for (int64_t i = first; i < last; ++i) to[i] = from[i * inner.step[0]];
                  }
                }
              }
            });
          }};
}

}  // namespace

Prepared reshape(const KernelSpec& spec) {
  return {0, [bytes = spec.results[0].type.bytes(), threads = spec.threads](const KernelCall& call) {
            if (call.results[0] != call.operands[0]) copy_bytes(call.results[0], call.operands[0], bytes, threads);
          }};
}

Prepared identity(const KernelSpec& spec) { return reshape(spec); }

Prepared transpose(const KernelSpec& spec) {
  const Nest<2> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    const std::vector<Loop<2>>& loops = nest.loops();
    if (loops.empty() || nest.points() == 0 || loops.back().step == Offsets<2>{1, 1}) return copy_rows<T>(nest, spec.threads);
    if (loops.back().step[1] != 1 || loops.back().step[0] == 0) return {};
    for (size_t l = 0; l + 1 < loops.size(); ++l) {
      if (loops[l].step[0] == 1) return copy_tiles<T>(nest, l, spec.threads);
    }
    return {};
  });
}

Prepared take(const KernelSpec& spec) {
  const int64_t bytes = spec.results[0].type.bytes(), rows = spec.operands[0].type.shape[0];
  return {0, [bytes, rows, threads = spec.threads](const KernelCall& call) {
            const int64_t row = in<int32_t>(call, 1)[0];
            if (row >= 0 && row < rows) {
              copy_bytes(call.results[0], in<std::byte>(call, 0) + row * bytes, bytes, threads);
            } else if (bytes > 0) {
              std::memset(call.results[0], 0, static_cast<size_t>(bytes));
            }
          }};
}

Prepared embedding(const KernelSpec& spec) {
  const int64_t ids = spec.operands[0].type.shape.elements(), d = spec.operands[1].type.shape[1];
  const int64_t first = spec.factor("v").begin, size = spec.factor("v").size;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, threads = spec.threads](const KernelCall& call) {
              parallel_parts(threads, ids, kGrain / std::max<int64_t>(d, 1) + 1, [&](int64_t, int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  const int64_t row = in<int32_t>(call, 0)[i] - first;
                  if (row >= 0 && row < size) {
                    std::copy_n(in<T>(call, 1) + row * d, d, out<T>(call) + i * d);
                  } else {
                    std::fill_n(out<T>(call) + i * d, d, T{});
                  }
                }
              });
            }};
  });
}

// Each thread has rows of the table to itself and adds the ids that fall there, in order.
Prepared embedding_vjp(const KernelSpec& spec) {
  if (spec.operands[1].type.dtype != Dtype::f32) return {};
  const int64_t ids = spec.operands[0].type.shape.elements(), d = spec.results[0].type.shape[1];
  const int64_t first = spec.factor("v").begin, size = spec.factor("v").size;
  return {0, [=, threads = spec.threads](const KernelCall& call) {
            float* table = out<float>(call);
            parallel_parts(threads, size, kGrain / std::max<int64_t>(d, 1) + 1, [&](int64_t, int64_t begin, int64_t end) {
              std::fill_n(table + begin * d, (end - begin) * d, 0.0f);
              for (int64_t i = 0; i < ids; ++i) {
                const int64_t row = in<int32_t>(call, 0)[i] - first;
                if (row < begin || row >= end) continue;
                const float* dy = in<float>(call, 1) + i * d;
                for (int64_t j = 0; j < d; ++j) table[row * d + j] += dy[j];
              }
            });
          }};
}

Prepared convert(const KernelSpec& spec) {
  const Dtype from = spec.operands[0].type.dtype, to = spec.results[0].type.dtype;
  if (!is_float(from) || !is_float(to)) return {};
  return for_float(from, [&]<class From>() -> Prepared {
    return for_float(to, [&]<class To>() -> Prepared {
      using Middle = std::conditional_t<std::is_same_v<To, double>, Sum<From>, float>;
      return {0, [n = spec.results[0].type.shape.elements(), threads = spec.threads](const KernelCall& call) {
                parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
                  const From* x = in<From>(call, 0);
                  To* y = out<To>(call);
                  for (int64_t i = begin; i < end; ++i) y[i] = static_cast<To>(static_cast<Middle>(static_cast<Sum<From>>(x[i])));
                });
              }};
    });
  });
}

Prepared pick(const KernelSpec& spec) { return reference::pick(spec); }

Prepared fill(const KernelSpec& spec) {
  if (spec.results[0].type.dtype != Dtype::f32) return {};
  return {0, [n = spec.results[0].type.shape.elements(), value = static_cast<float>(spec.attributes->number("value")),
              threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              std::fill(out<float>(call) + begin, out<float>(call) + end, value);
            });
          }};
}

Prepared iota(const KernelSpec& spec) { return reference::iota(spec); }
Prepared random_normal(const KernelSpec& spec) { return reference::random_normal(spec); }
Prepared random_uniform(const KernelSpec& spec) { return reference::random_uniform(spec); }

}  // namespace meshard::cpu
