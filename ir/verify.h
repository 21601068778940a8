// verify: what must hold of a program, by level. A pass names the level it needs and the one it leaves.
#pragma once

#include "meshard/ir/program.h"

namespace meshard {

enum class Level {
  traced,  // structure and types; layouts may be missing
  closed,  // every value has a closed layout
  local    // every op's layouts agree with its rule; collectives do what their two layouts say
};

// Throws UserError (with the op's place and text) for what a program text can have wrong, InternalError for the rest.
// Checked at each level: ids in range, each value made once and before it is read, printable names; types follow
// from rules; attributes known and typed; call arguments and results match the callee, no recursion; in-place returns
// have their parameter's type, and nobody reads a parameter, in the function or in its caller, after the value
// replacing it is made; repeat's carried values; a started collective is waited for once, not read before that, its
// operand not overwritten; guards name a coordinate in the mesh. At level local also: layouts agree with rules, callees
// and in-place parameters.
void verify(const Program& program, Level level);

}  // namespace meshard
