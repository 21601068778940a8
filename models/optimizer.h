// AdamW with a clipped global gradient norm, traced into the program that makes the gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // times the rate; of matrices only: drawn at random and of rank 2 or more
  double clip_norm = 1.0;     // gradients with a larger norm, over all parameters, are scaled down to it; 0: never
};

struct ScheduleConfig {
  double rate = 3e-4;   // at the end of the warm-up
  double floor = 3e-5;  // at the last step and after
  int64_t warmup_steps = 100;
  int64_t steps = 1000;  // in all
};

// The rate of step 0, 1, 2 ...: a straight line up, then half a cosine down to the floor.
double learning_rate(int64_t step, const ScheduleConfig& config);

// Adds to main: the states X.m and X.v of each parameter X, each gradient as the optimizer reads it (X.total), the norm
// over all of them, and the new X, X.m and X.v, returned in place. Parameters of a function called by main are updated
// by one function for all its calls. `params` are parameters of main, `gradients` one for each; rate and step [] of the
// trace's dtype, step from 1. Gives the norm before clipping, named grad_norm. Where it is not finite, nothing is updated.
Value adamw_update(Trace& trace, const std::vector<Value>& params, const std::vector<Value>& gradients, Value rate,
                   Value step, const AdamWConfig& config);

}  // namespace meshard
