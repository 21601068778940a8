// What a reverse pass leaves behind: values that turned out not to be needed.
#pragma once

#include <set>
#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

struct PruneOptions {
  size_t first = 0;         // the index of the first op that may go
  bool parameters = false;  // parameters that nobody reads go too
  std::set<int> late;       // ops made again, by index: each moves to just before its first reader
};

// Keeps of the ops from `first` on those that make one of `roots` or a returned value. Gives the new id of each value,
// none for those dropped.
std::vector<ValueId> prune(Function& f, const std::vector<ValueId>& roots, const PruneOptions& options);

}  // namespace meshard
