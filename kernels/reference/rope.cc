#include <cmath>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared rope(const KernelSpec& spec) {
  const int64_t e = spec.operands[0].type.shape.dims.back(), half = e / 2;
  MESHARD_CHECK(e % 2 == 0, "rope turns pairs: its last dimension must be even");
  const double theta = spec.attributes->number("theta", 10000), sign = spec.attributes->flag("inverse") ? -1 : 1;
  const int t = factor_index(spec, "t");
  const KernelFactor positions = spec.factors[static_cast<size_t>(t)];
  const int64_t begin = positions.begin, count = positions.size;
  const int64_t stride = factor_strides(spec, spec.operands[0])[static_cast<size_t>(t)];
  std::vector<int> others = without(factors_of(spec.operands[0]), spec.operands[0].dims.back());
  others = without(others, {t});
  const Nest<1> rows(spec, others, {&spec.operands[0]});
  const bool moved = spec.operands.size() > 1;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              using A = Sum<T>;
              const T* x = in<T>(call, 0);
              T* y = out<T>(call);
              const int64_t first = begin + (moved ? in<int32_t>(call, 1)[0] : 0);
              for (int64_t i = 0; i < count; ++i) {
                for (int64_t j = 0; j < half; ++j) {
                  const double angle = static_cast<double>(first + i) *
                                       std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(e));
                  const A c = static_cast<A>(std::cos(angle)), s = static_cast<A>(sign * std::sin(angle));
                  rows.each({i * stride + j}, [&](const Offsets<1>& at) {
                    const A low = static_cast<A>(x[at[0]]), high = static_cast<A>(x[at[0] + half]);
                    y[at[0]] = static_cast<T>(low * c - high * s);
                    y[at[0] + half] = static_cast<T>(high * c + low * s);
                  });
                }
              }
            }};
  });
}

}  // namespace meshard::reference
