// propagate: fills in every layout that was not given. A fixed point over factors, forward and backward, over all functions
// at once, in rounds of priority (the order of Shardy, arXiv-independent restatement in docs/ARCHITECTURE.md): first ops in which
// every factor is in every tensor, and calls; then all ops by the factors that pass through; then reduced factors too.
// Pinned layouts never change; a dimension written with "?" may grow.
//
//   Origins origins;
//   Program closed = propagate(pinned, &origins);
//   origins.of(function, value, atom)   // "block.0.wq, by plan line 4" or "op %q = einsum ..."
#pragma once

#include <string>
#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

// Who put an axis on a value: the value it came from (which has an origin of its own, up to a pinned one) and the op or call
// it came through.
struct Origin {
  int function = -1;
  ValueId from = ValueId::none;
  std::string through;  // the op as text; empty: pinned here
};

class Origins {
 public:
  void record(int function, ValueId value, AtomId atom, Origin origin);  // the first one for an axis counts
  const Origin* find(int function, ValueId value, AtomId atom) const;
  // What `old` knows of `before` and this does not know of `after`, a program with the same functions, by the names of values:
  // where an op was lowered, propagation starts anew in its function and keeps what it said in others.
  void fill_in(const Origins& old, const Program& before, const Program& after);
  // The pinned value that an axis comes from, followed back: "%down.use".
  std::string source(const Program& program, int function, ValueId value, AtomId atom) const;

 private:
  struct Entry {
    AtomId atom = 0;
    Origin origin;
  };
  std::vector<std::vector<std::vector<Entry>>> entries_;  // by function and value
};

struct PropagateOptions {
  bool visit_all = false;  // every op in every sweep, whether or not one of its tensors changed: the slow twin, for tests
};

// Requires a mesh. Leaves every value with a closed layout. Nothing becomes pending that was not pinned so: partition
// decides that op by op.
Program propagate(Program program, Origins* origins = nullptr, const PropagateOptions& options = {});

}  // namespace meshard
