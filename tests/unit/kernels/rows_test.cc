#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "spec.h"

namespace meshard {
namespace {

std::map<std::string, Part> shapes() {
  return GENERATE(
      values({Case::whole({{"b", 3}, {"c", 131}, {"v", 131}}), Case::whole({{"b", 70}, {"c", 16}, {"v", 16}}),
              Case::whole({{"b", 1}, {"c", 1}, {"v", 1}}), Case::whole({{"b", 0}, {"c", 5}, {"v", 5}})}));
}

TEST_CASE("tuned rows agree with the reference") {
  const auto sizes = shapes();
  Case softmax("b c -> b c", sizes), softmax_vjp("b c, b c -> b c", sizes);
  check_cpu(softmax, cpu::softmax, reference::softmax);
  check_cpu(softmax_vjp, cpu::softmax_vjp, reference::softmax_vjp, 1e-5);
  Case layer("b c, c, c -> b c, b, b", sizes), rms("b c, c -> b c, b", sizes);
  check_cpu(layer, cpu::layer_norm, reference::layer_norm, 1e-5);
  check_cpu(rms, cpu::rms_norm, reference::rms_norm, 1e-5);
  Case layer_vjp("b c, c, b, b, b c -> b c, c, c", sizes), rms_vjp("b c, c, b, b c -> b c, c", sizes);
  check_cpu(layer_vjp, cpu::layer_norm_vjp, reference::layer_norm_vjp, 1e-5);
  check_cpu(rms_vjp, cpu::rms_norm_vjp, reference::rms_norm_vjp, 1e-5);
  Case loss("b v, b -> b, b", sizes), loss_vjp("b v, b, b, b -> b v", sizes), pick("b v, b -> b", sizes);
  for (Case* c : {&loss, &loss_vjp, &pick}) c->integers(1, sizes.at("v").size);
  check_cpu(loss, cpu::cross_entropy, reference::cross_entropy);
  check_cpu(loss_vjp, cpu::cross_entropy_vjp, reference::cross_entropy_vjp);
  check_cpu(pick, cpu::pick, reference::pick);
}

TEST_CASE("layer_norm gives rows of mean 0 and variance 1, rms_norm of mean square 1") {
  Case layer("b c, c, c -> b c, b, b", Case::whole({{"b", 2}, {"c", 4}}), {{"eps", 0.0}}, Dtype::f64);
  layer.input(0) = {1, 2, 3, 4, -3, -3, 5, 5};
  layer.input(1) = {1, 1, 1, 2};
  layer.input(2) = {0, 0, 0, 1};
  const auto y = layer.run(reference::layer_norm);
  CHECK(y[1] == std::vector<double>{2.5, 1});
  CHECK(y[2][0] == Approx(1 / std::sqrt(1.25)));
  CHECK(y[0][0] == Approx(-1.5 / std::sqrt(1.25)));
  CHECK(y[0][3] == Approx(2 * 1.5 / std::sqrt(1.25) + 1));
  CHECK(y[0][7] == Approx(3));
  Case rms("b c, c -> b c, b", Case::whole({{"b", 1}, {"c", 2}}), {{"eps", 0.0}}, Dtype::f64);
  rms.input(0) = {3, 4};
  rms.input(1) = {1, 10};
  CHECK(rms.run(reference::rms_norm)[0][1] == Approx(40 / std::sqrt(12.5)));
}

// The gradient of sum(weights * f(inputs)) by central differences against the vjp, in f64: results r of f are weighted
// by the vjp's last operand if r is 0 and do not count otherwise.
void check_gradient(Case& f, PrepareFn forward, Case& g, PrepareFn backward, size_t inputs) {
  const std::vector<double> dy = g.input(g.spec().operands.size() - 1);
  const auto value = [&] {
    double sum = 0;
    const std::vector<double> y = f.run(forward)[0];
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  const auto gradients = g.run(backward);
  for (size_t i = 0; i < inputs; ++i) {
    for (size_t j = 0; j < f.input(i).size(); ++j) {
      const double before = f.input(i)[j];
      f.input(i)[j] = before + 1e-5;
      const double up = value();
      f.input(i)[j] = before - 1e-5;
      const double down = value();
      f.input(i)[j] = before;
      CHECK(gradients[i][j] == Approx((up - down) / 2e-5).epsilon(1e-6).margin(1e-8));
    }
  }
}

TEST_CASE("the reference's gradients are the slopes of its values") {
  const auto sizes =
      Case::whole({{"b", 2}, {"c", 5}, {"v", 5}, {"h", 2}, {"t", 3}, {"s", 4}, {"e", 2}, {"g", 2}, {"r", 2}});
  Case layer("b c, c, c -> b c, b, b", sizes, {}, Dtype::f64),
      layer_vjp("b c, c, b, b, b c -> b c, c, c", sizes, {}, Dtype::f64);
  auto y = layer.run(reference::layer_norm);
  layer_vjp.input(0) = layer.input(0);
  layer_vjp.input(1) = layer.input(1);
  layer_vjp.input(2) = y[1];
  layer_vjp.input(3) = y[2];
  check_gradient(layer, reference::layer_norm, layer_vjp, reference::layer_norm_vjp, 3);

  Case rms("b c, c -> b c, b", sizes, {}, Dtype::f64), rms_vjp("b c, c, b, b c -> b c, c", sizes, {}, Dtype::f64);
  rms_vjp.input(0) = rms.input(0);
  rms_vjp.input(1) = rms.input(1);
  rms_vjp.input(2) = rms.run(reference::rms_norm)[1];
  check_gradient(rms, reference::rms_norm, rms_vjp, reference::rms_norm_vjp, 2);

  Case softmax("b c -> b c", sizes, {}, Dtype::f64), softmax_vjp("b c, b c -> b c", sizes, {}, Dtype::f64);
  softmax_vjp.input(0) = softmax.run(reference::softmax)[0];
  check_gradient(softmax, reference::softmax, softmax_vjp, reference::softmax_vjp, 1);

  Case loss("b v, b -> b, b", sizes, {}, Dtype::f64), loss_vjp("b v, b, b, b -> b v", sizes, {}, Dtype::f64);
  loss.integers(1, 5);
  loss_vjp.integers(1, 5);
  loss_vjp.input(0) = loss.input(0);
  loss_vjp.input(1) = loss.input(1);
  loss_vjp.input(2) = loss.run(reference::cross_entropy)[1];
  check_gradient(loss, reference::cross_entropy, loss_vjp, reference::cross_entropy_vjp, 1);

  for (const bool grouped : {false, true}) {
    const std::string q = grouped ? "b g r t e" : "b h t e", k = grouped ? "b g s e" : "b h s e",
                      lse = q.substr(0, q.size() - 2);
    Case attention(q + ", " + k + ", " + k + " -> " + q + ", " + lse, sizes, {}, Dtype::f64);
    Case vjp(q + ", " + k + ", " + k + ", " + q + ", " + lse + ", " + q + " -> " + q + ", " + k + ", " + k, sizes, {},
             Dtype::f64);
    y = attention.run(reference::attention);
    for (size_t i = 0; i < 3; ++i) vjp.input(i) = attention.input(i);
    vjp.input(3) = y[0];
    vjp.input(4) = y[1];
    check_gradient(attention, reference::attention, vjp, reference::attention_vjp, 3);
  }
}

TEST_CASE("a split vocabulary: the vjp and pick of a block are those of the whole") {
  Case loss("b v, b, b, b -> b v", Case::whole({{"b", 3}, {"v", 7}})),
      pick("b v, b -> b", Case::whole({{"b", 3}, {"v", 7}}));
  const auto part = [](Case& from, Case& to, size_t begin, size_t size) {
    for (size_t b = 0; b < 3; ++b) {
      for (size_t v = 0; v < size; ++v) to.input(0)[b * size + v] = from.input(0)[b * 7 + begin + v];
    }
    for (size_t i = 1; i < from.spec().operands.size(); ++i) to.input(i) = from.input(i);
  };
  for (Case* c : {&loss, &pick}) {
    c->integers(1, 7);
    c->input(1) = {0, 5, 6};
  }
  for (bool tuned : {false, true}) {
    const auto whole = loss.run(tuned ? cpu::cross_entropy_vjp : reference::cross_entropy_vjp)[0];
    std::vector<double> picked(3, 0.0);
    for (const auto& [begin, size] : {std::pair<size_t, size_t>{0, 4}, {4, 3}}) {
      const Part v{static_cast<int64_t>(size), 7, static_cast<int64_t>(begin)};
      Case block("b v, b, b, b -> b v", {{"b", {3, 3, 0}}, {"v", v}}),
          pick_block("b v, b -> b", {{"b", {3, 3, 0}}, {"v", v}});
      block.integers(1, 7);
      pick_block.integers(1, 7);
      part(loss, block, begin, size);
      part(pick, pick_block, begin, size);
      const auto got = block.run(tuned ? cpu::cross_entropy_vjp : reference::cross_entropy_vjp)[0];
      for (size_t b = 0; b < 3; ++b) {
        for (size_t i = 0; i < size; ++i) CHECK(got[b * size + i] == whole[b * 7 + begin + i]);
      }
      const auto hit = pick_block.run(tuned ? cpu::pick : reference::pick)[0];
      for (size_t b = 0; b < 3; ++b) picked[b] += hit[b];
    }
    CHECK(picked == pick.run(reference::pick)[0]);
  }
}

TEST_CASE("rope turns pairs by the global position, and back") {
  const auto rule = GENERATE(as<std::string>(), "b h t e -> b h t e", "b t h e -> b t h e", "t e -> t e");
  Case c(rule, {{"b", {2, 2, 0}}, {"h", {3, 3, 0}}, {"t", {5, 9, 4}}, {"e", {34, 34, 0}}}, {{"theta", 100.0}});
  check_cpu(c, cpu::rope, reference::rope, 1e-6);
  const auto turned = c.run(reference::rope)[0];
  Case back(rule, {{"b", {2, 2, 0}}, {"h", {3, 3, 0}}, {"t", {5, 9, 4}}, {"e", {34, 34, 0}}},
            {{"theta", 100.0}, {"inverse", true}});
  back.input(0) = turned;
  CHECK(distance(back.run(reference::rope)[0], c.input(0)) < 1e-6);
  check_cpu(back, cpu::rope, reference::rope, 1e-6);
  const double x = c.input(0)[0], y = c.input(0)[17];  // position 4, pair 0: 4 radians
  CHECK(turned[0] == Approx(x * std::cos(4.0) - y * std::sin(4.0)).epsilon(1e-5));
}

}  // namespace
}  // namespace meshard
