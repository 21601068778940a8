// ChoiceTables: the choice model's costs as tables, one for each kind of value or site and each choice of label lists. Values that are
// alike, as those of one block are to those of the next, have one table. Internal to choose.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "meshard/sharding/choice_model.h"
#include "meshard/sharding/elimination.h"

namespace meshard {

class ChoiceTables {
 public:
  explicit ChoiceTables(ChoiceModel& model);
  ~ChoiceTables();

  Elimination& elimination() { return elimination_; }
  // The sites of a value: its maker first, if that has labels, then the readers, ascending, each once. Values of one kind differ in
  // nothing but who their sites are.
  const std::vector<int>& sites(int value) const { return sites_[static_cast<size_t>(value)]; }
  int kind(int value) const { return kinds_[static_cast<size_t>(value)]; }

  TableId own(int site, LabelListId list);
  // Over those of a value's sites whose list has more than one label.
  TableId direct(int kind, std::span<const LabelListId> lists);
  // The same for a value of many readers, by a variable that says which copies are made: each reader then has a table with that one
  // only. Copies beyond three are missed.
  struct Sets {
    int count = 0;                     // labels of the variable
    TableId made = -1;                 // over the maker, if it has more than one label, and the variable
    std::vector<TableId> readers;      // of each site with more than one label, the maker aside: over the variable and that site
  };
  const Sets& sets(int kind, std::span<const LabelListId> lists);

 private:
  TableId price(int kind, std::span<const LabelListId> lists);
  Sets price_sets(int kind, std::span<const LabelListId> lists);
  std::vector<int32_t> frame_key(int kind, std::span<const LabelListId> lists);
  template <class Frames, class Make>
  auto shared(Frames& frames, int kind, std::span<const LabelListId> lists, Make make) -> typename Frames::mapped_type::pointer;
  template <class Cells>
  std::vector<Cost> costs_of(const ValueNode& value, const Cells& cells) const;

  ChoiceModel& model_;
  Elimination elimination_;
  std::vector<std::vector<int>> sites_;
  std::vector<int> kinds_;
  std::vector<ValueNode> nodes_;       // of each kind one, with sites as places in the list above
  std::vector<int> own_kinds_;         // of each site: sites of one kind have the same costs of their own
  std::vector<int> skeletons_;         // of each kind: what it is like, shape and ports aside
  struct Known;
  std::unique_ptr<Known> known_;
};

}  // namespace meshard
