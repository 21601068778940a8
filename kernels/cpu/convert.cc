// Between f32 and bf16 or f16, which memory decides; other floats by plain loops.
#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/convert.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/convert.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

template <class From, class To>
void copy(const From* x, To* y, int64_t n) {
  map(x, y, n, [](V v) HWY_ATTR { return v; });
}

Conversions<bfloat16> conversions_bf16() { return {copy<bfloat16, float>, copy<float, bfloat16>}; }
Conversions<float16> conversions_f16() { return {copy<float16, float>, copy<float, float16>}; }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {

HWY_EXPORT(conversions_bf16);
HWY_EXPORT(conversions_f16);
template <>
Conversions<bfloat16> conversions() {
  return HWY_DYNAMIC_DISPATCH(conversions_bf16)();
}
template <>
Conversions<float16> conversions() {
  return HWY_DYNAMIC_DISPATCH(conversions_f16)();
}

namespace {

template <class From, class To>
Prepared by(const KernelSpec& spec, void (*f)(const From*, To*, int64_t)) {
  return {0, [=, n = spec.results[0].type.shape.elements(), threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              f(in<From>(call, 0) + begin, out<To>(call) + begin, end - begin);
            });
          }};
}

}  // namespace

Prepared convert(const KernelSpec& spec) {
  const Dtype from = spec.operands[0].type.dtype, to = spec.results[0].type.dtype;
  if (is_narrow(from) && to == Dtype::f32) {
    return for_narrow(from, [&]<class T>() { return by(spec, conversions<T>().widen); });
  }
  if (from == Dtype::f32 && is_narrow(to)) {
    return for_narrow(to, [&]<class T>() { return by(spec, conversions<T>().narrow); });
  }
  if (!is_float(from) || !is_float(to)) return {};
  return for_float(from, [&]<class From>() -> Prepared {
    return for_float(to, [&]<class To>() -> Prepared {
      using Middle = std::conditional_t<std::is_same_v<To, double>, Sum<From>, float>;
      void (*const f)(const From*, To*, int64_t) = [](const From* x, To* y, int64_t n) {
        for (int64_t i = 0; i < n; ++i) y[i] = static_cast<To>(static_cast<Middle>(static_cast<Sum<From>>(x[i])));
      };
      return by(spec, f);
    });
  });
}

}  // namespace meshard::cpu
#endif
