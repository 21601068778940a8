// ChoiceSearch: the labels under which a program moves the least. Internal to choose (choose.h says what is searched, and how).
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "meshard/sharding/choice_tables.h"
#include "meshard/sharding/choose.h"

namespace meshard {

class ChoiceSearch {
 public:
  ChoiceSearch(const Program& program, const ChooseOptions& options);
  ~ChoiceSearch();

  std::vector<SplitId> run();

  ChoiceModel& model() { return model_; }
  Cost cost() const { return cost_; }
  Cost bound() const { return bound_; }
  Cost propagated() const { return propagated_; }
  // Site `site` may only have this label.
  void force(int site, SplitId label) { forced_[site] = label; }

  // Labels that each site may have at most for all axes to be searched at once.
  static constexpr size_t kMostLabels = 600;

 private:
  // Sites that no value joins to others: what one part does costs the others nothing.
  struct Part {
    std::vector<int> sites, values;           // ascending
    std::vector<std::vector<int>> places;     // of each value: where its sites stand in `sites`
    bool forced = false;
  };
  struct Found {
    std::vector<SplitId> labels;              // empty: none is finite
    Cost cost = -1;                           // -1: to be counted
  };
  struct Best {
    std::vector<SplitId> labels;
    Cost cost = kInfinite, bound = 0, propagated = 0;
  };
  using Labels = std::vector<SplitId>;
  using Lists = std::vector<LabelListId>;
  using Step = std::vector<Atoms>;            // what varies in it

  std::vector<Part> split();
  Best search(const Part& part);
  // From labels that cost `cost`.
  void descend(const Part& part, Labels labels, Cost cost, const std::vector<Step>& steps, Best& best);
  bool joint(const Part& part, Best& best);
  bool whole_axes(const Part& part, const Labels& labels);
  bool affordable(const Part& part, const Lists& lists) const;
  Lists vary(const Part& part, const Labels& labels, const Step& step);
  SumProblem problem(const Part& part, const Lists& lists, bool joint, std::vector<int>& variables, bool& exact);
  Found solve(const Part& part, const Lists& lists, const Labels& labels);
  std::vector<int> start_of(const Part& part, const Lists& lists, const Labels& labels, const std::vector<int>& variables,
                            const SumProblem& sums);
  // Labels that cannot be in a sum of at most `upper` are taken out first; *bound is a lower bound on the least sum.
  Found solve_within(const Part& part, const Lists& lists, Cost upper, Cost* bound);
  Cost total(const Part& part, const Labels& labels);
  Found found(const Part& part, const Lists& lists, const std::vector<int>& variables, const std::vector<int>& chosen, Cost value,
              bool exact) const;

  const ChooseOptions options_;
  ChoiceModel model_;
  ChoiceTables tables_;
  std::vector<Atoms> axes_, atoms_, ends_;    // ends_: those of atoms_ that are tried first
  std::vector<signed char> whole_;            // of each layout: whether it uses axes whole only; -1: not asked
  std::map<int, SplitId> forced_;
  std::vector<SplitId> now_;                  // of each site, while a part is priced
  struct Known;
  std::unique_ptr<Known> known_;              // of the part that is searched: what a step makes of labels
  Cost cost_ = 0, bound_ = 0, propagated_ = 0;
  int64_t work_ = int64_t{1} << 27;           // cells that may still be visited before the search stops looking further
};

}  // namespace meshard
