// Elementwise ops: one body that chooses by number what it does to each element. The choice is the same for all threads,
// and costs less than the element's memory.
#ifndef MESHARD_KERNELS_DEVICE_MAP_INL_H
#define MESHARD_KERNELS_DEVICE_MAP_INL_H

#include <limits>

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

enum class Map : uint8_t {
  neg, exp, log, sqrt, rsqrt, square, tanh, sigmoid, reciprocal, scale, offset, gelu, gelu_vjp, silu, silu_vjp, abs,
  sign, floor, sin, cos, clamp, bit_not, add, sub, mul, div, maximum, minimum, pow, log_add, less, less_equal,
  equal_to, not_equal, bit_and, bit_or, bit_xor, shift_left, shift_right,
};

template <class A>
MESHARD_BODY A logistic(A x) {
  return 1 / (1 + ::exp(-x));
}

constexpr double kGeluInner = 0.79788456080286535588;  // sqrt(2 / pi)

template <class A>
MESHARD_BODY A gelu_tanh(A x) {
  return ::tanh(static_cast<A>(kGeluInner) * (x + static_cast<A>(0.044715) * x * x * x));
}

// What integers and floats have in common.
template <class A>
MESHARD_BODY A map_any(Map op, A a, A b, double p, double q) {
  switch (op) {
    case Map::neg: return -a;
    case Map::square: return a * a;
    case Map::scale: return static_cast<A>(p) * a;
    case Map::offset: return a + static_cast<A>(p);
    case Map::abs: return a < 0 ? -a : a;
    case Map::sign: return a != a ? a : static_cast<A>((a > 0) - (a < 0));
    case Map::clamp: return a < static_cast<A>(p) ? static_cast<A>(p) : a > static_cast<A>(q) ? static_cast<A>(q) : a;
    case Map::add: return a + b;
    case Map::sub: return a - b;
    case Map::mul: return a * b;
    case Map::div: return a / b;
    case Map::maximum: return a >= b || a != a ? a : b;  // a NaN in either is the result
    case Map::minimum: return a <= b || a != a ? a : b;
    default: return a;
  }
}

template <class A>
MESHARD_BODY A map_float(Map op, A a, A b, double p, double q) {
  switch (op) {
    case Map::exp: return ::exp(a);
    case Map::log: return ::log(a);
    case Map::sqrt: return ::sqrt(a);
    case Map::rsqrt: return 1 / ::sqrt(a);
    case Map::tanh: return ::tanh(a);
    case Map::sigmoid: return logistic(a);
    case Map::reciprocal: return 1 / a;
    case Map::gelu: return static_cast<A>(0.5) * a * (1 + gelu_tanh(a));
    case Map::gelu_vjp: {
      const A t = gelu_tanh(a);
      const A inner = static_cast<A>(kGeluInner) * (1 + 3 * static_cast<A>(0.044715) * a * a);
      return b * static_cast<A>(0.5) * (1 + t + a * (1 - t * t) * inner);
    }
    case Map::silu: return a * logistic(a);
    case Map::silu_vjp: {
      const A s = logistic(a);
      return b * s * (1 + a * (1 - s));
    }
    case Map::abs: return ::fabs(a);
    case Map::floor: return ::floor(a);
    case Map::sin: return ::sin(a);
    case Map::cos: return ::cos(a);
    case Map::pow: return ::pow(a, b);
    case Map::log_add: return a + ::log(b);
    default: return map_any(op, a, b, p, q);
  }
}

MESHARD_BODY inline int64_t map_integer(Map op, int64_t a, int64_t b, double p, double q) {
  switch (op) {
    case Map::bit_not: return ~a;
    case Map::bit_and: return a & b;
    case Map::bit_or: return a | b;
    case Map::bit_xor: return a ^ b;
    case Map::shift_left: return b < 0 || b > 31 ? 0 : a << b;
    case Map::shift_right: return a >> (b < 0 || b > 31 ? 31 : b);
    case Map::pow: return static_cast<int64_t>(::pow(static_cast<double>(a), static_cast<double>(b)));
    case Map::div: return b == 0 ? 0 : a / b;  // on a GPU nothing stops the program
    default: return map_any(op, a, b, p, q);
  }
}

