#include <bit>
#include <cmath>

#include "hwy/targets.h"
#include "meshard/kernels/cpu/convert.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

struct Pair {
  const char* name;
  PrepareFn cpu, reference;
};

TEST_CASE("tuned functions of one value agree with the reference") {
  const Attributes attributes{{"factor", -0.75}, {"amount", 0.5}};
  Case c("a b -> a b", Case::whole({{"a", 301}, {"b", 67}}), attributes);
  for (double& x : c.input(0)) x *= 30;
  for (const Pair& p : {Pair{"neg", cpu::neg, reference::neg},
                        {"square", cpu::square, reference::square},
                        {"tanh", cpu::tanh, reference::tanh},
                        {"sigmoid", cpu::sigmoid, reference::sigmoid},
                        {"reciprocal", cpu::reciprocal, reference::reciprocal},
                        {"scale", cpu::scale, reference::scale},
                        {"offset", cpu::offset, reference::offset},
                        {"gelu", cpu::gelu, reference::gelu},
                        {"silu", cpu::silu, reference::silu},
                        {"exp", cpu::exp, reference::exp}}) {
    INFO(p.name);
    check_cpu(c, p.cpu, p.reference);
  }
  for (double& x : c.input(0)) x = std::abs(x) + 1e-6;
  for (const Pair& p : {Pair{"log", cpu::log, reference::log},
                        {"sqrt", cpu::sqrt, reference::sqrt},
                        {"rsqrt", cpu::rsqrt, reference::rsqrt}}) {
    INFO(p.name);
    check_cpu(c, p.cpu, p.reference);
  }
}

TEST_CASE("own exp, tanh and log are exact to about 1e-6 relative everywhere, and keep the special values") {
  const double inf = std::numeric_limits<double>::infinity();
  struct Function {
    PrepareFn cpu;
    double (*exact)(double);
    double from, to;
  };
  for (const Function& f : {Function{cpu::exp, std::exp, -87, 88},
                            {cpu::tanh, std::tanh, -12, 12},
                            {cpu::tanh, std::tanh, -1e-3, 1e-3},
                            {cpu::log, std::log, 1e-30, 3e38},
                            {cpu::log, std::log, 0.9, 1.1},
                            {cpu::log, std::log, 1e-44, 1e-37}}) {
    Case c("a -> a", Case::whole({{"a", 5000}}));
    for (size_t i = 0; i < 5000; ++i) {
      c.input(0)[i] = static_cast<float>(f.from + (f.to - f.from) * static_cast<double>(i) / 4999);
    }
    const std::vector<double> y = c.run(f.cpu)[0];
    double worst = 0;
    for (size_t i = 0; i < 5000; ++i) {
      const double wanted = f.exact(c.input(0)[i]);
      if (wanted != 0) worst = std::max(worst, std::abs(y[i] - wanted) / std::abs(wanted));
    }
    CHECK(worst < 1e-6);
  }
  Case c("a -> a", Case::whole({{"a", 4}}));
  c.input(0) = {-inf, inf, std::nan(""), 0};
  std::vector<double> y = c.run(cpu::exp)[0];
  CHECK((y[0] == 0 && y[1] == inf && std::isnan(y[2]) && y[3] == 1));
  y = c.run(cpu::log)[0];
  CHECK((std::isnan(y[0]) && y[1] == inf && std::isnan(y[2]) && y[3] == -inf));
  y = c.run(cpu::tanh)[0];
  CHECK((y[0] == -1 && y[1] == 1 && std::isnan(y[2]) && y[3] == 0));
  y = c.run(cpu::sigmoid)[0];
  CHECK((y[0] == 0 && y[1] == 1 && std::isnan(y[2]) && y[3] == 0.5));
}

TEST_CASE("an element's value does not depend on where it stands") {
  Case whole("a -> a", Case::whole({{"a", 70}}));
  for (double& x : whole.input(0)) x *= 5;
  for (PrepareFn kernel : {cpu::exp, cpu::tanh, cpu::gelu, cpu::silu, cpu::sigmoid}) {
    const std::vector<double> y = whole.run(kernel)[0];
    for (size_t begin : {1, 7, 33, 69}) {
      Case part("a -> a", Case::whole({{"a", static_cast<int64_t>(70 - begin)}}));
      std::copy(whole.input(0).begin() + static_cast<int64_t>(begin), whole.input(0).end(), part.input(0).begin());
      const std::vector<double> z = part.run(kernel)[0];
      CHECK(std::equal(z.begin(), z.end(), y.begin() + static_cast<int64_t>(begin)));
    }
  }
}

