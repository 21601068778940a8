#include <algorithm>
#include <cstring>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared reshape(const KernelSpec& spec) {
  const int64_t bytes = spec.results[0].type.bytes();
  return {0, [bytes](const KernelCall& call) {
            if (bytes > 0 && call.results[0] != call.operands[0]) {
              std::memcpy(call.results[0], call.operands[0], static_cast<size_t>(bytes));
            }
          }};
}

Prepared transpose(const KernelSpec& spec) {
  const Nest<2> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [nest](const KernelCall& call) {
              const T* x = in<T>(call, 0);
              T* y = out<T>(call);
              nest.each({}, [&](const Offsets<2>& at) { y[at[1]] = x[at[0]]; });
            }};
  });
}

Prepared take(const KernelSpec& spec) {
  const int64_t bytes = spec.results[0].type.bytes(), rows = spec.operands[0].type.shape[0];
  return {0, [bytes, rows, begin = spec.factor("k").begin](const KernelCall& call) {
            if (bytes == 0) return;
            const int64_t row = in<int32_t>(call, 1)[0] - begin;
            if (row < 0 || row >= rows) {
              std::memset(call.results[0], 0, static_cast<size_t>(bytes));
            } else {
              std::memcpy(call.results[0], in<std::byte>(call, 0) + row * bytes, static_cast<size_t>(bytes));
            }
          }};
}

Prepared embedding(const KernelSpec& spec) {
  const int64_t ids = spec.operands[0].type.shape.elements(), d = spec.operands[1].type.shape[1];
  const KernelFactor v = spec.factor("v");
  const int64_t begin = v.begin, size = v.size;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const T* table = in<T>(call, 1);
              T* y = out<T>(call);
              for (int64_t i = 0; i < ids; ++i) {
                const int64_t row = in<int32_t>(call, 0)[i] - begin;
                if (row < 0 || row >= size) {
                  std::fill_n(y + i * d, d, T{});
                } else {
                  std::copy_n(table + row * d, d, y + i * d);
                }
              }
            }};
  });
}

namespace {

// Into zeros, or into the last operand.
Prepared add_rows(const KernelSpec& spec, bool onto) {
  const int64_t ids = spec.operands[0].type.shape.elements(), d = spec.results[0].type.shape[1];
  const KernelFactor v = spec.factor("v");
  const int64_t begin = v.begin, size = v.size;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    // The table's gradient is summed in the accumulating type: bf16 would drop small terms.
    const bool narrow = sizeof(T) < sizeof(Sum<T>);
    return {narrow ? size * d * static_cast<int64_t>(sizeof(Sum<T>)) : 0, [=](const KernelCall& call) {
              const T* dy = in<T>(call, 1);
              auto* sums = static_cast<Sum<T>*>(narrow ? call.workspace : call.results[0]);
              if (onto) {
                for (int64_t i = 0; i < size * d; ++i) sums[i] = static_cast<Sum<T>>(in<T>(call, 2)[i]);
              } else {
                std::fill_n(sums, size * d, Sum<T>{0});
              }
              for (int64_t i = 0; i < ids; ++i) {
                const int64_t row = in<int32_t>(call, 0)[i] - begin;
                if (row < 0 || row >= size) continue;
                for (int64_t j = 0; j < d; ++j) sums[row * d + j] += static_cast<Sum<T>>(dy[i * d + j]);
              }
              if (narrow)
                std::transform(sums, sums + size * d, out<T>(call), [](Sum<T> x) { return static_cast<T>(x); });
            }};
  });
}

}  // namespace

Prepared embedding_vjp(const KernelSpec& spec) { return add_rows(spec, false); }
Prepared embedding_vjp_onto(const KernelSpec& spec) { return add_rows(spec, true); }

}  // namespace meshard::reference
