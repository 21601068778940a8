// Loops and overwritten arguments, made into what has a reverse: plain calls that leave their arguments alone.
#pragma once

#include <map>

#include "meshard/ir/trace.h"

namespace meshard {

class Straightened {
 public:
  explicit Straightened(Trace& trace) : trace_(&trace) {}

  // In the function: each repeat on the path from `wrt` to `of` becomes as many calls, prefix.0, prefix.1 ..., the last
  // one with the loop's prefix; each call on it a call of a function that returns nothing in place.
  void straighten(int function, const std::vector<ValueId>& wrt, const std::vector<ValueId>& of);
  // The function that `function` is a copy of, or itself.
  int original(int function) const;

 private:
  int keeps_arguments(int callee);
  void unroll(int function, size_t op);

  Trace* trace_;
  std::map<int, int> copies_;     // of callees with results in place
  std::map<int, int> originals_;  // the other way round
};

}  // namespace meshard