TEST_CASE("tuned pairs agree with the reference, repeated operands too") {
  const auto rule = GENERATE(as<std::string>(), "a b, a b -> a b", "a b, b -> a b", "b, a b -> a b", "a b, a 1 -> a b",
                             "a 1, b -> a b", ", a b -> a b", "a b, -> a b", "a b c, b c -> a b c",
                             "a b c, a 1 c -> a b c", ", -> ", "o b, b -> o b");
  INFO(rule);
  Case c(rule, Case::whole({{"a", 37}, {"b", 45}, {"c", 20}, {"o", 0}}));
  for (double& x : c.input(1)) x += 2;  // away from 0, for div and log
  for (const Pair& p : {Pair{"add", cpu::add, reference::add},
                        {"sub", cpu::sub, reference::sub},
                        {"mul", cpu::mul, reference::mul},
                        {"div", cpu::div, reference::div},
                        {"maximum", cpu::maximum, reference::maximum},
                        {"minimum", cpu::minimum, reference::minimum},
                        {"gelu_vjp", cpu::gelu_vjp, reference::gelu_vjp},
                        {"silu_vjp", cpu::silu_vjp, reference::silu_vjp},
                        {"log_add", cpu::log_add, reference::log_add}}) {
    INFO(p.name);
    check_cpu(c, p.cpu, p.reference);
  }
}

TEST_CASE("a NaN in either operand is the larger and the smaller of both") {
  Case c("a, a -> a", Case::whole({{"a", 3}}));
  c.input(0) = {std::nan(""), 1, 2};
  c.input(1) = {1, std::nan(""), 3};
  for (PrepareFn kernel : {cpu::maximum, reference::maximum, cpu::minimum, reference::minimum}) {
    const std::vector<double> y = c.run(kernel)[0];
    CHECK((std::isnan(y[0]) && std::isnan(y[1]) && !std::isnan(y[2])));
  }
}

TEST_CASE("gradients of gelu and silu are the slopes") {
  for (const auto& [f, vjp] : std::vector<std::pair<PrepareFn, PrepareFn>>{{reference::gelu, reference::gelu_vjp},
                                                                           {reference::silu, reference::silu_vjp}}) {
    Case y("a -> a", Case::whole({{"a", 2}}), {}, Dtype::f64), dx("a, a -> a", Case::whole({{"a", 2}}), {}, Dtype::f64);
    for (double x : {-3.0, -0.4, 0.0, 0.7, 2.5}) {
      y.input(0) = {x - 1e-5, x + 1e-5};
      dx.input(0) = {x, x};
      dx.input(1) = {1, 2};
      const std::vector<double> values = y.run(f)[0], slopes = dx.run(vjp)[0];
      CHECK(slopes[0] == Approx((values[1] - values[0]) / 2e-5).epsilon(1e-7).margin(1e-9));
      CHECK(slopes[1] == Approx(2 * slopes[0]).margin(1e-12));
    }
  }
}

TEST_CASE("convert rounds to nearest even, and cuts towards integers") {
  for (const auto& [from, to] : {std::pair{Dtype::f32, Dtype::bf16},
                                 {Dtype::bf16, Dtype::f32},
                                 {Dtype::f64, Dtype::f32},
                                 {Dtype::f32, Dtype::f64},
                                 {Dtype::f64, Dtype::bf16},
                                 {Dtype::f32, Dtype::f16},
                                 {Dtype::f16, Dtype::f32},
                                 {Dtype::f16, Dtype::bf16},
                                 {Dtype::f64, Dtype::f16}}) {
    Case c("a -> a", Case::whole({{"a", 70}}));
    c.spec().operands[0].type.dtype = from;
    c.spec().results[0].type.dtype = to;
    check_cpu(c, cpu::convert, reference::convert, 1e-30);
  }
  Case c("a -> a", Case::whole({{"a", 2}}));
  c.input(0) = {2.75, -2.75};
  c.spec().results[0].type.dtype = Dtype::i32;
  CHECK(c.run(reference::convert)[0] == std::vector<double>{2, -2});
}

