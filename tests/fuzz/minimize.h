// Makes a failing program small: drops returns, ops, calls, pins, parts of layouts, factors of the mesh and sizes, as long as
// it still fails.
#pragma once

#include <functional>

#include "meshard/ir/program.h"

namespace meshard::fuzz {

// `fails` is asked about programs that verify(traced) accepts, at most `tries` times.
Program minimize(Program program, const std::function<bool(const Program&)>& fails, int tries = 4000);

}  // namespace meshard::fuzz
