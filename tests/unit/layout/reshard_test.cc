// The steps that are chosen and what they cost: the table of a planner's basic cases, errors, and large meshes. That
// they are right for every pair of layouts is in reshard_pairs_test.cc.
#include "meshard/layout/reshard.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <catch2/catch.hpp>

namespace meshard {
namespace {

std::string kinds(const std::vector<ReshardStep>& steps) {
  std::vector<std::string_view> names;
  for (const ReshardStep& step : steps) names.push_back(name(step.kind));
  return fmt::format("{}", fmt::join(names, " "));
}

struct Row {
  const char *from, *to, *steps;
  int64_t busiest;  // elements, summed over the steps
};

void check_rows(const char* mesh_text, const Shape& shape, const std::vector<Row>& rows) {
  const Mesh mesh = Mesh::parse(mesh_text);
  for (const Row& row : rows) {
    INFO(row.from << " -> " << row.to);
    const auto steps = plan_reshard(mesh, shape, Layout::parse(row.from, mesh), Layout::parse(row.to, mesh));
    int64_t busiest = 0;
    for (const ReshardStep& step : steps) busiest += busiest_received_elements(mesh, shape, step);
    CHECK(kinds(steps) == row.steps);
    CHECK(busiest == row.busiest);
  }
}

}  // namespace

TEST_CASE("steps and received elements on one axis", "[reshard]") {
  const int64_t v = 64;  // elements
  check_rows("x=4", {8, 8},
             {{"[x, -]", "[-, -]", "all_gather", v * 3 / 4},
              {"[x, -]", "[-, x]", "all_to_all", v / 4 * 3 / 4},
              {"[-, -]", "[-, x]", "slice", 0},
              {"[-, -] + sum(x)", "[-, -]", "all_reduce", 2 * v * 3 / 4},
              {"[-, -] + sum(x)", "[x, -]", "reduce_scatter", v * 3 / 4},
              {"[x, -]", "[x, -]", "", 0},
              {"[-, -] + max(x)", "[-, -] + max(x)", "", 0},
              {"[x:2, -]", "[-, x]", "exchange", v / 8},
              {"[x, -]", "[x:2, -]", "all_gather", v / 4},
              {"[x, -]", "[x:2, x:(2)2]", "all_to_all", v / 8}});
}

TEST_CASE("steps and received elements on two axes", "[reshard]") {
  const int64_t v = 256, m = 4, n = 2;  // elements, x, y
  check_rows(
      "x=4, y=2", {16, 16},
      {{"[(x,y), -]", "[x, -]", "all_gather", v / m * (n - 1) / n},
       {"[(x,y), -]", "[y, -]", "exchange", v / n},
       {"[x, -]", "[-, y]", "slice all_gather", v / n * (m - 1) / m},
       {"[x, y]", "[-, -]", "all_gather", v * (m * n - 1) / (m * n)},
       {"[x, -]", "[-, x]", "all_to_all", v / m * (m - 1) / m},
       {"[(x,y), -]", "[x, y]", "all_to_all", v / (m * n) * (n - 1) / n},
       {"[x, y]", "[-, (y,x)]", "all_to_all", v / (m * n) * (m - 1) / m},
       {"[(x,y), -]", "[-, (x,y)]", "all_to_all", v / (m * n) * (m * n - 1) / (m * n)},
       {"[(x,y), -]", "[-, (y,x)]", "all_to_all", v / (m * n) * (m * n - 1) / (m * n)},
       {"[(x,y), -]", "[(y,x), -]", "permute", v / (m * n)},
       {"[x, y]", "[y, x]", "exchange", v / (m * n)},
       {"[x, -]", "[-, (x,y)]", "exchange", v / (m * n) * (m - 1) / m},
       {"[x, -]", "[-, (y,x)]", "slice all_to_all", v / (m * n) * (m - 1) / m},
       {"[-, y] + sum(x)", "[x, y]", "reduce_scatter", v / n * (m - 1) / m},
       {"[-, y] + sum(x)", "[-, y]", "all_reduce", 2 * v / n * (m - 1) / m},
       {"[-, -] + sum(x,y)", "[x, y]", "reduce_scatter", v * (m * n - 1) / (m * n)},
       {"[-, -] + sum(x,y)", "[-, -]", "all_reduce", 2 * v * (m * n - 1) / (m * n)},
       {"[-, -] + sum(x)", "[y, -]", "slice all_reduce", 2 * v / n * (m - 1) / m},
       // y is idle: its ranks share the sum and gather it, 3/4 + 1/2 of v where adding on all of them is 6/4.
       {"[-, -] + sum(x)", "[-, -]", "slice all_reduce all_gather", 2 * v / n * (m - 1) / m + v / n},
       {"[-, -] + sum(y)", "[-, -]", "all_reduce", 2 * v * (n - 1) / n},
       // What is scattered stands before what is sliced: the search finds it, where slicing first moves more.
       {"[x:2, -] + sum(y)", "[(y,x:2,x:(2)2), -]", "reduce_scatter permute", v / 4 * (n - 1) / n / 2 * 2 + v / 8},
       {"[-, -] + sum(x)", "[y, x]", "slice reduce_scatter", v / n * (m - 1) / m},
       {"[-, -] + sum(x,y)", "[x, -]", "reduce_scatter all_reduce", v * (m - 1) / m + 2 * v / m * (n - 1) / n},
       {"[-, -] + sum(x)", "[(x,y), -]", "reduce_scatter", v / n * (m - 1) / m},
       {"[y, -] + sum(x)", "[(x,y), -]", "reduce_scatter permute", v / n * (m - 1) / m + v / (m * n)},
       {"[y, -] + sum(x)", "[-, -]", "all_reduce all_gather", 2 * v / n * (m - 1) / m + v / n},
       // Of the max, too, each rank makes its part only.
       {"[-, -] + sum(x) + max(y)", "[-, -]", "reduce_scatter reduce_scatter all_gather",
        v * (m - 1) / m + v / m * (n - 1) / n + v * (m * n - 1) / (m * n)}});
}

TEST_CASE("open flags make no step, and steps are closed", "[reshard]") {
  const Mesh mesh = Mesh::parse("x=2");
  CHECK(plan_reshard(mesh, {4, 4}, Layout::parse("[x?, ?]", mesh), Layout::parse("[x, -]", mesh)).empty());
  const auto steps = plan_reshard(mesh, {4, 4}, Layout::parse("[?, ?]", mesh), Layout::parse("[?, x]", mesh));
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].from == Layout(2));
  CHECK(steps[0].to.str(mesh) == "[-, x]");
}

