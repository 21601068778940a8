#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

TEST_CASE("transpose moves factors") {
  Case c("a b -> b a", Case::whole({{"a", 2}, {"b", 3}}), {},
         GENERATE(Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::i32));
  c.input(0) = {1, 2, 3, 4, 5, 6};
  CHECK(c.run(reference::transpose)[0] == std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK(c.run(cpu::transpose)[0] == std::vector<double>{1, 4, 2, 5, 3, 6});
}

TEST_CASE("tuned copies agree with the reference") {
  const auto rule = GENERATE(as<std::string>(), "a b -> b a", "a b c -> b a c", "a b c -> c b a", "a b c -> a c b",
                             "a (b c) -> a c b", "a b c d -> a c b d", "a b c d -> (d a) (c b)", "a b -> a b",
                             "a o -> o a", "a 1 b -> b 1 a", "d a b c -> a b d c");
  INFO(rule);
  Case c(rule, Case::whole({{"a", 17}, {"b", 35}, {"c", 4}, {"d", 21}, {"o", 0}}));
  check_cpu(c, cpu::transpose, reference::transpose, 1e-30);
}

TEST_CASE("reshape and identity copy") {
  Case c("a (b c) -> a b c", Case::whole({{"a", 3}, {"b", 2}, {"c", 5}}));
  const auto rounded = c.run(reference::identity)[0];
  CHECK(distance(rounded, c.input(0)) < 1e-7);
  check_cpu(c, cpu::reshape, reference::reshape, 1e-30);
}

TEST_CASE("take gives a row") {
  Case c("k a b, -> a b", Case::whole({{"k", 3}, {"a", 2}, {"b", 2}}));
  c.spec().operands[1].type.dtype = Dtype::i32;
  c.input(0) = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  c.input(1) = {2};
  CHECK(c.run(reference::take)[0] == std::vector<double>{8, 9, 10, 11});
  CHECK(c.run(cpu::take)[0] == std::vector<double>{8, 9, 10, 11});
}

TEST_CASE("embedding looks up the ids of its block, and its gradient adds there") {
  const Part v{3, 8, 2};  // rows 2, 3, 4 of 8
  Case look("b t, v d -> b t d", {{"b", {2, 2, 0}}, {"t", {2, 2, 0}}, {"v", v}, {"d", {2, 2, 0}}});
  look.spec().operands[0].type.dtype = Dtype::i32;
  look.input(0) = {4, 1, 2, 5};
  look.input(1) = {1, 2, 3, 4, 5, 6};
  Case add("b t, b t d -> v d", {{"b", {2, 2, 0}}, {"t", {2, 2, 0}}, {"v", v}, {"d", {2, 2, 0}}});
  add.spec().operands[0].type.dtype = Dtype::i32;
  add.input(0) = {4, 2, 4, 7};
  add.input(1) = {1, 2, 3, 4, 5, 6, 7, 8};
  for (bool tuned : {false, true}) {
    CHECK(look.run(tuned ? cpu::embedding : reference::embedding)[0] == std::vector<double>{5, 6, 0, 0, 1, 2, 0, 0});
    CHECK(add.run(tuned ? cpu::embedding_vjp : reference::embedding_vjp)[0] == std::vector<double>{3, 4, 0, 0, 6, 8});
  }
  add.all(Dtype::bf16);
  CHECK(add.run(reference::embedding_vjp)[0] == std::vector<double>{3, 4, 0, 0, 6, 8});
}

}  // namespace
}  // namespace meshard
