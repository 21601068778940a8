#include <cmath>
#include <limits>
#include <numbers>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

template <class F>
Prepared one(const KernelSpec& spec, F f) {
  const Nest<2> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [nest, f](const KernelCall& call) {
              const T* x = in<T>(call, 0);
              T* y = out<T>(call);
              nest.each({}, [&](const Offsets<2>& at) { y[at[1]] = static_cast<T>(f(static_cast<Sum<T>>(x[at[0]]))); });
            }};
  });
}

template <class F>
Prepared two(const KernelSpec& spec, F f) {
  const Nest<3> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [nest, f](const KernelCall& call) {
              const T* a = in<T>(call, 0);
              const T* b = in<T>(call, 1);
              T* y = out<T>(call);
              nest.each({}, [&](const Offsets<3>& at) {
                y[at[2]] = static_cast<T>(f(static_cast<Sum<T>>(a[at[0]]), static_cast<Sum<T>>(b[at[1]])));
              });
            }};
  });
}

// Two of one type to 0 or 1.
template <class F>
Prepared compare(const KernelSpec& spec, F f) {
  const Nest<3> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  return for_any(spec.operands[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [nest, f](const KernelCall& call) {
              const T* a = in<T>(call, 0);
              const T* b = in<T>(call, 1);
              int32_t* y = out<int32_t>(call);
              nest.each({}, [&](const Offsets<3>& at) {
                y[at[2]] = f(static_cast<Sum<T>>(a[at[0]]), static_cast<Sum<T>>(b[at[1]])) ? 1 : 0;
              });
            }};
  });
}

template <class A>
A logistic(A x) {
  return 1 / (1 + std::exp(-x));
}

template <class A>
A gelu_tanh(A x) {
  return std::tanh(static_cast<A>(std::sqrt(2 / std::numbers::pi)) * (x + static_cast<A>(0.044715) * x * x * x));
}

}  // namespace

Prepared identity(const KernelSpec& spec) { return reshape(spec); }
Prepared neg(const KernelSpec& spec) {
  return one(spec, [](auto x) { return -x; });
}
Prepared exp(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::exp(x); });
}
Prepared log(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::log(x); });
}
Prepared sqrt(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::sqrt(x); });
}
Prepared rsqrt(const KernelSpec& spec) {
  return one(spec, [](auto x) { return 1 / std::sqrt(x); });
}
Prepared square(const KernelSpec& spec) {
  return one(spec, [](auto x) { return x * x; });
}
Prepared tanh(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::tanh(x); });
}
Prepared sigmoid(const KernelSpec& spec) {
  return one(spec, [](auto x) { return logistic(x); });
}
Prepared reciprocal(const KernelSpec& spec) {
  return one(spec, [](auto x) { return 1 / x; });
}

Prepared scale(const KernelSpec& spec) {
  const double factor = spec.attributes->number("factor", 1);
  return one(spec, [factor]<class A>(A x) { return static_cast<A>(factor) * x; });
}

Prepared offset(const KernelSpec& spec) {
  const double amount = spec.attributes->number("amount", 0);
  return one(spec, [amount]<class A>(A x) { return x + static_cast<A>(amount); });
}

Prepared gelu(const KernelSpec& spec) {
  return one(spec, []<class A>(A x) { return static_cast<A>(0.5) * x * (1 + gelu_tanh(x)); });
}

Prepared gelu_vjp(const KernelSpec& spec) {
  return two(spec, []<class A>(A x, A dy) {
    const A tanh = gelu_tanh(x);
    const A inner = static_cast<A>(std::sqrt(2 / std::numbers::pi)) * (1 + 3 * static_cast<A>(0.044715) * x * x);
    return dy * static_cast<A>(0.5) * (1 + tanh + x * (1 - tanh * tanh) * inner);
  });
}

Prepared silu(const KernelSpec& spec) {
  return one(spec, [](auto x) { return x * logistic(x); });
}

Prepared silu_vjp(const KernelSpec& spec) {
  return two(spec, []<class A>(A x, A dy) {
    const A s = logistic(x);
    return dy * s * (1 + x * (1 - s));
  });
}

