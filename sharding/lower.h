// lower: replaces ops of which a `lower` factor is split (cross-entropy over a split vocabulary) by the ops of their lowering,
// which pass through propagate and partition like any other.
#pragma once

#include "meshard/ir/program.h"

namespace meshard {

// Requires closed layouts. The new values have no layout: propagate again if `changed`.
Program lower(Program program, bool* changed);

}  // namespace meshard
