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

template <class F, class T>
void one(const T* x, T* y, int64_t n, float c) {
  map(x, y, n, F{c});
}

template <class F, class T>
void two(const T* a, bool repeat_a, const T* b, bool repeat_b, T* y, int64_t n) {
  const F f;
  if (repeat_a && repeat_b) {
    const V va = set(static_cast<float>(*a)), vb = set(static_cast<float>(*b));
    map(y, y, n, [&](V) HWY_ATTR { return f(va, vb); });
  } else if (repeat_a) {
    const V va = set(static_cast<float>(*a));
    map(b, y, n, [&](V vb) HWY_ATTR { return f(va, vb); });
  } else if (repeat_b) {
    const V vb = set(static_cast<float>(*b));
    map(a, y, n, [&](V va) HWY_ATTR { return f(va, vb); });
  } else {
    map(a, b, y, n, f);
  }
}

template <class T>
Elementwise<T> elementwise() {
  return {one<Neg, T>,  one<Exp, T>,     one<Log, T>,        one<Sqrt, T>,  one<Rsqrt, T>,  one<Square, T>,
          one<Tanh, T>, one<Sigmoid, T>, one<Reciprocal, T>, one<Scale, T>, one<Offset, T>, one<Gelu, T>,
          one<Silu, T>, two<GeluVjp, T>, two<SiluVjp, T>,    two<Add, T>,   two<Sub, T>,    two<Mul, T>,
          two<Div, T>,  two<Maximum, T>, two<Minimum, T>,    two<LogAdd, T>};
}
Elementwise<float> elementwise_f32() { return elementwise<float>(); }
Elementwise<bfloat16> elementwise_bf16() { return elementwise<bfloat16>(); }
Elementwise<float16> elementwise_f16() { return elementwise<float16>(); }

}  // namespace meshard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "meshard/kernels/epilogue.h"
#include "meshard/kernels/cpu/ranges.h"

namespace meshard::cpu {
namespace {

HWY_EXPORT(elementwise_f32);
HWY_EXPORT(elementwise_bf16);
HWY_EXPORT(elementwise_f16);

template <class T>
Prepared one_of(const KernelSpec& spec, UnaryFn<T> f, double c) {
  const int64_t n = spec.results[0].type.shape.elements();
  return {0, [=, threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              f(in<T>(call, 0) + begin, out<T>(call) + begin, end - begin, static_cast<float>(c));
            });
          }};
}

template <class T>
Prepared two_of(const KernelSpec& spec, BinaryFn<T> f) {
  const Nest<3> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  const std::vector<Loop<3>> loops = nest.loops();
  const Offsets<3> step = loops.empty() ? Offsets<3>{0, 0, 1} : loops.back().step;
  if (step[0] > 1 || step[1] > 1 || step[2] != 1) return {};
  return {0, [=, n = nest.points(), threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              pieces<3>(loops, begin, end, [&](const Offsets<3>& at, int64_t count) {
                f(in<T>(call, 0) + at[0], step[0] == 0, in<T>(call, 1) + at[1], step[1] == 0, out<T>(call) + at[2],
                  count);
              });
            });
          }};
}

// To the sum, the last result, a bias is added; what `f`, if any, makes of it is result 0. Piece by piece in the first cache.
Prepared finish(const KernelSpec& spec, BinaryFn<float> add, UnaryFn<float> f) {
  const size_t at_sum = spec.results.size() - 1;
  const KernelOperand& sum = spec.results[at_sum];
  const Nest<2> nest(spec, factors_of(sum), {&sum, &spec.operands[2]});
  const std::vector<Loop<2>> loops = nest.loops();
  const Offsets<2> step = loops.empty() ? Offsets<2>{1, 0} : loops.back().step;
  if (step[0] != 1 || step[1] > 1) return {};
  return {0, [=, n = nest.points(), threads = spec.threads](const KernelCall& call) {
            constexpr int64_t kPiece = 2048;
            auto* y = static_cast<float*>(call.results[at_sum]);
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              pieces<2>(loops, begin, end, [&](const Offsets<2>& at, int64_t count) {
                for (int64_t i = 0; i < count; i += kPiece) {
                  const int64_t some = std::min(kPiece, count - i);
                  float* here = y + at[0] + i;
                  add(here, false, in<float>(call, 2) + at[1] + i * step[1], step[1] == 0, here, some);
                  if (f != nullptr) f(here, out<float>(call) + at[0] + i, some, 0);
                }
              });
            });
          }};
}

