#include <algorithm>
#include <cmath>

#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared adamw(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements();
  const double beta1 = spec.attributes->number("beta1", 0.9), beta2 = spec.attributes->number("beta2", 0.95);
  const double eps = spec.attributes->number("eps", 1e-8), decay = spec.attributes->number("decay", 0);
  const std::array<Dtype, 3> scalars = {spec.operands[4].type.dtype, spec.operands[5].type.dtype,
                                        spec.operands[6].type.dtype};
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              using A = Sum<T>;
              const double step = load_number(call.operands[6], scalars[2], 0);
              const A rate = static_cast<A>(load_number(call.operands[4], scalars[0], 0));
              const A clip = static_cast<A>(load_number(call.operands[5], scalars[1], 0));
              if (!std::isfinite(clip)) {
                for (size_t r = 0; r < 3; ++r) {
                  if (call.operands[r] != call.results[r]) std::copy_n(in<T>(call, r), n, out<T>(call, r));
                }
                return;
              }
              const A correct1 = static_cast<A>(1 / (1 - std::pow(beta1, step)));
              const A correct2 = static_cast<A>(1 / (1 - std::pow(beta2, step)));
              const A keep1 = static_cast<A>(beta1), keep2 = static_cast<A>(beta2);
              const A add1 = static_cast<A>(1 - beta1), add2 = static_cast<A>(1 - beta2);
              for (int64_t i = 0; i < n; ++i) {
                const A w = static_cast<A>(in<T>(call, 0)[i]), g = static_cast<A>(in<T>(call, 3)[i]) * clip;
                const A m = keep1 * static_cast<A>(in<T>(call, 1)[i]) + add1 * g;
                const A v = keep2 * static_cast<A>(in<T>(call, 2)[i]) + add2 * g * g;
                const A direction =
                    m * correct1 / (std::sqrt(v * correct2) + static_cast<A>(eps)) + static_cast<A>(decay) * w;
                out<T>(call, 0)[i] = static_cast<T>(w - rate * direction);
                out<T>(call, 1)[i] = static_cast<T>(m);
                out<T>(call, 2)[i] = static_cast<T>(v);
              }
            }};
  });
}

}  // namespace meshard::reference
