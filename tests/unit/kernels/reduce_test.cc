#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

struct Pair {
  const char* name;
  PrepareFn cpu, reference;
};
const Pair kReductions[] = {{"sum", cpu::sum, reference::sum},
                            {"max", cpu::max, reference::max},
                            {"min", cpu::min, reference::min},
                            {"mean", cpu::mean, reference::mean},
                            {"sum_squares", cpu::sum_squares, reference::sum_squares}};

TEST_CASE("reductions") {
  Case c("a b -> a", Case::whole({{"a", 2}, {"b", 3}}), {}, GENERATE(Dtype::f64, Dtype::f32, Dtype::bf16));
  c.input(0) = {1, -2, 4, 0.5, 0.5, -8};
  CHECK(c.run(reference::sum)[0] == std::vector<double>{3, -7});
  CHECK(c.run(reference::max)[0] == std::vector<double>{4, 0.5});
  CHECK(c.run(reference::min)[0] == std::vector<double>{-2, -8});
  CHECK(c.run(reference::sum_squares)[0] == std::vector<double>{21, 64.5});
  CHECK(c.run(reference::mean)[0][0] == Approx(1).epsilon(0.01));
}

TEST_CASE("of nothing a reduction gives its neutral element, and the mean counts the whole tensor") {
  const double inf = std::numeric_limits<double>::infinity();
  Case c("a b -> a", {{"a", {2, 2, 0}}, {"b", {0, 4, 4}}});
  for (bool tuned : {false, true}) {
    CHECK(c.run(tuned ? cpu::sum : reference::sum)[0] == std::vector<double>{0, 0});
    CHECK(c.run(tuned ? cpu::max : reference::max)[0] == std::vector<double>{-inf, -inf});
    CHECK(c.run(tuned ? cpu::min : reference::min)[0] == std::vector<double>{inf, inf});
    CHECK(c.run(tuned ? cpu::mean : reference::mean)[0] == std::vector<double>{0, 0});
  }
  Case half("a b -> a", {{"a", {1, 1, 0}}, {"b", {2, 4, 2}}});
  half.input(0) = {6, 10};
  CHECK(half.run(reference::mean)[0] == std::vector<double>{4});
  CHECK(half.run(cpu::mean)[0] == std::vector<double>{4});
}

TEST_CASE("tuned reductions agree with the reference") {
  const auto rule = GENERATE(as<std::string>(), "a b c -> ", "a b c -> a b", "a b c -> a", "a b c -> c", "a b c -> b c",
                             "a b c -> a b 1", "a b c -> a c", "d a b c -> a c", "a b -> a b", "o b -> b", "a o -> o", "w -> ");
  INFO(rule);
  Case c(rule, Case::whole({{"a", 7}, {"b", 5}, {"c", 131}, {"d", 3}, {"o", 0}, {"w", 30000}}));
  for (const Pair& p : kReductions) {
    INFO(p.name);
    check_cpu(c, p.cpu, p.reference, 2e-5);
  }
}

TEST_CASE("a reduction that turns its dimensions is left to the reference") {
  Case c("a b c -> c a", Case::whole({{"a", 2}, {"b", 3}, {"c", 4}}));
  CHECK_FALSE(c.taken(cpu::sum));
  CHECK(c.run(reference::sum)[0][2] == Approx(c.input(0)[1] + c.input(0)[5] + c.input(0)[9]));
}

TEST_CASE("a NaN is not lost in max and min") {
  Case c("a -> ", Case::whole({{"a", 50}}));
  c.input(0)[17] = std::nan("");
  for (PrepareFn kernel : {cpu::max, cpu::min, reference::max, reference::min}) CHECK(std::isnan(c.run(kernel)[0][0]));
}

TEST_CASE("sum_exp takes the row's top off") {
  Case c("a b, a -> a", Case::whole({{"a", 5}, {"b", 77}}));
  check_cpu(c, cpu::sum_exp, reference::sum_exp);
  double sum = 0;
  for (size_t i = 0; i < 77; ++i) sum += std::exp(c.input(0)[i] - c.input(1)[0]);
  CHECK(c.run(reference::sum_exp)[0][0] == Approx(sum));
  Case empty("a b, a -> a", {{"a", {2, 2, 0}}, {"b", {0, 4, 4}}});
  CHECK(empty.run(cpu::sum_exp)[0] == std::vector<double>{0, 0});
}

}  // namespace
}  // namespace meshard