// `narrow`: the kernel that does as f where not all is f32.
Prepared product_and(const KernelSpec& spec, UnaryFn<float> f, PrepareFn narrow) {
  if (!all_f32(spec)) return run_epilogue(spec, einsum, add, f == nullptr ? nullptr : narrow);
  const Prepared product = einsum(EpilogueParts(spec, false).product), rest = finish(spec, HWY_DYNAMIC_DISPATCH(elementwise_f32)().add, f);
  if (!product.run || !rest.run) return {};
  return {product.workspace_bytes, [product, rest](const KernelCall& call) {
            product.run({call.operands.first(2), call.results.last(1), call.workspace, call.stream});
            rest.run(call);
          }};
}

// pick(table) gives the function of the table for the spec's type.
template <class Pick>
Prepared one(const KernelSpec& spec, const Pick& pick, double c = 0) {
  if (all_of_type(spec, Dtype::bf16)) return one_of<bfloat16>(spec, pick(HWY_DYNAMIC_DISPATCH(elementwise_bf16)()), c);
  if (all_of_type(spec, Dtype::f16)) return one_of<float16>(spec, pick(HWY_DYNAMIC_DISPATCH(elementwise_f16)()), c);
  return all_f32(spec) ? one_of<float>(spec, pick(HWY_DYNAMIC_DISPATCH(elementwise_f32)()), c) : Prepared();
}

template <class Pick>
Prepared two(const KernelSpec& spec, const Pick& pick) {
  if (all_of_type(spec, Dtype::bf16)) return two_of<bfloat16>(spec, pick(HWY_DYNAMIC_DISPATCH(elementwise_bf16)()));
  if (all_of_type(spec, Dtype::f16)) return two_of<float16>(spec, pick(HWY_DYNAMIC_DISPATCH(elementwise_f16)()));
  return all_f32(spec) ? two_of<float>(spec, pick(HWY_DYNAMIC_DISPATCH(elementwise_f32)())) : Prepared();
}

}  // namespace

Prepared einsum_bias(const KernelSpec& spec) { return product_and(spec, nullptr, nullptr); }
Prepared einsum_activation(const KernelSpec& spec) {
  const Elementwise<float> all = HWY_DYNAMIC_DISPATCH(elementwise_f32)();
  const bool is_silu = spec.attributes->text("activation") == "silu";
  return product_and(spec, is_silu ? all.silu : all.gelu, is_silu ? silu : gelu);
}

Prepared neg(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.neg; }); }
Prepared exp(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.exp; }); }
Prepared log(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.log; }); }
Prepared sqrt(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.sqrt; }); }
Prepared rsqrt(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.rsqrt; }); }
Prepared square(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.square; }); }
Prepared tanh(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.tanh; }); }
Prepared sigmoid(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.sigmoid; }); }
Prepared reciprocal(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.reciprocal; }); }
Prepared gelu(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.gelu; }); }
Prepared silu(const KernelSpec& spec) { return one(spec, [](const auto& f) { return f.silu; }); }
Prepared scale(const KernelSpec& spec) {
  return one(spec, [](const auto& f) { return f.scale; }, spec.attributes->number("factor", 1));
}
Prepared offset(const KernelSpec& spec) {
  return one(spec, [](const auto& f) { return f.offset; }, spec.attributes->number("amount", 0));
}
Prepared gelu_vjp(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.gelu_vjp; }); }
Prepared silu_vjp(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.silu_vjp; }); }
Prepared add(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.add; }); }
Prepared sub(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.sub; }); }
Prepared mul(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.mul; }); }
Prepared div(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.div; }); }
Prepared maximum(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.maximum; }); }
Prepared minimum(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.minimum; }); }
Prepared log_add(const KernelSpec& spec) { return two(spec, [](const auto& f) { return f.log_add; }); }

}  // namespace meshard::cpu
#endif
