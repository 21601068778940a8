// Elimination: the least sum of tables over variables, as MinSum finds it, for problems that are much alike: the layers of a model, and
// one step of the search and the next. Tables are known by their contents, so what is made of equal tables is made once.
//
//   Elimination elimination;
//   TableId t = elimination.add({2, 3}, cells);                  // 6 cells, the last variable fastest
//   SumProblem problem{.own = {elimination.zeros(2), elimination.zeros(3)}, .tables = {{{0, 1}, t}}};
//   auto best = elimination.solve(problem);                      // best.labels[0], best.labels[1], best.value
//
// The order in which variables go, and with it the choice among equal sums, is that of MinSum: the smallest table first, of equal ones
// the lower variable. What it is worth: with L layers of k kinds, time is L look-ups and k eliminations.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "meshard/base/inline_vector.h"
#include "meshard/sharding/min_sum.h"

namespace meshard {

using TableId = int32_t;

struct SumProblem {
  struct Term {
    InlineVector<int, 4> variables;  // two or more, different
    TableId table = -1;              // row-major over them
  };
  std::vector<TableId> own;      // of each variable: its labels' own cost
  std::vector<Term> tables;
  Cost constant = 0;
};

class Elimination {
 public:
  Elimination();
  ~Elimination();

  TableId add(std::vector<int> sizes, std::vector<Cost> cells);  // equal tables have one id
  TableId zeros(int labels);
  TableId sum(TableId a, TableId b);                             // of two tables of equal sizes
  const std::vector<int>& sizes(TableId id) const;
  const MinSum::Cells& cells(TableId id) const;

  struct Solution {
    std::vector<int> labels;  // one for each variable; empty: no sum is finite
    Cost value = kInfinite;
    int64_t work = 0;         // cells visited, those known from before aside
    bool exact = true;        // false: some variables were held
  };
  // Cells visited for one variable are at most `largest`, and for all `total`. Where they would be more, they are at most `least` for
  // one: variables with the most tables are held at the label that `start` says, and the sum is at most that of `start`.
  struct Limits {
    int64_t largest = int64_t{1} << 22, total = int64_t{1} << 40, least = int64_t{1} << 22;
  };
  using Start = std::function<std::vector<int>()>;  // of each variable a label; asked where one is held
  Solution solve(const SumProblem& problem, const Limits& limits, const Start& start);
  Solution solve(const SumProblem& problem) { return solve(problem, {}, [&] { return std::vector<int>(problem.own.size(), 0); }); }

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same problem as MinSum takes it, which eliminates every table, equal or not.
MinSum as_min_sum(const SumProblem& problem, const Elimination& elimination);

}  // namespace meshard
