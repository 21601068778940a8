// MinSum: the least sum of tables over variables with few labels each, exactly: by variable elimination (bucket
// elimination; Dechter, "Bucket elimination: a unifying framework for reasoning", 1999), cheapest table first.
//
//   MinSum problem;
//   int a = problem.add_variable(2), b = problem.add_variable(3);
//   problem.add_table({a, b}, cells);             // 6 cells, the last variable fastest
//   MinSum::Solution best = problem.solve();      // best.labels[a], best.labels[b], best.value
//
// The choice of layouts is such a problem: variables are the splits of ops, tables the costs of values between them.
// Everything is in whole numbers and in a fixed order: of equal sums the one with the smaller labels, as elimination
// meets them, is taken, on every machine alike.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace meshard {

// A cost. 128 bits, so that bytes, messages and ties are one number (sharding/choose.cc says how they share it).
using Cost = __int128;
constexpr Cost kInfinite = Cost{1} << 120;  // above any sum of tens of thousands of penalties; a hundred of them still fit
constexpr Cost add_costs(Cost a, Cost b) { return a + b < kInfinite ? a + b : kInfinite; }

class MinSum {
 public:
  using Cells = std::shared_ptr<const std::vector<Cost>>;

  int add_variable(int labels);
  // `variables` are different; cells row-major over them, the last one fastest.
  void add_table(std::vector<int> variables, Cells cells);
  void add_constant(Cost cost) { constant_ = add_costs(constant_, cost); }

  struct Solution {
    std::vector<int> labels;  // one for each variable
    Cost value = kInfinite;
    int64_t work = 0;         // cells visited
    bool exact = true;        // false: a table would have had more than `limit` cells, and some variables kept label 0
  };
  // A table of more than `limit` cells is not built: the variable with the most neighbours there keeps label `start` instead.
  Solution solve(int64_t limit = int64_t{1} << 22, const std::vector<int>& start = {}) const;

  // A lower bound on the least sum, by block coordinate ascent in the dual (MPLP; Globerson and Jaakkola, 2007), in `sweeps` at
  // most. Labels that no solution of at most `upper` can have are taken out: the problem then says infinite for them.
  Cost tighten(Cost upper, int sweeps);

  // The sum for these labels.
  Cost value(const std::vector<int>& labels) const;
  int64_t cells() const;         // over all tables
  int64_t live_labels() const;   // that are not infinite by themselves
  int variables() const { return static_cast<int>(labels_.size()); }

 private:
  struct Table {
    std::vector<int> variables;
    Cells cells;
  };
  std::vector<int> labels_;                 // of each variable
  std::vector<std::vector<Cost>> own_;      // of each variable, its labels' own cost
  std::vector<Table> tables_;
  Cost constant_ = 0;
};

}  // namespace meshard