template <class T>
struct MapBody {
  Map op;
  Points<3> points;
  const T *a, *b;
  T* y;
  double p, q;

  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    const Sum<T> x = load(a[at[0]]), z = b != nullptr ? load(b[at[1]]) : Sum<T>(0);
    if constexpr (std::is_same_v<T, int32_t>) {
      y[at[2]] = static_cast<T>(map_integer(op, x, z, p, q));
    } else {
      y[at[2]] = store<T>(map_float(op, x, z, p, q));
    }
  }
};

template <class T>
struct CompareBody {
  Map op;
  Points<3> points;
  const T *a, *b;
  int32_t* y;

  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    const Sum<T> x = load(a[at[0]]), z = load(b[at[1]]);
    y[at[2]] = op == Map::less ? x < z : op == Map::less_equal ? x <= z : op == Map::equal_to ? x == z : x != z;
  }
};

template <class T>
struct SelectBody {
  Points<4> points;
  const int32_t* c;
  const T *a, *b;
  T* y;

  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    y[at[3]] = c[at[0]] != 0 ? a[at[1]] : b[at[2]];
  }
};

struct ConvertBody {
  Side x, y;
  MESHARD_BODY void operator()(int64_t i) const { y.set(i, x.get(i)); }
};

struct FillBody {
  Side y;
  double value;
  MESHARD_BODY void operator()(int64_t i) const { y.set(i, value); }
};

inline Prepared prepare_map(const KernelSpec& spec, Map op, double p = 0, double q = 0) {
  const bool two = spec.operands.size() > 1;
  const KernelOperand &a = spec.operands[0], &b = spec.operands[two ? 1 : 0], &y = spec.results[0];
  const Points<3> points = points_of<3>(spec, factors_of(y), {&a, &b, &y});
  return for_any(y.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(points.count, MapBody<T>{op, points, in<T>(call, 0), two ? in<T>(call, 1) : nullptr,
                                                  out<T>(call), p, q}, call.stream);
            }};
  });
}

template <Map op>
Prepared map(const KernelSpec& spec) {
  return prepare_map(spec, op);
}
inline Prepared scale(const KernelSpec& spec) {
  return prepare_map(spec, Map::scale, spec.attributes->number("factor", 1));
}
inline Prepared offset(const KernelSpec& spec) {
  return prepare_map(spec, Map::offset, spec.attributes->number("amount", 0));
}
inline Prepared clamp(const KernelSpec& spec) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return prepare_map(spec, Map::clamp, spec.attributes->number("low", -kInfinity),
                     spec.attributes->number("high", kInfinity));
}

template <Map op>
Prepared compare(const KernelSpec& spec) {
  const Points<3> points = points_of<3>(spec, factors_of(spec.results[0]),
                                        {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  return for_any(spec.operands[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(points.count,
                         CompareBody<T>{op, points, in<T>(call, 0), in<T>(call, 1), out<int32_t>(call)}, call.stream);
            }};
  });
}

inline Prepared select(const KernelSpec& spec) {
  const Points<4> points =
      points_of<4>(spec, factors_of(spec.results[0]),
                   {&spec.operands[0], &spec.operands[1], &spec.operands[2], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(points.count,
                         SelectBody<T>{points, in<int32_t>(call, 0), in<T>(call, 1), in<T>(call, 2), out<T>(call)},
                         call.stream);
            }};
  });
}

inline Prepared convert(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements();
  const Dtype from = spec.operands[0].type.dtype, to = spec.results[0].type.dtype;
  return {0, [=](const KernelCall& call) {
            run_points(n, ConvertBody{side(call.operands[0], from), side(call.results[0], to)}, call.stream);
          }};
}

inline Prepared fill(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements();
  const Dtype dtype = spec.results[0].type.dtype;
  return {0, [=, value = spec.attributes->number("value")](const KernelCall& call) {
            run_points(n, FillBody{side(call.results[0], dtype), value}, call.stream);
          }};
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_MAP_INL_H
