#include "meshard/kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "meshard/kernels/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/elementwise.h"
#include "meshard/kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace meshard::cpu::HWY_NAMESPACE {

struct Neg {
  float c;
  V operator()(V x) const { return hn::Neg(x); }
};
struct Exp {
  float c;
  V operator()(V x) const { return exp(x); }
};
struct Log {
  float c;
  V operator()(V x) const { return log(x); }
};
struct Sqrt {
  float c;
  V operator()(V x) const { return hn::Sqrt(x); }
};
struct Rsqrt {
  float c;
  V operator()(V x) const { return hn::Div(set(1), hn::Sqrt(x)); }
};
struct Square {
  float c;
  V operator()(V x) const { return hn::Mul(x, x); }
};
struct Tanh {
  float c;
  V operator()(V x) const { return tanh(x); }
};
struct Sigmoid {
  float c;
  V operator()(V x) const { return sigmoid(x); }
};
struct Reciprocal {
  float c;
  V operator()(V x) const { return hn::Div(set(1), x); }
};
struct Scale {
  float c;
  V operator()(V x) const { return hn::Mul(set(c), x); }
};
struct Offset {
  float c;
  V operator()(V x) const { return hn::Add(x, set(c)); }
};
struct Silu {
  float c;
  V operator()(V x) const { return hn::Mul(x, sigmoid(x)); }
};

// 0.5 (1 + tanh(u)) is sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float kTwice = 1.5957691216f, kCube = 0.044715f;
HWY_INLINE V gelu_gate(V x) {
  return sigmoid(hn::Mul(hn::Mul(set(kTwice), x), hn::MulAdd(hn::Mul(set(kCube), x), x, set(1))));
}
struct Gelu {
  float c;
  V operator()(V x) const { return hn::Mul(x, gelu_gate(x)); }
};

struct GeluVjp {
  V operator()(V x, V dy) const {
    const V s = gelu_gate(x);
    const V slope = hn::Mul(set(kTwice), hn::MulAdd(hn::Mul(set(3 * kCube), x), x, set(1)));
    return hn::Mul(dy, hn::MulAdd(hn::Mul(hn::Mul(x, s), hn::Sub(set(1), s)), slope, s));
  }
};
struct SiluVjp {
  V operator()(V x, V dy) const {
    const V s = sigmoid(x);
    return hn::Mul(hn::Mul(dy, s), hn::MulAdd(x, hn::Sub(set(1), s), set(1)));
  }
};
struct Add {
  V operator()(V a, V b) const { return hn::Add(a, b); }
};
struct Sub {
  V operator()(V a, V b) const { return hn::Sub(a, b); }
};
struct Mul {
  V operator()(V a, V b) const { return hn::Mul(a, b); }
};
struct Div {
  V operator()(V a, V b) const { return hn::Div(a, b); }
};
struct Maximum {
  V operator()(V a, V b) const { return hn::IfThenElse(hn::Or(hn::Ge(a, b), hn::IsNaN(a)), a, b); }
};
struct Minimum {
  V operator()(V a, V b) const { return hn::IfThenElse(hn::Or(hn::Le(a, b), hn::IsNaN(a)), a, b); }
};
struct LogAdd {
  V operator()(V m, V s) const { return hn::Add(m, log(s)); }
};

template <class F>
void one(const float* x, float* y, int64_t n, float c) {
  map(x, y, n, F{c});
}

template <class F>
void two(const float* a, bool repeat_a, const float* b, bool repeat_b, float* y, int64_t n) {
  const F f;
  if (repeat_a && repeat_b) {
    const V va = set(*a), vb = set(*b);
    map(y, y, n, [&](V) HWY_ATTR { return f(va, vb); });
  } else if (repeat_a) {
    const V va = set(*a);
    map(b, y, n, [&](V vb) HWY_ATTR { return f(va, vb); });
  } else if (repeat_b) {
    const V vb = set(*b);
    map(a, y, n, [&](V va) HWY_ATTR { return f(va, vb); });
  } else {
    map(a, b, y, n, f);
  }
}

