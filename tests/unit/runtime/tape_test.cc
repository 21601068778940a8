// Gradients of DTensors, and functions of them compiled as a whole.
#include <catch2/catch.hpp>

#include "meshard/runtime/dtensor.h"
#include "meshard/runtime/dtensor_functions.h"

namespace meshard {
namespace {

std::vector<double> counting(int64_t n, double step) {
  std::vector<double> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(step * static_cast<double>(i * 7 % 11 - 4));
  return v;
}

DTensor make(const Eager& e, const char* type, const char* layout, double step = 0.125) {
  return e.tensor(type, counting(Type::parse(type).shape.elements(), step), layout);
}

void check_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance = 1e-8) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(tolerance));
}

DTensor loss_of(const DTensor& x, const DTensor& up, const DTensor& down, const DTensor& bias) {
  const DTensor h = gelu(einsum("b d, d f -> b f", x, up) + bias);
  return mean(square(softmax(einsum("b f, f d -> b d", h, down)) - 0.1 * x));
}

struct Layouts {
  const char *mesh, *x, *up, *down, *bias;
};
const Layouts kLayouts[] = {{"", "[-, -]", "[-, -]", "[-, -]", "[-]"},
                            {"data=2", "[data, -]", "[-, -]", "[-, -]", "[-]"},
                            {"data=2", "[data, -]", "[data, -]", "[-, data]", "[data]"},
                            {"model=3", "[-, -]", "[-, model]", "[model, -]", "[model]"},
                            {"data=2, model=2", "[data, -]", "[-, model]", "[model, -]", "[model]"},
                            {"data=2, model=2", "[-, data]", "[(model,data), -]", "[-, model]", "[-]"}};

TEST_CASE("gradients are those of central differences, in the layouts of the values") {
  std::vector<std::vector<double>> first;
  for (const Layouts& l : kLayouts) {
    INFO(l.mesh << " " << l.x << " " << l.up);
    Eager e(Mesh::parse(l.mesh));
    const DTensor x = make(e, "f64[5,4]", l.x), up = make(e, "f64[4,6]", l.up), down = make(e, "f64[6,4]", l.down), bias = make(e, "f64[6]", l.bias);
    Tape tape(e);
    const DTensor loss = loss_of(x, up, down, bias);
    const std::vector<DTensor> g = tape.gradients(loss, {up, down, bias, x});
    REQUIRE(g.size() == 4);
    CHECK(g[0].layout() == up.layout());
    CHECK(g[1].layout() == down.layout());
    CHECK(g[2].layout() == bias.layout());
    CHECK(g[3].type() == x.type());
    if (first.empty()) {
      for (const DTensor& d : g) first.push_back(d.values());
      const std::vector<double> at = counting(24, 0.125);
      for (size_t i = 0; i < at.size(); ++i) {
        std::vector<double> more = at, less = at;
        more[i] += 1e-5;
        less[i] -= 1e-5;
        const double rise = loss_of(x, e.tensor("f64[4,6]", more, l.up), down, bias).item() - loss_of(x, e.tensor("f64[4,6]", less, l.up), down, bias).item();
        CHECK(first[0][i] == Approx(rise / 2e-5).margin(1e-7));
      }
    }
    for (size_t i = 0; i < g.size(); ++i) check_near(g[i].values(), first[i]);
  }
}

TEST_CASE("a reverse pass is compiled once, and records nothing") {
  Eager e(Mesh::parse("data=2"));
  DTensor w = make(e, "f32[4,6]", "[-, -]");
  const DTensor x = make(e, "f32[5,4]", "[data, -]");
  double before = 0;
  int64_t misses = 0;
  for (int step = 0; step < 5; ++step) {
    Tape tape(e);
    const DTensor loss = mean(square(einsum("b d, d f -> b f", x, w) + 1));
    const int64_t ops = tape.ops();
    const DTensor dw = tape.gradients(loss, {w})[0];
    CHECK(tape.ops() == ops);
    w = w - 0.5 * dw;
    const double now = loss.item();
    if (step > 0) CHECK(now < before);
    if (step > 1) CHECK(e.stats().misses == misses);
    misses = e.stats().misses;
    before = now;
  }
}

TEST_CASE("a tape knows values with no path, read twice, made of nothing, and moved") {
  Eager e(Mesh::parse("data=2, model=2"));
  const DTensor x = make(e, "f32[4]", "[data]"), y = make(e, "f32[4]", "[-]"), z = make(e, "f32[3]", "[-]");
  Tape tape(e);
  const DTensor ones = full(e, "f32[4]", "[model]", 2);
  const DTensor loss = sum(x * x * ones.redistribute("[data]") + y);
  const std::vector<DTensor> g = tape.gradients(loss, {x, z, y, x});
  std::vector<double> want = x.values();
  for (double& v : want) v *= 4;
  check_near(g[0].values(), want, 1e-6);
  check_near(g[3].values(), want, 1e-6);
  CHECK(g[1].values() == std::vector<double>(3));
  CHECK(g[2].values() == std::vector<double>(4, 1.0));
  // By something on the way.
  const DTensor h = scale(x, 3), after = sum(h * h);
  check_near(tape.gradients(after, {h})[0].values(), scale(h, 2).values(), 1e-6);
  CHECK(tape.gradients(after, {after})[0].item() == 1);
}

