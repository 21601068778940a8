// Whether the layouts around an op of a local program are those under which the op computes what it says.
#pragma once

#include "meshard/ir/program.h"

namespace meshard {

// All values have closed layouts, and types are checked. UserError with the op's place and text.
void verify_local(const Program& program, const Function& function, const Op& op);

}  // namespace meshard