TEST_CASE("copies share the sending", "[reshard]") {
  // Rows over x become rows over y: each half is held by three ranks, and those that lack it take turns.
  const Mesh mesh = Mesh::parse("x=2, y=3");
  const Shape shape{12};
  const auto steps = plan_reshard(mesh, shape, Layout::parse("[x]", mesh), Layout::parse("[y]", mesh));
  REQUIRE(kinds(steps) == "exchange");
  for (int32_t r = 0; r < 6; ++r) CHECK(transfer(mesh, shape, steps[0], Rank{r}).sends.size() <= 1);
}

TEST_CASE("what a reshard cannot do", "[reshard]") {
  const Mesh mesh = Mesh::parse("data=2, model=2");
  const auto obstacle = [&](const char* from, const char* to) {
    return reshard_obstacle(mesh, Layout::parse(from, mesh), Layout::parse(to, mesh));
  };
  CHECK(obstacle("[data, -]", "[data, -] + sum(model)") ==
        "[data, -] cannot become [data, -] + sum(model): no reshard leaves a sum over model pending; only an op does, "
        "such as a "
        "matrix product split along the dimension it sums over");
  CHECK(obstacle("[-] + sum(model)", "[-] + max(model)") ==
        "[-] + sum(model) cannot become [-] + max(model): a pending sum over model cannot turn into a pending max");
  CHECK(obstacle("[-] + sum(data) + max(model)", "[-] + sum(data)") ==
        "[-] + sum(data) + max(model) cannot become [-] + sum(data): the sum over data comes before the max over "
        "model, so it "
        "cannot stay pending alone");
  CHECK(obstacle("[-] + sum(data) + max(model)", "[-] + max(model)") == "");
  CHECK(obstacle("[-]", "[-, -]") == "[-] cannot become [-, -]: they have 1 and 2 dimensions");
  CHECK_THROWS_AS(plan_reshard(mesh, {4}, Layout::parse("[-]", mesh), Layout::parse("[-] + sum(data)", mesh)),
                  UserError);
}

