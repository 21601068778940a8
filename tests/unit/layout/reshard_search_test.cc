// The planner held against the exhaustive search on meshes that take seconds; tests/reshard has the whole table. And its
// counts on large meshes, its choice by time, and that it ends on meshes with many axes.
#include <catch2/catch.hpp>
#include <chrono>
#include <random>

#include "meshard/layout/cost.h"
#include "meshard/layout/search_reshard.h"

namespace meshard {
namespace {

// Every pair of layouts, or one in `sample`: how many were compared.
int64_t compare(const char* mesh_text, const Shape& shape, const std::vector<Reduction>& pending, uint64_t sample = 1) {
  const Mesh mesh = Mesh::parse(mesh_text);
  const ReshardSearch all(mesh, shape, pending, {.exchange = true}), steps(mesh, shape, pending, {.exchange = false});
  std::mt19937_64 random(5);
  int64_t compared = 0;
  for (const Layout& from : all.layouts()) {
    const std::vector<int64_t> least = all.costs(all.find(from)), least_steps = steps.costs(steps.find(from));
    for (size_t i = 0; i < least.size(); ++i) {
      const Layout& to = all.layouts()[i];
      if (random() % sample != 0 || !reshard_obstacle(mesh, from, to).empty()) continue;
      ++compared;
      const int64_t planned = all_received_elements(mesh, shape, plan_reshard(mesh, shape, from, to));
      const int64_t sequence =
          all_received_elements(mesh, shape, plan_reshard(mesh, shape, from, to, {.exchange = false}));
      if (planned != least[i] || sequence != least_steps[i])
        FAIL(mesh.str() << "; " << shape.str() << " " << from.str(mesh) << " -> " << to.str(mesh) << ": " << planned
                        << " of " << least[i] << ", without an exchange " << sequence << " of " << least_steps[i]);
    }
  }
  return compared;
}

}  // namespace

TEST_CASE("plans receive no more than the cheapest of all sequences", "[reshard]") {
  for (const Shape& shape : {Shape{24}, Shape{7}, Shape{0}})
    for (const char* mesh : {"x=3", "x=4", "x=6", "x=8", "x=12", "x=3, y=4", "x=2, y=5"})
      CHECK(compare(mesh, shape, {Reduction::sum}) > 0);
  for (const Shape& shape : {Shape{12, 24}, Shape{7, 5}, Shape{1, 3}})
    for (const char* mesh : {"x=3", "x=4", "x=3, y=2"}) CHECK(compare(mesh, shape, {Reduction::sum}) > 0);
  CHECK(compare("x=4", {5, 4}, {Reduction::sum, Reduction::max, Reduction::min}) > 250);
  CHECK(compare("x=8", {8, 16}, {Reduction::sum}, 2) > 2000);
  CHECK(compare("x=8", {9, 6}, {Reduction::sum}, 5) > 800);
  CHECK(compare("x=3, y=4", {12, 8}, {Reduction::max}, 5) > 800);
  CHECK(compare("x=16", {16}, {Reduction::sum}, 5) > 2000);
  CHECK(compare("x=8", {8, 8, 4}, {Reduction::sum}, 20) > 800);
}

TEST_CASE("the search's own steps are steps and cost what it says", "[reshard]") {
  const Mesh mesh = Mesh::parse("x=2, y=2, z=2");
  const Shape shape{8, 8};
  const ReshardSearch search(mesh, shape, {Reduction::sum}, {.exchange = false});
  const Layout from = Layout::parse("[x, y]", mesh), to = Layout::parse("[-, (x,y)]", mesh);
  const auto steps = search.steps(search.find(from), search.find(to));
  REQUIRE(!steps.empty());
  Layout at = from;
  for (const ReshardStep& step : steps) {
    CHECK(step.from == at);
    CHECK(step_fits(mesh, step));
    at = step.to;
  }
  CHECK(at == to);
  CHECK(all_received_elements(mesh, shape, steps) == search.costs(search.find(from))[static_cast<size_t>(search.find(to))]);
}

TEST_CASE("by time, messages count too", "[reshard]") {
  const Mesh mesh = Mesh::parse("x=4, y=4");
  const Layout from = Layout::parse("[-, -] + sum(x)", mesh), whole = Layout::parse("[-, -]", mesh);
  const CostModel slow_messages{.host = {.message_ns = 1000, .bytes_per_us = 1000}};
  const auto steps = [&](const Shape& shape, const CostModel& model) {
    return plan_reshard(mesh, shape, from, whole, {.model = &model}).size();
  };
  CHECK(plan_reshard(mesh, {4, 4}, from, whole).size() == 3);  // slice, all_reduce, all_gather
  CHECK(steps({4, 4}, slow_messages) == 1);
  CHECK(steps({4096, 4096}, slow_messages) == 3);

  // Columns of (x,y) become rows of y: an exchange receives least, in 13 messages; two calls take 6.
  const Layout a = Layout::parse("[-, (x,y)]", mesh), b = Layout::parse("[y, -]", mesh);
  const CostModel no_messages{.host = {.message_ns = 0, .bytes_per_us = 1}};
  const Shape shape{16, 16};
  const auto by_time = plan_reshard(mesh, shape, a, b, {.model = &slow_messages});
  const auto by_bytes = plan_reshard(mesh, shape, a, b);
  CHECK(steps_nanoseconds(slow_messages, mesh, shape, by_time, 4) <=
        steps_nanoseconds(slow_messages, mesh, shape, by_bytes, 4));
  CHECK(all_received_elements(mesh, shape, plan_reshard(mesh, shape, a, b, {.model = &no_messages})) <=
        all_received_elements(mesh, shape, by_bytes));
}

TEST_CASE("counts on large meshes need no visit to each device", "[reshard]") {
  const auto begin = std::chrono::steady_clock::now();
  const Mesh mesh = Mesh::parse("data=4096, model=4096");
  const int64_t p = 4096;
  const Shape shape{p * p, p};
  const int64_t v = shape.elements();
  const auto one = [&](const Shape& s, const char* from, const char* to) {
    const auto steps = plan_reshard(mesh, s, Layout::parse(from, mesh), Layout::parse(to, mesh));
    REQUIRE(steps.size() == 1);
    CHECK(step_messages(mesh, s, steps[0]) > 0);
    return std::pair(busiest_received_elements(mesh, s, steps[0]), all_received_elements(mesh, s, steps[0]));
  };
  CHECK(one(shape, "[(data,model), -]", "[-, -]") == std::pair(v - v / p / p, v * (p * p - 1)));
  CHECK(one(shape, "[data, model]", "[model, data]") == std::pair(v / p / p, v - v / p));
  CHECK(one(shape, "[(data,model), -]", "[data, model]") == std::pair((v - v / p) / p / p, v - v / p));
  CHECK(one(shape, "[(data,model), -]", "[model, -]") == std::pair(v / p, v * p - v / p));
  // 7 rows: a block of 4,096 has one or none.
  CHECK(one({7, 5}, "[(data,model), -]", "[-, -]") == std::pair<int64_t, int64_t>(35, 35 * (p * p - 1)));
  CHECK(one({7, 5}, "[data, -]", "[data:2, -]") == std::pair<int64_t, int64_t>(20, 35 * p * (p / 2 - 1)));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(2));
}

