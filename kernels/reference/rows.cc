// Softmax and norms: rows over the last dimension.
#include <algorithm>
#include <cmath>
#include <limits>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared softmax(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [rows](const KernelCall& call) {
              using A = Sum<T>;
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                T* y = out<T>(call) + r * rows.size;
                A top = -std::numeric_limits<A>::infinity(), sum = 0;
                for (int64_t i = 0; i < rows.size; ++i) top = std::max(top, static_cast<A>(x[i]));
                for (int64_t i = 0; i < rows.size; ++i) sum += std::exp(static_cast<A>(x[i]) - top);
                for (int64_t i = 0; i < rows.size; ++i)
                  y[i] = static_cast<T>(std::exp(static_cast<A>(x[i]) - top) / sum);
              }
            }};
  });
}

Prepared softmax_vjp(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [rows](const KernelCall& call) {
              using A = Sum<T>;
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* y = in<T>(call, 0) + r * rows.size;
                const T* dy = in<T>(call, 1) + r * rows.size;
                T* dx = out<T>(call) + r * rows.size;
                A dot = 0;
                for (int64_t i = 0; i < rows.size; ++i) dot += static_cast<A>(y[i]) * static_cast<A>(dy[i]);
                for (int64_t i = 0; i < rows.size; ++i) {
                  dx[i] = static_cast<T>(static_cast<A>(y[i]) * (static_cast<A>(dy[i]) - dot));
                }
              }
            }};
  });
}

Prepared layer_norm(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const double eps = spec.attributes->number("eps", 1e-5);
  const Dtype side = spec.results[1].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              using A = Sum<T>;
              const T* weight = in<T>(call, 1);
              const T* bias = in<T>(call, 2);
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                T* y = out<T>(call) + r * rows.size;
                A mean = 0, variance = 0;
                for (int64_t i = 0; i < rows.size; ++i) mean += static_cast<A>(x[i]);
                mean /= static_cast<A>(rows.size);
                for (int64_t i = 0; i < rows.size; ++i) {
                  const A off = static_cast<A>(x[i]) - mean;
                  variance += off * off;
                }
                const A rstd = 1 / std::sqrt(variance / static_cast<A>(rows.size) + static_cast<A>(eps));
                for (int64_t i = 0; i < rows.size; ++i) {
                  const A hat = (static_cast<A>(x[i]) - mean) * rstd;
                  y[i] = static_cast<T>(hat * static_cast<A>(weight[i]) + static_cast<A>(bias[i]));
                }
                store_number(call.results[1], side, r, mean);
                store_number(call.results[2], side, r, rstd);
              }
            }};
  });
}

Prepared rms_norm(const KernelSpec& spec) {
  const Rows rows = rows_of(spec.operands[0]);
  const double eps = spec.attributes->number("eps", 1e-5);
  const Dtype side = spec.results[1].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              using A = Sum<T>;
              const T* weight = in<T>(call, 1);
              for (int64_t r = 0; r < rows.count; ++r) {
                const T* x = in<T>(call, 0) + r * rows.size;
                T* y = out<T>(call) + r * rows.size;
                A squares = 0;
                for (int64_t i = 0; i < rows.size; ++i) squares += static_cast<A>(x[i]) * static_cast<A>(x[i]);
                const A rstd = 1 / std::sqrt(squares / static_cast<A>(rows.size) + static_cast<A>(eps));
                for (int64_t i = 0; i < rows.size; ++i) {
                  y[i] = static_cast<T>(static_cast<A>(x[i]) * rstd * static_cast<A>(weight[i]));
                }
                store_number(call.results[1], side, r, rstd);
              }
            }};
  });
}

namespace {

// One row of either norm: hat = (x - mean) rstd, y = hat weight + bias. Writes dx and adds to dweight and dbias (in A).
// `centred`: the mean was taken off, so that dx has mean 0 too.
template <class T, class A>
void norm_row_vjp(const T* x, const T* weight, A mean, A rstd, const T* dy, int64_t size, bool centred, T* dx,
                  A* dweight, A* dbias) {
  A sum = 0, dot = 0;
  for (int64_t i = 0; i < size; ++i) {
    const A hat = (static_cast<A>(x[i]) - mean) * rstd, d = static_cast<A>(dy[i]);
    const A dhat = d * static_cast<A>(weight[i]);
    sum += dhat;
    dot += dhat * hat;
    dweight[i] += d * hat;
    if (centred) dbias[i] += d;
  }
  sum = centred ? sum / static_cast<A>(size) : 0;
  dot /= static_cast<A>(size);
  for (int64_t i = 0; i < size; ++i) {
    const A hat = (static_cast<A>(x[i]) - mean) * rstd;
    const A dhat = static_cast<A>(dy[i]) * static_cast<A>(weight[i]);
    dx[i] = static_cast<T>(rstd * (dhat - sum - hat * dot));
  }
}

// Operands x, weight, [mean], rstd, dy; results dx, dweight, [dbias].
Prepared norm_vjp(const KernelSpec& spec, bool centred) {
  const Rows rows = rows_of(spec.operands[0]);
  const Dtype side = spec.operands[2].type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    using A = Sum<T>;
    return {2 * rows.size * static_cast<int64_t>(sizeof(A)), [=](const KernelCall& call) {
              const size_t at_rstd = centred ? 3 : 2;
              A* dweight = static_cast<A*>(call.workspace);
              A* dbias = dweight + rows.size;
              std::fill_n(dweight, 2 * rows.size, A{0});
              for (int64_t r = 0; r < rows.count; ++r) {
                const int64_t at = r * rows.size;
                const A mean = centred ? static_cast<A>(load_number(call.operands[2], side, r)) : 0;
                const A rstd = static_cast<A>(load_number(call.operands[at_rstd], side, r));
                norm_row_vjp(in<T>(call, 0) + at, in<T>(call, 1), mean, rstd, in<T>(call, at_rstd + 1) + at, rows.size,
                             centred, out<T>(call) + at, dweight, dbias);
              }
              for (int64_t i = 0; i < rows.size; ++i) {
                out<T>(call, 1)[i] = static_cast<T>(dweight[i]);
                if (centred) out<T>(call, 2)[i] = static_cast<T>(dbias[i]);
              }
            }};
  });
}

}  // namespace

Prepared layer_norm_vjp(const KernelSpec& spec) { return norm_vjp(spec, true); }
Prepared rms_norm_vjp(const KernelSpec& spec) { return norm_vjp(spec, false); }

}  // namespace meshard::reference