TEST_CASE("steps that do not fit", "[reshard]") {
  const Mesh mesh = Mesh::parse("x=2, y=2");
  const auto fits = [&](Collective kind, const char* over, const char* from, const char* to,
                        Reduction reduction = Reduction::sum) {
    const Layout a = Layout::parse(from, mesh), b = Layout::parse(to, mesh);
    const AtomSet atoms = AtomSet::of(mesh.find(over)->atoms);
    return step_fits(mesh, {kind, atoms, reduction, a, b});
  };
  CHECK(fits(Collective::all_gather, "x", "[x, y]", "[-, y]"));
  CHECK_FALSE(fits(Collective::all_gather, "y", "[x, y]", "[-, y]"));
  CHECK_FALSE(fits(Collective::all_gather, "x", "[(x,y), -]", "[y, -]"));
  CHECK_FALSE(fits(Collective::all_gather, "x", "[x] + sum(y)", "[-]"));
  CHECK(fits(Collective::slice, "x", "[-, y]", "[x, y]"));
  CHECK_FALSE(fits(Collective::slice, "x", "[x, y]", "[-, y]"));
  CHECK(fits(Collective::all_reduce, "x", "[y] + sum(x)", "[y]"));
  CHECK_FALSE(fits(Collective::all_reduce, "x", "[y] + sum(x)", "[y]", Reduction::max));
  CHECK_FALSE(fits(Collective::all_reduce, "x", "[-] + sum(x)", "[x]"));
  CHECK(fits(Collective::reduce_scatter, "x", "[y] + sum(x)", "[(y,x)]"));
  CHECK(fits(Collective::reduce_scatter, "x", "[-] + sum(x)", "[(x,y)]"));
  CHECK_FALSE(fits(Collective::reduce_scatter, "x", "[y] + sum(x)", "[(x,y)]"));
  CHECK_FALSE(fits(Collective::reduce_scatter, "x", "[-] + sum(x)", "[y]"));
  CHECK(fits(Collective::all_to_all, "x", "[x, y]", "[-, (y,x)]"));
  CHECK_FALSE(fits(Collective::all_to_all, "x", "[x, y]", "[-, (x,y)]"));
  CHECK_FALSE(fits(Collective::permute, "x", "[x, -]", "[-, x]"));
  CHECK(fits(Collective::exchange, "x", "[x, -]", "[-, x]"));
  CHECK_FALSE(fits(Collective::broadcast, "x", "[x]", "[-]"));
}

TEST_CASE("a mesh of 16,384 devices", "[reshard]") {
  const Mesh mesh = Mesh::parse("data=128, model=128");
  const Shape shape{1 << 20, 16384};
  const int64_t v = shape.elements(), p = 128;
  const auto all = [&](const char* from, const char* to) {
    return all_received_elements(mesh, shape,
                                 plan_reshard(mesh, shape, Layout::parse(from, mesh), Layout::parse(to, mesh)));
  };
  CHECK(all("[data, model]", "[data, -]") == v * (p - 1));
  CHECK(all("[data, -] + sum(model)", "[(data,model), -]") == v * (p - 1));
  CHECK(all("[-, -] + sum(data,model)", "[-, -]") == 2 * v * (p * p - 1));
  CHECK(all("[data, -]", "[-, data]") == v / p * (p - 1) * p);
  // A device keeps its block if its two coordinates are equal.
  CHECK(all("[data, model]", "[model, data]") == v / p * (p - 1));
}

}  // namespace meshard
