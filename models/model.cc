#include "meshard/models/model.h"

#include <fmt/format.h>

#include <cmath>

#include "meshard/base/error.h"
#include "meshard/models/layers.h"
#include "meshard/ops/functions.h"

namespace meshard {
namespace {

Value norm_layer(const Scope& s, const ModelConfig& c, std::string_view name, Value x) {
  return c.family == ModelConfig::gpt ? layer_norm_layer(s, name, x, c.eps) : rms_norm_layer(s, name, x, c.eps);
}

// Pre-norm: what attention and the mlp make is added to the residual stream. x, y [b, t, d].
Value block(const Scope& s, const ModelConfig& c, Value x, const AttentionCache* cache = nullptr) {
  // The stream grows with each addition; small outputs keep its variance near the embedding's.
  const double output_scale = 0.02 / std::sqrt(2.0 * static_cast<double>(c.layers));
  const AttentionSizes sizes{c.d, c.heads, c.kv_heads, c.d_head, output_scale};
  const bool gpt = c.family == ModelConfig::gpt;
  Value a = norm_layer(s, c, "norm1", x).named("a");  // [b, t, d]
  Value p = gpt ? gpt_attention(s, a, sizes, cache) : llama_attention(s, a, sizes, c.theta, cache);
  Value r = (x + p).named("r");
  Value n = norm_layer(s, c, "norm2", r).named("c");  // [b, t, d]
  return (r + (gpt ? gelu_mlp(s, n, c.f, output_scale) : swiglu_mlp(s, n, c.f, output_scale))).named("y");
}

// The scores from the last block's result [b, t, d].
Value head(const Scope& s, const ModelConfig& c, Value x) {
  Value z = norm_layer(s, c, "norm", x).named("z");                                 // [b, t, d]
  return unembedding(s, c.tied ? "embedding" : "head", z, c.vocab).named("logits");  // [b, t, v]
}

}  // namespace

Value model_logits(const Scope& scope, const ModelConfig& config, Value tokens) {
  const Shape shape = tokens.shape();  // [b, t]
  if (shape.rank() != 2)
    throw UserError(fmt::format("{}: tokens are {}; they must be i32[b,t]", config.name, tokens.type().str()));
  Value x = token_embedding(scope, "embedding", tokens, config.vocab, config.d);  // [b, t, d]
  if (config.family == ModelConfig::gpt) {
    if (shape[1] != config.context) {
      throw UserError(fmt::format("{}: tokens are {}, but the model has context={} learned positions; set context={}",
                                  config.name, tokens.type().str(), config.context, shape[1]));
    }
    x = learned_positions(scope, "positions", x.named("token"));
  }
  x = x.named("x");
  for (int64_t i = 0; i < config.layers; ++i) {
    x = scope.call("block", fmt::format("block.{}", i), {{"x", x}}, [&](Scope& s, const std::vector<Value>& arguments) {
      return std::vector<Value>{block(s, config, arguments[0])};
    })[0];
  }
  return head(scope, config, x);
}

Value cached_logits(const Scope& scope, const ModelConfig& config, Value tokens, Value start, Value at, int64_t length) {
  const Shape shape = tokens.shape();  // [b, t]
  if (shape.rank() != 2)
    throw UserError(fmt::format("{}: tokens are {}; they must be i32[b,t]", config.name, tokens.type().str()));
  const bool gpt = config.family == ModelConfig::gpt;
  if (shape[1] < 1 || length < shape[1] || (gpt && length > config.context)) {
    throw UserError(fmt::format("{}: a cache of {} positions for tokens {}; it has at least as many as the tokens{}", config.name, length,
                                tokens.type().str(), gpt ? fmt::format(", and at most the model's context={}", config.context) : ""));
  }
  Value x = token_embedding(scope, "embedding", tokens, config.vocab, config.d);  // [b, t, d]
  if (gpt) x = learned_positions(scope, "positions", x.named("token"), start, config.context);
  x = x.named("x");
  for (int64_t i = 0; i < config.layers; ++i) {
    x = scope.call("cached_block", fmt::format("block.{}", i), {{"x", x}, {"start", start}},
                   [&](Scope& s, const std::vector<Value>& arguments) {
                     const AttentionCache cache{arguments[1], length};
                     return std::vector<Value>{block(s, config, arguments[0], &cache)};
                   })[0];
  }
  Value last = dynamic_slice(x, at, 1, 1);                            // [b, 1, d]
  return reshape(head(scope, config, last), "b t v -> b (t v)").named("next");  // [b, v]
}

Value model_loss(const Scope& scope, const ModelConfig& config, Value tokens, Value targets) {
  Value nll = cross_entropy(model_logits(scope, config, tokens), targets).named("nll");  // [b, t]
  return mean(nll).named("loss");                                                        // []
}

}  // namespace meshard
