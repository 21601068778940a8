#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

constexpr const char* kPlain = "b h t e, b h s e, b h s e -> b h t e, b h t";
constexpr const char* kPlainVjp = "b h t e, b h s e, b h s e, b h t e, b h t, b h t e -> b h t e, b h s e, b h s e";

TEST_CASE("attention is softmax(scale q k) v over the positions that are seen") {
  const int64_t b = 2, h = 2, t = 3, s = 7, e = 4, begin = 2;
  const bool causal = GENERATE(true, false);
  Case c(kPlain, {{"b", {b, b, 0}}, {"h", {h, h, 0}}, {"t", {t, 7, begin}}, {"s", {s, s, 0}}, {"e", {e, e, 0}}},
         {{"causal", causal}}, Dtype::f64);
  const auto got = c.run(reference::attention);
  for (int64_t head = 0; head < b * h; ++head) {
    for (int64_t i = 0; i < t; ++i) {
      std::vector<double> p;
      double sum = 0;
      for (int64_t j = 0; j < (causal ? begin + i + 1 : s); ++j) {
        double score = 0;
        for (int64_t x = 0; x < e; ++x) {
          score += c.input(0)[static_cast<size_t>((head * t + i) * e + x)] *
                   c.input(1)[static_cast<size_t>((head * s + j) * e + x)];
        }
        p.push_back(std::exp(score / 2));
        sum += p.back();
      }
      for (int64_t x = 0; x < e; ++x) {
        double o = 0;
        for (size_t j = 0; j < p.size(); ++j)
          o += p[j] / sum * c.input(2)[static_cast<size_t>((head * s + static_cast<int64_t>(j)) * e + x)];
        CHECK(got[0][static_cast<size_t>((head * t + i) * e + x)] == Approx(o));
      }
      CHECK(got[1][static_cast<size_t>(head * t + i)] == Approx(std::log(sum)));
    }
  }
}

struct Shapes {
  int64_t b, h, t, t_global, begin, s, e;
};

TEST_CASE("tuned attention agrees with the reference") {
  const auto z = GENERATE(values<Shapes>({{2, 3, 5, 5, 0, 5, 16},
                                          {1, 1, 70, 70, 0, 70, 64},
                                          {1, 2, 65, 200, 100, 200, 20},
                                          {1, 1, 1, 9, 8, 9, 2},
                                          {0, 2, 4, 4, 0, 4, 8},
                                          {2, 2, 0, 4, 4, 4, 8}}));
  const bool causal = GENERATE(true, false);
  const Attributes attributes{{"causal", causal}, {"scale", 0.3}};
  const std::map<std::string, Part> sizes{{"b", {z.b, z.b, 0}}, {"h", {z.h, z.h, 0}}, {"t", {z.t, z.t_global, z.begin}},
                                          {"s", {z.s, z.s, 0}}, {"e", {z.e, z.e, 0}}, {"g", {z.h, z.h, 0}},
                                          {"r", {2, 2, 0}}};
  const auto both = [&](const char* forward, const char* backward) {
    Case f(forward, sizes, attributes), g(backward, sizes, attributes);
    check_cpu(f, cpu::attention, reference::attention, 1e-5);
    const auto y = f.run(reference::attention);
    for (size_t i = 0; i < 3; ++i) g.input(i) = f.input(i);
    g.input(3) = y[0];
    g.input(4) = y[1];
    check_cpu(g, cpu::attention_vjp, reference::attention_vjp, 1e-5);
  };
  both(kPlain, kPlainVjp);
  both("b g r t e, b g s e, b g s e -> b g r t e, b g r t",
       "b g r t e, b g s e, b g s e, b g r t e, b g r t, b g r t e -> b g r t e, b g s e, b g s e");
  both("b t h e, b s h e, b s h e -> b t h e, b h t",
       "b t h e, b s h e, b s h e, b t h e, b h t, b t h e -> b t h e, b s h e, b s h e");
}

TEST_CASE("a query's result does not depend on the block that it stands in") {
  Case all(kPlain, Case::whole({{"b", 1}, {"h", 1}, {"t", 100}, {"s", 100}, {"e", 16}}));
  Case part(kPlain,
            {{"b", {1, 1, 0}}, {"h", {1, 1, 0}}, {"t", {37, 100, 63}}, {"s", {100, 100, 0}}, {"e", {16, 16, 0}}});
  std::copy(all.input(0).begin() + 63 * 16, all.input(0).end(), part.input(0).begin());
  part.input(1) = all.input(1);
  part.input(2) = all.input(2);
  const auto x = all.run(cpu::attention), y = part.run(cpu::attention);
  CHECK(std::equal(y[0].begin(), y[0].end(), x[0].begin() + 63 * 16));
  CHECK(std::equal(y[1].begin(), y[1].end(), x[1].begin() + 63));
}

TEST_CASE("bf16 attention stays near f64") {
  const auto sizes = Case::whole({{"b", 1}, {"h", 2}, {"t", 6}, {"s", 6}, {"e", 8}});
  Case fine(kPlain, sizes, {}, Dtype::f64), coarse(kPlain, sizes, {}, Dtype::bf16);
  CHECK(distance(coarse.run(reference::attention)[0], fine.run(reference::attention)[0]) < 0.02);
}

}  // namespace
}  // namespace meshard
