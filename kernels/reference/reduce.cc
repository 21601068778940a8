#include <algorithm>
#include <cmath>
#include <limits>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

// `neutral` in what T is computed in; an infinity becomes the end of the integers.
template <class T>
Sum<T> neutral_of(double neutral) {
  if constexpr (std::is_same_v<T, int32_t>) {
    if (!std::isfinite(neutral)) return neutral < 0 ? std::numeric_limits<T>::min() : std::numeric_limits<T>::max();
  }
  return static_cast<Sum<T>>(neutral);
}

// fold(so far, x) from `neutral` over the factors that the result lacks, then times `factor`.
template <class F>
Prepared reduce(const KernelSpec& spec, double neutral, F fold, double factor = 1) {
  const std::array<const KernelOperand*, 2> blocks = {&spec.operands[0], &spec.results[0]};
  const Nest<2> kept(spec, factors_of(spec.results[0]), blocks);
  const Nest<2> folded(spec, reduced_factors(spec, spec.results[0]), blocks);
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const T* x = in<T>(call, 0);
              T* y = out<T>(call);
              kept.each({}, [&](const Offsets<2>& at) {
                Sum<T> so_far = neutral_of<T>(neutral);
                folded.each(at,
                            [&](const Offsets<2>& here) { so_far = fold(so_far, static_cast<Sum<T>>(x[here[0]])); });
                if (factor != 1) so_far *= static_cast<Sum<T>>(factor);
                y[at[1]] = static_cast<T>(so_far);
              });
            }};
  });
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

Prepared sum(const KernelSpec& spec) {
  return reduce(spec, 0, [](auto s, auto x) { return s + x; });
}

Prepared max(const KernelSpec& spec) {
  return reduce(spec, -kInfinity, [](auto s, auto x) { return x > s || x != x ? x : s; });
}

Prepared min(const KernelSpec& spec) {
  return reduce(spec, kInfinity, [](auto s, auto x) { return x < s || x != x ? x : s; });
}

Prepared mean(const KernelSpec& spec) {
  double count = 1;
  for (int f : reduced_factors(spec, spec.results[0]))
    count *= static_cast<double>(spec.factors[static_cast<size_t>(f)].global);
  return reduce(
      spec, 0, [](auto s, auto x) { return s + x; }, 1 / count);
}

Prepared sum_squares(const KernelSpec& spec) {
  return reduce(spec, 0, [](auto s, auto x) { return s + x * x; });
}

Prepared logsumexp(const KernelSpec& spec) {
  const std::array<const KernelOperand*, 2> blocks = {&spec.operands[0], &spec.results[0]};
  const Nest<2> kept(spec, factors_of(spec.results[0]), blocks);
  const Nest<2> summed(spec, reduced_factors(spec, spec.results[0]), blocks);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [kept, summed](const KernelCall& call) {
              using A = Sum<T>;
              const T* x = in<T>(call, 0);
              T* y = out<T>(call);
              kept.each({}, [&](const Offsets<2>& at) {
                A top = -std::numeric_limits<A>::infinity(), sum = 0;
                summed.each(at, [&](const Offsets<2>& here) { top = std::max(top, static_cast<A>(x[here[0]])); });
                summed.each(at, [&](const Offsets<2>& here) { sum += std::exp(static_cast<A>(x[here[0]]) - top); });
                y[at[1]] = static_cast<T>(top + std::log(sum));
              });
            }};
  });
}

Prepared sum_exp(const KernelSpec& spec) {
  const std::array<const KernelOperand*, 3> blocks = {&spec.operands[0], &spec.operands[1], &spec.results[0]};
  const Nest<3> kept(spec, factors_of(spec.results[0]), blocks);
  const Nest<3> summed(spec, reduced_factors(spec, spec.results[0]), blocks);
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [kept, summed](const KernelCall& call) {
              const T* x = in<T>(call, 0);
              const T* m = in<T>(call, 1);
              T* y = out<T>(call);
              kept.each({}, [&](const Offsets<3>& at) {
                Sum<T> sum = 0;
                summed.each(at, [&](const Offsets<3>& here) {
                  sum += std::exp(static_cast<Sum<T>>(x[here[0]]) - static_cast<Sum<T>>(m[here[1]]));
                });
                y[at[2]] = static_cast<T>(sum);
              });
            }};
  });
}

}  // namespace meshard::reference
