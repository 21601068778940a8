#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

TEST_CASE("einsum sums products over the factors that the result lacks") {
  Case c("m k, k n -> m n", Case::whole({{"m", 2}, {"k", 3}, {"n", 2}}), {},
         GENERATE(Dtype::f64, Dtype::f32, Dtype::bf16));
  c.input(0) = {1, 2, 3, 4, 5, 6};
  c.input(1) = {1, 0, 0, 1, 2, -1};
  CHECK(c.run(reference::einsum)[0] == std::vector<double>{7, -1, 16, -1});
  Case three("i, j, i j -> ", Case::whole({{"i", 2}, {"j", 2}}));
  three.input(0) = {1, 2};
  three.input(1) = {3, 4};
  three.input(2) = {1, 1, 0, 1};
  CHECK(three.run(reference::einsum)[0] == std::vector<double>{3 + 4 + 8});
  Case one("i j -> j", Case::whole({{"i", 2}, {"j", 2}}));
  one.input(0) = {1, 2, 3, 4};
  CHECK(one.run(reference::einsum)[0] == std::vector<double>{4, 6});
}

TEST_CASE("tuned einsum agrees with the reference") {
  const auto sizes = Case::whole({{"b", 3},
                                  {"t", 5},
                                  {"s", 6},
                                  {"d", 7},
                                  {"h", 4},
                                  {"e", 16},
                                  {"f", 33},
                                  {"v", 19},
                                  {"g", 2},
                                  {"r", 2},
                                  {"one", 1}});
  const auto rule =
      GENERATE(as<std::string>(), "b t d, d f -> b t f", "b t f, d f -> b t d", "b t d, b t f -> d f",
               "b t d, v d -> b t v", "b t v, v d -> b t d", "b t v, b t d -> v d", "b t d, d h e -> b h t e",
               "b h t e, d h e -> b t d", "b t d, b h t e -> d h e", "b h t e, h e d -> b t d",
               "b h t e, b h s e -> b h t s", "b h t s, b h s e -> b h t e", "b h t s, b h t e -> b h s e",
               "b g r t e, b g s e -> b g r t s", "b t d, d -> b t", "d, b t d -> b t", "t, d -> t d", "d, t -> t d",
               "t, d -> d t", "b t (h e), (h e) d -> b t d", "b t d, b d f -> b t f", "b t d, f d -> f b t",
               "b t d, b t -> d", "b s h e, b t h e -> b h t s", "one t d, d f -> one t f", "t d, t d -> d t one");
  INFO(rule);
  Case c(rule, sizes);
  if (!c.taken(cpu::einsum)) {
    // There is no matrix product in it, or no oneDNN in this build, which then takes none.
    const bool built = Case("b t d, d f -> b t f", sizes).taken(cpu::einsum);
    CHECK((!built || rule == "t d, t d -> d t one"));
    return;
  }
  check_cpu(c, cpu::einsum, reference::einsum);
  // On a processor without the instructions there is nothing to compare.
  Case half(rule, sizes, {}, Dtype::bf16);
  if (half.taken(cpu::einsum_bf16)) check_cpu(half, cpu::einsum_bf16, reference::einsum, 2e-2);
}

TEST_CASE("a few rows times a matrix that threads share") {
  const auto rule = GENERATE(as<std::string>(), "m k, k n -> m n", "m k, n k -> m n", "k m, k n -> m n", "n k, m k -> m n", "m k, k n -> n m",
                             "k n, m k -> m n");
  const int64_t rows = GENERATE(1, 2, 3, 4, 5);
  INFO(rule << ", " << rows << " rows");
  Case c(rule, Case::whole({{"m", rows}, {"k", 135}, {"n", 1501}}));
  if (!c.taken(cpu::einsum)) return;  // a build without oneDNN
  check_cpu(c, cpu::einsum, reference::einsum);
}

TEST_CASE("tuned einsum with nothing to sum or to write") {
  Case zeros("t d, d f -> t f", Case::whole({{"t", 3}, {"d", 0}, {"f", 4}}));
  if (!zeros.taken(cpu::einsum)) return;  // a build without oneDNN
  CHECK(zeros.run(cpu::einsum)[0] == std::vector<double>(12, 0.0));
  Case empty("t d, d f -> t f", Case::whole({{"t", 0}, {"d", 3}, {"f", 4}}));
  CHECK(empty.run(cpu::einsum)[0].empty());
  Case single("t d, d f -> t f", Case::whole({{"t", 1}, {"d", 3}, {"f", 1}}));
  if (single.taken(cpu::einsum)) check_cpu(single, cpu::einsum, reference::einsum);
  Case lone("t d, f -> t f", Case::whole({{"t", 2}, {"d", 3}, {"f", 2}}));
  CHECK_FALSE(lone.taken(cpu::einsum));  // d is summed in one operand alone
  Case wide("t d, d f -> t f", Case::whole({{"t", 2}, {"d", 3}, {"f", 2}}), {}, Dtype::f64);
  CHECK_FALSE(wide.taken(cpu::einsum));
}

}  // namespace
}  // namespace meshard