TEST_CASE("plans on meshes with many axes end soon and are right", "[reshard]") {
  const Mesh mesh = Mesh::parse("a=2, b=2, c=2, d=2, e=2, f=2, g=2, h=2, i=2, j=3, k=3");
  std::mt19937_64 random(3);
  const auto layout = [&](const Layout* after) {
    Layout made(3);
    for (AtomId atom = 0; atom < mesh.atom_count(); ++atom) {
      const uint64_t place = random() % 5;
      if (place < 3) {
        Atoms& atoms = made.dims[place].atoms;
        atoms.insert(atoms.begin() + static_cast<ptrdiff_t>(random() % (atoms.size() + 1)), atom);
      } else if (place == 3 && after == nullptr) {
        made.pending_of(Reduction::sum).add(atom);
      }
    }
    return made;
  };
  const Shape shape{1024 * 9, 1024 * 9, 512};
  for (int i = 0; i < 20; ++i) {
    const Layout from = layout(nullptr), to = layout(&from);
    for (bool exchange : {true, false}) {
      Layout at = from;
      for (const ReshardStep& step : plan_reshard(mesh, shape, from, to, {.exchange = exchange})) {
        CHECK(step.from == at);
        CHECK(step_fits(mesh, step));
        at = step.to;
      }
      CHECK(at == to);
    }
  }
}

}  // namespace meshard
