// Gradients of a batch in micro-batches: one loop whose carried values are the sums.
#pragma once

#include <cstdint>
#include <vector>

#include "meshard/models/model.h"

namespace meshard {

struct Accumulated {
  Value loss;                    // [], the mean over all rounds
  std::vector<Value> params;     // of main
  std::vector<Value> gradients;  // of the mean, one for each parameter: X.sum.new
};

// tokens, targets: i32[rounds, b, t] in main. Adds `repeat rounds call micro`. With a loss scale the gradients, but not
// the loss, are multiplied by it.
Accumulated accumulate_gradients(Trace& trace, const ModelConfig& config, Value tokens, Value targets, Value loss_scale = {});

}  // namespace meshard
