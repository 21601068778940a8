#include "meshard/models/train_step.h"

#include <fmt/format.h>

#include "meshard/autodiff/differentiate.h"
#include "meshard/base/error.h"
#include "meshard/models/accumulate.h"
#include "meshard/ops/functions.h"

namespace meshard {
namespace {

void prepare(ModelConfig& config, int64_t batch, int64_t seq) {
  if (batch < 1 || seq < 1)
    throw UserError(fmt::format("{}: batch={} and seq={}; both must be 1 or more", config.name, batch, seq));
  if (config.family == ModelConfig::gpt) config.context = seq;
}

struct Batch {
  Value tokens, targets;
};
Batch batch_inputs(Trace& trace, const ModelConfig& config, const Shape& shape) {
  const Scope s = trace.scope();
  Value tokens = s.input("tokens", Dtype::i32, shape, config.vocab);
  return {tokens, s.input("targets", Dtype::i32, shape, config.vocab)};
}

}  // namespace

TrainStep trace_train_step(Trace& trace, ModelConfig config, int64_t batch, int64_t seq, const AdamWConfig& optimizer,
                           int64_t accumulate) {
  prepare(config, batch, seq);
  if (accumulate < 1 || batch % accumulate != 0) {
    throw UserError(
        fmt::format("accumulate={} does not divide batch={}; each round takes as many sequences", accumulate, batch));
  }
  const Batch in =
      batch_inputs(trace, config, accumulate == 1 ? Shape{batch, seq} : Shape{accumulate, batch / accumulate, seq});
  Value rate = trace.scope().input("rate", trace.dtype(), {});
  Value step = trace.scope().input("step", trace.dtype(), {});
  Value loss_scale;
  if (optimizer.loss_scale) loss_scale = loss_scale_state(trace, *optimizer.loss_scale);
  Accumulated made;
  if (accumulate > 1) {
    made = accumulate_gradients(trace, config, in.tokens, in.targets, loss_scale);
  } else {
    made.loss = model_loss(trace.scope(), config, in.tokens, in.targets);
    made.params = trace.params();
    Value scaled = loss_scale ? (made.loss * loss_scale).named("loss.scaled") : made.loss;
    made.gradients = gradients(trace, scaled, made.params);
  }
  trace.result(made.loss);
  Value norm = adamw_update(trace, made.params, made.gradients, rate, step, optimizer, loss_scale);
  trace.result(norm);
  return {made.loss, norm};
}

Value trace_eval_step(Trace& trace, ModelConfig config, int64_t batch, int64_t seq) {
  prepare(config, batch, seq);
  const Batch in = batch_inputs(trace, config, {batch, seq});
  Value loss = model_loss(trace.scope(), config, in.tokens, in.targets);
  trace.result(loss);
  return loss;
}

Value trace_logits(Trace& trace, ModelConfig config, int64_t batch, int64_t seq) {
  prepare(config, batch, seq);
  Value logits =
      model_logits(trace.scope(), config, trace.scope().input("tokens", Dtype::i32, {batch, seq}, config.vocab));
  trace.result(logits);
  return logits;
}

}  // namespace meshard