// base/buffer.h says what the bits are.
template <class Half>
void check_conversions() {
  const cpu::Conversions<Half> f = cpu::conversions<Half>();
  std::vector<Half> halves(65536), back(100003);
  std::vector<float> wide(65536), numbers;
  for (uint32_t i = 0; i < 65536; ++i) halves[i].bits = static_cast<uint16_t>(i);
  f.widen(halves.data(), wide.data(), 65536);
  uint32_t bits = 1;
  for (size_t i = 0; i < back.size(); ++i) {
    bits = bits * 1664525 + 1013904223;
    // Any number, then those near what f16 has.
    const uint32_t near = (0x32800000 + bits % 0x16000000) | (bits & 0x80000000);
    numbers.push_back(std::bit_cast<float>(i % 2 == 0 ? bits : near & (i % 4 == 1 ? 0xFFFFFFFF : 0xFFFFF000)));
  }
  f.narrow(numbers.data(), back.data(), static_cast<int64_t>(back.size()));
  int wrong = 0;
  for (size_t i = 0; i < wide.size(); ++i) {
    const auto x = static_cast<float>(halves[i]);
    wrong += std::isnan(x) ? !std::isnan(wide[i]) : std::bit_cast<uint32_t>(x) != std::bit_cast<uint32_t>(wide[i]);
  }
  CHECK(wrong == 0);
  for (size_t i = 0; i < back.size(); ++i) {
    const Half x(numbers[i]);
    wrong += std::isnan(numbers[i]) ? !std::isnan(static_cast<float>(back[i])) : x.bits != back[i].bits;
  }
  CHECK(wrong == 0);
}

TEST_CASE("vectors convert as single numbers do, on every instruction set of the machine") {
  const int64_t all = hwy::SupportedTargets();
  for (int64_t rest = all; rest != 0; rest &= rest - 1) {
    hwy::SetSupportedTargetsForTest(rest);  // the best of these is taken; the next round is without it
    INFO("targets " << rest);
    check_conversions<bfloat16>();
    check_conversions<float16>();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST_CASE("adamw follows its formula, in place too") {
  const Attributes attributes{{"beta1", 0.9}, {"beta2", 0.99}, {"eps", 1e-6}, {"decay", 0.1}};
  for (Dtype dtype : {Dtype::f64, Dtype::f32}) {
    Case c("a, a, a, a, , , -> a, a, a", Case::whole({{"a", 37}}), attributes, dtype);
    for (double& v : c.input(2)) v = std::abs(v);
    c.input(4) = {0.25};  // rate
    c.input(5) = {0.5};   // scale
    c.input(6) = {3};     // step
    const auto got = c.run(reference::adamw);
    for (size_t i = 0; i < 37; ++i) {
      const double w = c.input(0)[i], g = 0.5 * c.input(3)[i];
      const double m = 0.9 * c.input(1)[i] + 0.1 * g, v = 0.99 * c.input(2)[i] + 0.01 * g * g;
      const double step = m / (1 - std::pow(0.9, 3)) / (std::sqrt(v / (1 - std::pow(0.99, 3))) + 1e-6) + 0.1 * w;
      CHECK(got[0][i] == Approx(w - 0.25 * step).epsilon(1e-5));
      CHECK(got[1][i] == Approx(m).epsilon(1e-5).margin(1e-7));
      CHECK(got[2][i] == Approx(v).epsilon(1e-5));
    }
    if (dtype == Dtype::f32) check_cpu(c, cpu::adamw, reference::adamw);
  }
  Case c("a, a, a, a, , , -> a, a, a", Case::whole({{"a", 21}}), attributes);
  for (double& v : c.input(2)) v = std::abs(v);
  c.input(6) = {1};
  const auto apart = c.run(cpu::adamw);
  Buffer w(84), m(84), v(84), g(84), scalars(256);
  for (size_t i = 0; i < 21; ++i) {
    reinterpret_cast<float*>(w.data())[i] = static_cast<float>(c.input(0)[i]);
    reinterpret_cast<float*>(m.data())[i] = static_cast<float>(c.input(1)[i]);
    reinterpret_cast<float*>(v.data())[i] = static_cast<float>(c.input(2)[i]);
    reinterpret_cast<float*>(g.data())[i] = static_cast<float>(c.input(3)[i]);
  }
  for (size_t i = 0; i < 3; ++i)
    *reinterpret_cast<float*>(scalars.data() + 64 * i) = static_cast<float>(c.input(4 + i)[0]);
  const std::vector<void*> operands{
      w.data(), m.data(), v.data(), g.data(), scalars.data(), scalars.data() + 64, scalars.data() + 128};
  const std::vector<void*> results{w.data(), m.data(), v.data()};
  cpu::adamw(c.spec()).run({operands, results, nullptr});
  for (size_t i = 0; i < 21; ++i) {
    CHECK(reinterpret_cast<float*>(w.data())[i] == apart[0][i]);
    CHECK(reinterpret_cast<float*>(v.data())[i] == apart[2][i]);
  }
}

}  // namespace
}  // namespace meshard
