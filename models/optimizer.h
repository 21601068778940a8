// AdamW with a clipped global gradient norm, traced into the program that makes the gradients.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

// A loss that is multiplied before reverse mode, so that small gradients are not lost in f16. The optimizer divides by the
// scale in f32. A step whose gradients are not all finite changes no parameter and halves the scale; after enough good
// ones in a row it doubles, up to 2^40. The scale and both counts are states of the run: loss_scale, loss_scale.good,
// loss_scale.skipped.
struct LossScaleConfig {
  double first = 65536;         // a power of two, so that nothing is rounded
  int64_t double_after = 2000;  // steps
};

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // times the rate; of matrices only: drawn at random and of rank 2 or more
  double clip_norm = 1.0;     // gradients with a larger norm, over all parameters, are scaled down to it; 0: never
  std::optional<LossScaleConfig> loss_scale;  // none: the loss is taken as it is
};

struct ScheduleConfig {
  double rate = 3e-4;   // at the end of the warm-up
  double floor = 3e-5;  // at the last step and after
  int64_t warmup_steps = 100;
  int64_t steps = 1000;  // in all
};

// The rate of step 0, 1, 2 ...: a straight line up, then half a cosine down to the floor.
double learning_rate(int64_t step, const ScheduleConfig& config);

// The state loss_scale of main, [] of the trace's dtype, that a loss is multiplied by.
Value loss_scale_state(Trace& trace, const LossScaleConfig& config);

// Adds to main: the states X.m and X.v of each parameter X, each gradient as the optimizer reads it (X.total), the norm
// over all of them, and the new X, X.m and X.v, returned in place. Parameters of a function called by main are updated
// by one function for all its calls. `params` are parameters of main, `gradients` one for each; rate and step [] of the
// trace's dtype, step from 1. Gives the norm before clipping, named grad_norm. Where it is not finite, nothing is updated.
// With `loss_scale`, the gradients are those of the loss times it; it and its counts get their next values, and steps that
// were skipped do not count for the moments.
Value adamw_update(Trace& trace, const std::vector<Value>& params, const std::vector<Value>& gradients, Value rate,
                   Value step, const AdamWConfig& config, Value loss_scale = {});

}  // namespace meshard
