// Elimination against MinSum: the same least sums, whatever was solved before.
#include <catch2/catch.hpp>

#include <random>

#include "meshard/sharding/elimination.h"

namespace meshard {
namespace {

struct Random {
  std::mt19937_64 engine;
  int below(int n) { return static_cast<int>(engine() % static_cast<uint64_t>(n)); }
};

// A chain of sites with a few long links, as layers have; some cells are infinite.
SumProblem random_problem(Elimination& elimination, Random& random, int variables) {
  SumProblem problem;
  std::vector<int> sizes;
  const auto cells = [&](int count, int infinite) {
    std::vector<Cost> list;
    for (int i = 0; i < count; ++i) list.push_back(random.below(100) < infinite ? kInfinite : Cost{random.below(50)} << 60);
    return list;
  };
  for (int v = 0; v < variables; ++v) {
    sizes.push_back(2 + random.below(4));
    problem.own.push_back(elimination.add({sizes.back()}, cells(sizes.back(), 5)));
  }
  for (int v = 1; v < variables; ++v) {
    InlineVector<int, 4> over = {v - 1, v};
    if (v > 4 && random.below(3) == 0) over.insert(over.begin(), random.below(v - 2));
    int count = 1;
    std::vector<int> table_sizes;
    for (int u : over) table_sizes.push_back(sizes[static_cast<size_t>(u)]), count *= table_sizes.back();
    problem.tables.push_back({over, elimination.add(table_sizes, cells(count, 20))});
  }
  problem.constant = 7;
  return problem;
}

TEST_CASE("elimination finds what MinSum finds, labels and all") {
  Elimination elimination;
  Random random{std::mt19937_64(3)};
  int finite = 0;
  for (int i = 0; i < 300; ++i) {
    const SumProblem problem = random_problem(elimination, random, 2 + random.below(12));
    const MinSum sum = as_min_sum(problem, elimination);
    const MinSum::Solution expected = sum.solve();
    const auto found = elimination.solve(problem);
    CHECK(found.exact);
    CHECK(found.value == expected.value);
    if (expected.value >= kInfinite) {
      CHECK(found.labels.empty());
      continue;
    }
    ++finite;
    CHECK(found.labels == expected.labels);
    CHECK(sum.value(found.labels) == found.value);
  }
  CHECK(finite > 100);
}

TEST_CASE("elimination does nothing twice") {
  Elimination elimination;
  Random random{std::mt19937_64(5)};
  SumProblem problem = random_problem(elimination, random, 8);
  const auto first = elimination.solve(problem), again = elimination.solve(problem);
  CHECK(first.work > 0);
  CHECK(again.work == 0);
  CHECK(again.labels == first.labels);
  CHECK(elimination.add({2}, {1, 2}) == elimination.add({2}, {1, 2}));
  CHECK(elimination.add({2, 1}, {1, 2}) != elimination.add({2}, {1, 2}));
}

TEST_CASE("elimination builds no table above the limit: what it holds is where it was, and the sum no more") {
  Elimination elimination;
  SumProblem problem;
  for (int v = 0; v < 5; ++v) problem.own.push_back(elimination.zeros(4));
  std::vector<Cost> cells(16);
  for (size_t i = 0; i < cells.size(); ++i) cells[i] = static_cast<Cost>((7 * i) % 11);
  for (int a = 0; a < 5; ++a) {
    for (int b = a + 1; b < 5; ++b) problem.tables.push_back({{a, b}, elimination.add({4, 4}, cells)});
  }
  const std::vector<int> start = {3, 1, 2, 0, 1};
  const auto solve = [&](const Elimination::Limits& limits) { return elimination.solve(problem, limits, [&] { return start; }); };
  const MinSum sum = as_min_sum(problem, elimination);
  const auto whole = solve({.largest = 1024, .total = 1 << 20});
  CHECK(whole.exact);
  CHECK(whole.value == sum.solve().value);
  for (int64_t least : {1023, 255, 63, 16}) {
    const auto part = solve({.largest = 1023, .total = 1 << 20, .least = least});
    CHECK_FALSE(part.exact);
    CHECK(part.value == sum.value(part.labels));
    CHECK(part.value >= whole.value);
    CHECK(part.value <= sum.value(start));
    int held = 0;
    for (size_t v = 0; v < start.size(); ++v) held += part.labels[v] == start[v];
    CHECK(held > 0);
  }
  CHECK_FALSE(solve({.largest = 1024, .total = 1000, .least = 255}).exact);  // no one table is too large, but all together
}

}  // namespace
}  // namespace meshard
