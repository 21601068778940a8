#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

// N operands and the result.
template <size_t N>
Prepared product(const KernelSpec& spec) {
  std::array<const KernelOperand*, N + 1> blocks;
  for (size_t i = 0; i < N; ++i) blocks[i] = &spec.operands[i];
  blocks[N] = &spec.results[0];
  const Nest<N + 1> kept(spec, factors_of(spec.results[0]), blocks);
  const Nest<N + 1> summed(spec, reduced_factors(spec, spec.results[0]), blocks);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [kept, summed](const KernelCall& call) {
              std::array<const T*, N> x;
              for (size_t i = 0; i < N; ++i) x[i] = in<T>(call, i);
              T* y = out<T>(call);
              kept.each({}, [&](const Offsets<N + 1>& at) {
                Sum<T> sum = 0;
                summed.each(at, [&](const Offsets<N + 1>& here) {
                  auto term = static_cast<Sum<T>>(x[0][here[0]]);
                  for (size_t i = 1; i < N; ++i) term *= static_cast<Sum<T>>(x[i][here[i]]);
                  sum += term;
                });
                y[at[N]] = static_cast<T>(sum);
              });
            }};
  });
}

}  // namespace

Prepared einsum(const KernelSpec& spec) {
  switch (spec.operands.size()) {
    case 1:
      return product<1>(spec);
    case 2:
      return product<2>(spec);
    case 3:
      return product<3>(spec);
    case 4:
      return product<4>(spec);
    default:
      throw InternalError("einsum takes one to four operands");
  }
}

}  // namespace meshard::reference
