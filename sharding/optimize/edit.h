// What the rewrites of a function share: who reads a value and until when, and putting a changed function in order
// again. Internal to sharding/optimize/.
#pragma once

#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

// Of each value of a function, as indices of ops. The end of the function counts as an op behind the last.
struct Lifetimes {
  Lifetimes(const Program& program, const Function& f);

  std::vector<int> made;        // -1: a parameter
  std::vector<int> first_read;  // ops.size(): only returned; INT_MAX: nobody reads it
  std::vector<int> last_read;   // -1: nobody
  std::vector<int> gone;        // the op that takes over its memory: nobody reads it behind that; INT_MAX: none does
  std::vector<int> reads;       // how many operands and returns it is
  std::vector<bool> returned;
  std::vector<bool> in_place;  // lies, or will lie, in a parameter's or an argument's memory
};

// The function with ops[i] = f.ops[order[i]] where order[i] >= 0; values that no op makes any more are dropped, ids and
// ValueInfo::op follow. Ops may have been changed in f before, and values added to it.
Function reordered(Function f, const std::vector<int>& order);
// The same in the order that stands there, without the ops for which keep[i] is false.
Function kept(Function f, const std::vector<bool>& keep);

// A collective that moves data and is not begun early.
bool is_plain_collective(const Op& op);

}  // namespace meshard
