// pin: puts a plan's layouts on a program. What a plan names, by role, becomes pinned; where the lines for block.0.* and
// block.1.* differ, the calls get functions of their own. Pinned layouts flow over calls and in-place returns.
//
//   Program pinned = pin(program, plan, plan.bind(Mesh::parse("data=2, model=2")));
#pragma once

#include "meshard/ir/program.h"
#include "meshard/layout/plan.h"

namespace meshard {

// The roles of a value are read from its name and the ops that make it: the result of a Role::use op on X has X's use layout,
// X.grad (and X.sum, gradients being accumulated) its gradient's, X.total and the states of X its state's, a parameter X its store
// layout; X.d of an activation X has X's. A parameter that no line names is replicated. Errors: those of Plan::find, and a
// line that matches nothing.
Program pin(const Program& program, const Plan& plan, const Mesh& mesh);

// For programs with no plan: pinned layouts flow over calls and in-place returns; nothing else changes.
void spread_pins(Program& program);

}  // namespace meshard
