// Steps whose loss or gradients are not finite: where it begins, and what becomes of the loss scale.
#pragma once

#include "meshard/launch/job.h"
#include "meshard/runtime/executor.h"
#include "meshard/runtime/state.h"

namespace meshard {

// Ends the run and says where the numbers went wrong. The parameters must be as before the step: see adamw_update. `step`
// counts from 0. Collective over all ranks.
[[noreturn]] void end_not_finite(Job& job, Executor& e, int64_t step, double loss, double grad_norm);

// With a loss scale the program has skipped the step: says so, with the first op whose numbers are not finite and the scale
// before and after. Runs the step once more to find it, without a trace in the state. UserError where the scale has
// fallen below 1: then it is not the scale that is to blame. Collective over all ranks.
void report_skipped(Job& job, Executor& e, State& state, int64_t step, double loss, double grad_norm);

// A state of one number, as any device has it.
double state_number(const State& state, std::string_view name);

}  // namespace meshard
