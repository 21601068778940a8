#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/adamw.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/adamw.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/vec-inl.h"

#include <algorithm>
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

void adamw_run(const AdamwStep& step, const float* w, const float* m, const float* v, const float* g, int64_t n,
               float* new_w, float* new_m, float* new_v) {
  const V rate = set(step.rate), clip = set(step.clip), keep1 = set(step.keep1), keep2 = set(step.keep2);
  const V add1 = set(step.add1), add2 = set(step.add2), correct1 = set(step.correct1), correct2 = set(step.correct2);
  const V eps = set(step.eps), decay = set(step.decay);
  const auto moment1 = [&](V vm, V vg) HWY_ATTR { return hn::MulAdd(keep1, vm, hn::Mul(add1, vg)); };
  const auto moment2 = [&](V vv, V vg) HWY_ATTR { return hn::MulAdd(keep2, vv, hn::Mul(hn::Mul(add2, vg), vg)); };
  const auto weight = [&](V vw, V vm, V vv) HWY_ATTR {
    const V direction = hn::Div(hn::Mul(vm, correct1), hn::Add(hn::Sqrt(hn::Mul(vv, correct2)), eps));
    return hn::NegMulAdd(rate, hn::MulAdd(decay, vw, direction), vw);
  };
  const int64_t lane = lanes();
  int64_t i = 0;
  for (; i + lane <= n; i += lane) {
    const V vg = hn::Mul(hn::LoadU(D(), g + i), clip);
    const V vm = moment1(hn::LoadU(D(), m + i), vg), vv = moment2(hn::LoadU(D(), v + i), vg);
    hn::StoreU(weight(hn::LoadU(D(), w + i), vm, vv), D(), new_w + i);
    hn::StoreU(vm, D(), new_m + i);
    hn::StoreU(vv, D(), new_v + i);
  }
  if (i < n) {
    const int64_t r = n - i;
    const V vg = hn::Mul(load_some(g + i, r, 0), clip);
    const V vm = moment1(load_some(m + i, r, 0), vg), vv = moment2(load_some(v + i, r, 0), vg);
    store_some(weight(load_some(w + i, r, 0), vm, vv), new_w + i, r);
    store_some(vm, new_m + i, r);
    store_some(vv, new_v + i, r);
  }
}

AdamwFn adamw_function() { return adamw_run; }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {

HWY_EXPORT(adamw_function);

Prepared adamw(const KernelSpec& spec) {
  if (!all_f32(spec)) return {};
  const double beta1 = spec.attributes->number("beta1", 0.9), beta2 = spec.attributes->number("beta2", 0.95);
  AdamwStep fixed{};
  fixed.keep1 = static_cast<float>(beta1);
  fixed.keep2 = static_cast<float>(beta2);
  fixed.add1 = static_cast<float>(1 - beta1);
  fixed.add2 = static_cast<float>(1 - beta2);
  fixed.eps = static_cast<float>(spec.attributes->number("eps", 1e-8));
  fixed.decay = static_cast<float>(spec.attributes->number("decay", 0));
  const AdamwFn f = HWY_DYNAMIC_DISPATCH(adamw_function)();
  return {0, [=, n = spec.results[0].type.shape.elements(), threads = spec.threads](const KernelCall& call) {
            AdamwStep now = fixed;
            now.rate = in<float>(call, 4)[0];
            now.clip = in<float>(call, 5)[0];
            if (!std::isfinite(now.clip)) {
              for (size_t r = 0; r < 3; ++r) {
                if (in<float>(call, r) != out<float>(call, r)) std::copy_n(in<float>(call, r), n, out<float>(call, r));
              }
              return;
            }
            const double step = in<float>(call, 6)[0];
            now.correct1 = static_cast<float>(1 / (1 - std::pow(beta1, step)));
            now.correct2 = static_cast<float>(1 / (1 - std::pow(beta2, step)));
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t at, int64_t end) {
              f(now, in<float>(call, 0) + at, in<float>(call, 1) + at, in<float>(call, 2) + at, in<float>(call, 3) + at,
                end - at, out<float>(call, 0) + at, out<float>(call, 1) + at, out<float>(call, 2) + at);
            });
          }};
}

}  // namespace meshard::cpu
#endif
