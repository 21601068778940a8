// Elimination: the least sum of tables over variables, as MinSum finds it, for problems that are much alike: the layers of a model, and
// one step of the search and the next. Tables are known by their contents, so what is made of equal tables is made once.
//
//   Elimination elimination;
//   TableId t = elimination.add({2, 3}, cells);                  // 6 cells, the last variable fastest
//   SumProblem problem{.own = {elimination.zeros(2), elimination.zeros(3)}, .tables = {{{0, 1}, t}}};
//   auto best = elimination.solve(problem, 1 << 20);             // best->labels[0], best->labels[1], best->value
//
// The order in which variables go, and with it the choice among equal sums, is that of MinSum: the smallest table first, of equal ones
// the lower variable. What it is worth: with L layers of k kinds, time is L look-ups and k eliminations.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "meshard/sharding/min_sum.h"

namespace meshard {

using TableId = int32_t;

struct SumProblem {
  struct Term {
    std::vector<int> variables;  // two or more, different
    TableId table = -1;          // row-major over them
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
  };
  // None: some table would have more than `limit` cells.
  std::optional<Solution> solve(const SumProblem& problem, int64_t limit);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The same problem as MinSum takes it, which eliminates every table, equal or not.
MinSum as_min_sum(const SumProblem& problem, const Elimination& elimination);

}  // namespace meshard
