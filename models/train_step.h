// Whole programs of a model: one step of training, the loss alone, the scores of the next token.
#pragma once

#include <cstdint>

#include "meshard/models/model.h"
#include "meshard/models/optimizer.h"

namespace meshard {

struct TrainStep {
  Value loss;       // []: the mean over the whole batch
  Value grad_norm;  // []: before clipping
};

// Inputs of main: tokens and targets i32[b, t], rate and step [] in the trace's dtype, step from 1. Results: loss, then
// the new parameters and states in place, those of the loss scale among them, then grad_norm. With accumulate = K above 1, tokens and targets are i32[K,
// b/K, t], and the gradients of K micro-batches are added up in a loop. A GPT gets `seq` positions. Errors (UserError):
// sizes below 1, a batch that K does not divide.
TrainStep trace_train_step(Trace& trace, ModelConfig config, int64_t batch, int64_t seq, const AdamWConfig& optimizer,
                           int64_t accumulate = 1);

// Inputs tokens and targets i32[b, t]; result loss.
Value trace_eval_step(Trace& trace, ModelConfig config, int64_t batch, int64_t seq);

// Input tokens i32[b, t]; result logits [b, t, v].
Value trace_logits(Trace& trace, ModelConfig config, int64_t batch, int64_t seq);

}  // namespace meshard