Elementwise elementwise() {
  return {one<Neg>,  one<Exp>,     one<Log>,        one<Sqrt>,  one<Rsqrt>,  one<Square>,
          one<Tanh>, one<Sigmoid>, one<Reciprocal>, one<Scale>, one<Offset>, one<Gelu>,
          one<Silu>, two<GeluVjp>, two<SiluVjp>,    two<Add>,   two<Sub>,    two<Mul>,
          two<Div>,  two<Maximum>, two<Minimum>,    two<LogAdd>};
}

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {
namespace {

HWY_EXPORT(elementwise);
Elementwise table() { return HWY_DYNAMIC_DISPATCH(elementwise)(); }

Prepared one(const KernelSpec& spec, UnaryFn f, double c = 0) {
  if (!all_f32(spec)) return {};
  const int64_t n = spec.results[0].type.shape.elements();
  return {0, [=, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              f(in<float>(call, 0) + begin, out<float>(call) + begin, end - begin, static_cast<float>(c));
            });
          }};
}

Prepared two(const KernelSpec& spec, BinaryFn f) {
  if (!all_f32(spec)) return {};
  const Nest<3> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  const std::vector<Loop<3>> loops = nest.loops();
  const Offsets<3> step = loops.empty() ? Offsets<3>{0, 0, 1} : loops.back().step;
  if (step[0] > 1 || step[1] > 1 || step[2] != 1) return {};
  return {0, [=, n = nest.points(), threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              pieces<3>(loops, begin, end, [&](const Offsets<3>& at, int64_t count) {
                f(in<float>(call, 0) + at[0], step[0] == 0, in<float>(call, 1) + at[1], step[1] == 0,
                  out<float>(call) + at[2], count);
              });
            });
          }};
}

}  // namespace

Prepared neg(const KernelSpec& spec) { return one(spec, table().neg); }
Prepared exp(const KernelSpec& spec) { return one(spec, table().exp); }
Prepared log(const KernelSpec& spec) { return one(spec, table().log); }
Prepared sqrt(const KernelSpec& spec) { return one(spec, table().sqrt); }
Prepared rsqrt(const KernelSpec& spec) { return one(spec, table().rsqrt); }
Prepared square(const KernelSpec& spec) { return one(spec, table().square); }
Prepared tanh(const KernelSpec& spec) { return one(spec, table().tanh); }
Prepared sigmoid(const KernelSpec& spec) { return one(spec, table().sigmoid); }
Prepared reciprocal(const KernelSpec& spec) { return one(spec, table().reciprocal); }
Prepared scale(const KernelSpec& spec) { return one(spec, table().scale, spec.attributes->number("factor", 1)); }
Prepared offset(const KernelSpec& spec) { return one(spec, table().offset, spec.attributes->number("amount", 0)); }
Prepared gelu(const KernelSpec& spec) { return one(spec, table().gelu); }
Prepared silu(const KernelSpec& spec) { return one(spec, table().silu); }
Prepared gelu_vjp(const KernelSpec& spec) { return two(spec, table().gelu_vjp); }
Prepared silu_vjp(const KernelSpec& spec) { return two(spec, table().silu_vjp); }
Prepared add(const KernelSpec& spec) { return two(spec, table().add); }
Prepared sub(const KernelSpec& spec) { return two(spec, table().sub); }
Prepared mul(const KernelSpec& spec) { return two(spec, table().mul); }
Prepared div(const KernelSpec& spec) { return two(spec, table().div); }
Prepared maximum(const KernelSpec& spec) { return two(spec, table().maximum); }
Prepared minimum(const KernelSpec& spec) { return two(spec, table().minimum); }
Prepared log_add(const KernelSpec& spec) { return two(spec, table().log_add); }

}  // namespace meshard::cpu
#endif