TEST_CASE("tapes over ids, convert, several results and losses over a split vocabulary") {
  std::vector<double> first;
  for (const char* mesh : {"", "data=2, model=2"}) {
    const bool whole = mesh[0] == 0;
    Eager e(Mesh::parse(mesh));
    const DTensor ids = e.tensor("i32[5]", std::vector<double>{3, 0, 6, 2, 3}, whole ? "[-]" : "[data]", 7);
    const DTensor table = make(e, "f32[7,4]", whole ? "[-, -]" : "[model, -]"), weight = make(e, "f32[4]", "[-]", 0.3);
    Tape tape(e);
    const DTensor h = rms_norm(embedding(ids, convert(table, Dtype::f64)), convert(weight, Dtype::f64));
    const DTensor loss = mean(cross_entropy(einsum("b d, v d -> b v", convert(h, Dtype::f32), table), ids));
    std::vector<double> all{loss.item()};
    for (const DTensor& g : tape.gradients(loss, {table, weight})) {
      for (double v : g.values()) all.push_back(v);
    }
    if (whole) first = all;
    check_near(all, first, 1e-5);
  }
}

TEST_CASE("what a tape cannot do is said") {
  Eager e(Mesh::parse("data=2"));
  const DTensor x = make(e, "f32[4]", "[data]");
  const DTensor before = sum(x);
  Tape tape(e);
  const DTensor loss = sum(x * x);
  CHECK_THROWS_WITH(tape.gradients(before, {x}),
                    Catch::EndsWith("gradients: the loss was not made while the tape was there; make the Tape before the ops"));
  CHECK_THROWS_WITH(tape.gradients(x * x, {x}), Catch::EndsWith("gradients: the loss is f32[4]; it must be one float: take a mean or a sum"));
    CHECK_THROWS_WITH(tape.gradients(loss, {DTensor()}), Catch::Contains("gradients: operand 1 is none"));
}

TEST_CASE("a compiled function gives the numbers that the function gives") {
  for (const Layouts& l : kLayouts) {
    INFO(l.mesh << " " << l.x << " " << l.up);
    Eager e(Mesh::parse(l.mesh));
    const DTensor x = make(e, "f64[5,4]", l.x), up = make(e, "f64[4,6]", l.up), down = make(e, "f64[6,4]", l.down), bias = make(e, "f64[6]", l.bias);
    int traced = 0;
    const auto step = [&](const std::vector<DTensor>& v) -> std::vector<DTensor> {
      ++traced;
      Tape tape(e);
      const DTensor loss = loss_of(v[0], v[1], v[2], v[3]);
      const std::vector<DTensor> g = tape.gradients(loss, {v[1], v[2]});
      const DTensor noise = normal(e, "f64[4,6]", l.up, 3, "noise");
      return {loss, v[1] - 0.5 * g[0] + 0.01 * noise, (v[2] - 0.5 * g[1]).redistribute(l.down), v[3]};
    };
    const CompiledFunction compiled = e.compile(step);
    const std::vector<DTensor> want = step({x, up, down, bias});
    traced = 0;
    std::vector<DTensor> have = compiled({x, up, down, bias});
    have = compiled({x, up, down, bias});
    CHECK(traced == 1);
    REQUIRE(have.size() == want.size());
    for (size_t i = 0; i < have.size(); ++i) check_near(have[i].values(), want[i].values());
    CHECK(have[2].layout() == down.layout());
    CHECK(have[3].local().data == bias.local().data);
    (void)compiled({make(e, "f64[3,4]", l.x), up, down, bias});  // not of its shape
    CHECK(traced == 2);
    CHECK(compiled.program({x, up, down, bias}).find("= einsum_activation_beside %x0") != std::string::npos);
  }
}

TEST_CASE("what a compiled function cannot do is said") {
  Eager e(Mesh::parse("data=2"));
  const DTensor x = make(e, "f32[4]", "[data]");
  DTensor left;
  using List = std::vector<DTensor>;
  CHECK_THROWS_WITH(e.compile([&](const List& v) { return List{v[0] + x}; })({x}),
                    Catch::EndsWith("add: f32[4] [data] is a value from outside of the function that is being compiled; pass it as an argument"));
  CHECK_THROWS_WITH(e.compile([&](const List& v) { return List{scale(v[0], sum(v[0]).item())}; })({x}),
                    "item() of %sum, f32[]: in a function that is being compiled a value has no numbers yet; return it");
  CHECK_THROWS_WITH(e.compile([&](const List&) { return List{}; })({x}), "a compiled function returns nothing; it must return at least one value");
  CHECK_THROWS_WITH(e.compile([&](const List&) { return List{x}; })({x}),
                    "compiled function: result 0 was not made from its arguments; pass what it uses as arguments");
  (void)e.compile([&](const List& v) { return List{left = v[0] + v[0]}; })({x});
  CHECK_THROWS_WITH(left + left, Catch::EndsWith("add: operand 0 stands for a value of a function that has been compiled; return it there"));
  CHECK_THROWS_WITH(e.compile([&](const List& v) { return v; })({DTensor()}), "compiled function: argument 0 is no value of its Eager");
  check_near((x + x).values(), scale(x, 2).values());  // and eager goes on
}

}  // namespace
}  // namespace meshard
