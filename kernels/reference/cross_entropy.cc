#include <algorithm>
#include <cmath>
#include <limits>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared cross_entropy(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  const Dtype side = spec.results[1].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              using A = Sum<T>;
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                A top = -std::numeric_limits<A>::infinity(), sum = 0;
                for (int64_t i = 0; i < rows.size; ++i) top = std::max(top, static_cast<A>(x[i]));
                for (int64_t i = 0; i < rows.size; ++i) sum += std::exp(static_cast<A>(x[i]) - top);
                const A lse = top + std::log(sum);
                const int64_t target = in<int32_t>(call, 1)[r] - begin;
                const A hit = target >= 0 && target < rows.size ? static_cast<A>(x[target]) : 0;
                out<T>(call)[r] = static_cast<T>(lse - hit);
                store_number(call.results[1], side, r, lse);
              }
            }};
  });
}

Prepared cross_entropy_vjp(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  const Dtype side = spec.operands[2].type.dtype, outer = spec.operands[3].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              using A = Sum<T>;
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                T* dx = out<T>(call) + r * rows.size;
                const int64_t target = in<int32_t>(call, 1)[r] - begin;
                const A lse = static_cast<A>(load_number(call.operands[2], side, r));
                const A d = static_cast<A>(load_number(call.operands[3], outer, r));
                for (int64_t i = 0; i < rows.size; ++i) {
                  dx[i] = static_cast<T>(d * (std::exp(static_cast<A>(x[i]) - lse) - (i == target ? 1 : 0)));
                }
              }
            }};
  });
}

Prepared pick(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const int64_t begin = spec.factor("v").begin;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              for (int64_t r = 0; r < rows.count; ++r) {
                const int64_t target = in<int32_t>(call, 1)[r] - begin;
                const bool here = target >= 0 && target < rows.size;
                out<T>(call)[r] = here ? in<T>(call, 0)[r * rows.size + target] : T{};
              }
            }};
  });
}

}  // namespace meshard::reference
