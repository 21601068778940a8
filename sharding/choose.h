// choose: under which split of its factors an op runs, when its operands come in layouts that do not agree: the least bytes,
// summed over all devices, for bringing operands where the op needs them and results where they are pinned.
//
// The options of an op are the assignments of axes to factors that follow from taking one of its tensors (an operand as it is
// made, or as it was propagated, or a result) at its word first and the others as far as they do not contradict; each with and without
// letting a pending sum pass through linear operands; an add may take an operand that is whole as a sum too, all of it on the first
// device and zeros on the others, which moves nothing. No option may have more flops a device than the propagated one.
// Ties go to fewer messages, then fewer flops, then to the earlier option. Integers only, in a fixed order.
#pragma once

#include <map>

#include "meshard/ir/program.h"
#include "meshard/layout/reshard.h"

namespace meshard {

// One operand as the chooser sees it.
struct OperandView {
  ValueId id = ValueId::none;  // two operands with one id are one value, fetched once
  Type type;
  std::vector<Layout> copies;  // that exist already; [0] as made
  Layout propagated;
  bool binds = false;          // a parameter's use: consumed as it is or sliced, never gathered
  bool remade = false;         // an op without operands: made anew in any layout, at no cost
  bool may_pend = false;       // every reader could take it pending
};
struct ResultView {
  Type type;
  Layout propagated;
  bool pinned = false;
  bool may_pend = false;       // every reader could take it pending: its sums need not be done here
};

struct Choice {
  OpSplit split;
  int linear_group = -1;             // through which pending sums pass
  std::vector<Layout> operands, results;
  int64_t bytes = 0;                 // over all devices
  int64_t messages = 0;              // collectives that this needs now
  int64_t flops = 0;                 // of the busiest device
};

// `needed` without the sums that a whole value gives at no cost when it is taken in parts: those over atoms which `have` does not use.
Layout before_part(const Layout& have, const Layout& needed);

// The cost of a change of layout, remembered: planning asks for the same ones again and again.
class ReshardCosts {
 public:
  explicit ReshardCosts(const Mesh& mesh) : mesh_(&mesh) {}
  struct Entry {
    std::vector<ReshardStep> steps;
    int64_t elements = 0;  // received, over all devices
    int64_t messages = 0;  // steps that talk
    bool possible = true;
  };
  const Entry& get(const Shape& shape, const Layout& from, const Layout& to);

 private:
  const Mesh* mesh_;
  std::map<std::string, Entry> cache_;
};

// `considered`, if not null, gets every legal option, the chosen one first.
Choice choose(const Mesh& mesh, const OpDef& def, const BoundRule& rule, const std::vector<OperandView>& operands,
              const std::vector<ResultView>& results, ReshardCosts& costs, std::vector<Choice>* considered = nullptr);

}  // namespace meshard
