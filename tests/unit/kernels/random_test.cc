#include "meshard/kernels/random.h"

#include "meshard/kernels/philox.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

using Words = std::array<uint32_t, 4>;

TEST_CASE("philox gives the published numbers") {
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("the exact logarithm, sine and cosine are near the library's") {
  for (uint32_t word = 1; word > 0 && word < 0xf0000000; word = word + word / 64 + 1) {
    const double u = philox_unit(word);
    CHECK(exact::log(u) == Approx(std::log(u)).epsilon(4e-16).margin(3e-16));
    CHECK(exact::turn(u).sine == Approx(std::sin(2 * 3.14159265358979323846 * u)).margin(8e-16).epsilon(0));
    CHECK(exact::turn(u).cosine == Approx(std::cos(2 * 3.14159265358979323846 * u)).margin(8e-16).epsilon(0));
  }
  CHECK(exact::turn(1).cosine == 1);
  CHECK(exact::log(1) == 0);
}

// What other compilers and machines must give too.
TEST_CASE("normal numbers have these bits") {
  const RandomStream stream{true, 7, random_name("w"), 1};
  const RandomFour four = random_four(stream, 12345);
  CHECK(four.x[0] == -0x1.2ebaded03d42bp+0);
  CHECK(four.x[3] == -0x1.86e813a02de43p-1);
}

TEST_CASE("random numbers are the same on any split") {
  const Shape global{5, 7, 3};
  const auto dtype = GENERATE(Dtype::f64, Dtype::f32, Dtype::bf16);
  Buffer all(global.elements() * 8), part(global.elements() * 8);
  fill_normal({all.data(), dtype, global}, global, std::vector<int64_t>{0, 0, 0}, 7, "w", 0.5);
  const size_t bytes = static_cast<size_t>(size_bytes(dtype));
  for (const auto& [size, begin] : std::vector<std::pair<Shape, std::vector<int64_t>>>{
           {{2, 7, 3}, {3, 0, 0}}, {{5, 3, 1}, {0, 4, 2}}, {{1, 1, 1}, {4, 6, 2}}, {{0, 7, 3}, {5, 0, 0}}}) {
    fill_normal({part.data(), dtype, size}, global, begin, 7, "w", 0.5, 3);
    size_t at = 0;
    for (int64_t i = 0; i < size[0]; ++i) {
      for (int64_t j = 0; j < size[1]; ++j) {
        for (int64_t k = 0; k < size[2]; ++k, ++at) {
          const int64_t index = ((begin[0] + i) * 7 + begin[1] + j) * 3 + begin[2] + k;
          REQUIRE(std::memcmp(part.data() + at * bytes, all.data() + static_cast<size_t>(index) * bytes, bytes) == 0);
        }
      }
    }
  }
}

TEST_CASE("random numbers have their distribution, and depend on seed and name") {
  const Shape shape{100000};
  const std::vector<int64_t> begin{0};
  Buffer a(shape.elements() * 4), b(shape.elements() * 4);
  const View va{a.data(), Dtype::f32, shape}, vb{b.data(), Dtype::f32, shape};
  const auto moments = [&](const View& v) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < shape.elements(); ++i) {
      sum += v.as<float>()[i];
      squares += static_cast<double>(v.as<float>()[i]) * v.as<float>()[i];
    }
    return std::pair{sum / 1e5, squares / 1e5};
  };
  fill_normal(va, shape, begin, 1, "a", 2);
  CHECK(moments(va).first == Approx(0).margin(0.03));
  CHECK(moments(va).second == Approx(4).margin(0.1));
  fill_uniform(vb, shape, begin, 1, "a", 3);
  CHECK(moments(vb).first == Approx(0).margin(0.03));
  CHECK(moments(vb).second == Approx(3).margin(0.05));
  for (int64_t i = 0; i < shape.elements(); ++i) REQUIRE((vb.as<float>()[i] >= -3 && vb.as<float>()[i] < 3));
  fill_normal(vb, shape, begin, 2, "a", 2);
  CHECK(va.as<float>()[0] != vb.as<float>()[0]);
  fill_normal(vb, shape, begin, 1, "b", 2);
  CHECK(va.as<float>()[0] != vb.as<float>()[0]);
}

TEST_CASE("the kernels count from the block's begin, in dimensions of two factors too") {
  const Attributes attributes{
      {"seed", int64_t{3}}, {"name", std::string("x")}, {"scale", 0.5}, {"dimension", int64_t{1}}};
  Case all(" -> a (b c)", Case::whole({{"a", 3}, {"b", 4}, {"c", 5}}), attributes);
  Case part(" -> a (b c)", {{"a", {2, 3, 1}}, {"b", {2, 4, 2}}, {"c", {5, 5, 0}}}, attributes);
  for (PrepareFn kernel : {reference::random_normal, reference::random_uniform, reference::iota}) {
    const std::vector<double> x = all.run(kernel)[0], y = part.run(kernel)[0];
    for (size_t a = 0; a < 2; ++a) {
      for (size_t bc = 0; bc < 10; ++bc) CHECK(y[a * 10 + bc] == x[(a + 1) * 20 + 10 + bc]);
    }
  }
  CHECK(all.run(reference::iota)[0][37] == 17);
}

}  // namespace
}  // namespace meshard
