// Which values are another name for a value's memory, and where that does not do. A role or reshard that changes nothing
// costs no step: its result is read where its operand lies, unless that is overwritten too early.
#pragma once

#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

struct Aliases {
  std::vector<ValueId> source;  // of each value: in whose memory it lies; itself where it is no name of another
  std::vector<bool> copied;     // of each value: it would be another's name, but gets memory of its own
};

// Of one function of a local program. A result of an identity op is copied if it is read after what replaces its source
// is made, if a call takes over its own memory, or if it and its source leave the function as two values, of which a caller may overwrite one.
// So is a call's result that is only a name of one of its arguments (`passed`): the caller knows what is overwritten. The body of
// a loop passes nothing: called = false.
Aliases find_aliases(const Program& program, const Function& f, bool called = true);

// Of each result of a called function: the parameter of which it is another name and nothing else; none where it is made.
std::vector<ValueId> passed(const Function& callee);

}  // namespace meshard