Prepared convert(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements();
  const Dtype from = spec.operands[0].type.dtype, to = spec.results[0].type.dtype;
  return {0, [n, from, to](const KernelCall& call) {
            for (int64_t i = 0; i < n; ++i)
              store_number(call.results[0], to, i, load_number(call.operands[0], from, i));
          }};
}

Prepared add(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return a + b; });
}
Prepared sub(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return a - b; });
}
Prepared mul(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return a * b; });
}
Prepared div(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return a / b; });
}
Prepared pow(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return std::pow(a, b); });
}
// A NaN in either operand is the result.
Prepared maximum(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return a >= b || a != a ? a : b; });
}
Prepared minimum(const KernelSpec& spec) {
  return two(spec, [](auto a, auto b) { return a <= b || a != a ? a : b; });
}
Prepared log_add(const KernelSpec& spec) {
  return two(spec, [](auto m, auto s) { return m + std::log(s); });
}

Prepared abs(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::abs(x); });
}
Prepared sign(const KernelSpec& spec) {
  return one(spec, []<class A>(A x) { return x != x ? x : static_cast<A>((x > 0) - (x < 0)); });
}
Prepared floor(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::floor(x); });
}
Prepared sin(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::sin(x); });
}
Prepared cos(const KernelSpec& spec) {
  return one(spec, [](auto x) { return std::cos(x); });
}

Prepared clamp(const KernelSpec& spec) {
  const double low = spec.attributes->number("low", -std::numeric_limits<double>::infinity());
  const double high = spec.attributes->number("high", std::numeric_limits<double>::infinity());
  return one(spec, [=]<class A>(A x) {
    return x < static_cast<A>(low) ? static_cast<A>(low) : x > static_cast<A>(high) ? static_cast<A>(high) : x;
  });
}

Prepared less(const KernelSpec& spec) {
  return compare(spec, [](auto a, auto b) { return a < b; });
}
Prepared less_equal(const KernelSpec& spec) {
  return compare(spec, [](auto a, auto b) { return a <= b; });
}
Prepared equal_to(const KernelSpec& spec) {
  return compare(spec, [](auto a, auto b) { return a == b; });
}
Prepared not_equal(const KernelSpec& spec) {
  return compare(spec, [](auto a, auto b) { return a != b; });
}

Prepared select(const KernelSpec& spec) {
  const Nest<4> nest(spec, factors_of(spec.results[0]),
                     {&spec.operands[0], &spec.operands[1], &spec.operands[2], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [nest](const KernelCall& call) {
              const int32_t* c = in<int32_t>(call, 0);
              const T* a = in<T>(call, 1);
              const T* b = in<T>(call, 2);
              T* y = out<T>(call);
              nest.each({}, [&](const Offsets<4>& at) { y[at[3]] = c[at[0]] != 0 ? a[at[1]] : b[at[2]]; });
            }};
  });
}

namespace {

constexpr auto kShiftLeft = [](int64_t a, int64_t b) { return b < 0 || b > 31 ? int64_t{0} : a << b; };
constexpr auto kShiftRight = [](int64_t a, int64_t b) { return a >> (b < 0 || b > 31 ? int64_t{31} : b); };

// Bits of i32; nothing else is asked for.
template <class F>
Prepared bits(const KernelSpec& spec, F f) {
  MESHARD_CHECK(spec.results[0].type.dtype == Dtype::i32, "bits are of integers");
  return two(spec, [f]<class A>(A a, A b) {
    return static_cast<A>(f(static_cast<int64_t>(a), static_cast<int64_t>(b)));
  });
}

}  // namespace

Prepared bit_and(const KernelSpec& spec) {
  return bits(spec, [](int64_t a, int64_t b) { return a & b; });
}
Prepared bit_or(const KernelSpec& spec) {
  return bits(spec, [](int64_t a, int64_t b) { return a | b; });
}
Prepared bit_xor(const KernelSpec& spec) {
  return bits(spec, [](int64_t a, int64_t b) { return a ^ b; });
}
Prepared shift_left(const KernelSpec& spec) { return bits(spec, kShiftLeft); }
Prepared shift_right(const KernelSpec& spec) { return bits(spec, kShiftRight); }
Prepared bit_not(const KernelSpec& spec) {
  return one(spec, []<class A>(A a) { return static_cast<A>(~static_cast<int64_t>(a)); });
}

}  // namespace meshard::reference
