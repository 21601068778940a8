// Models: decoders of the GPT-2 and the Llama family, by name.
//
//   ModelConfig c = model_config("gpt-124m:layers=2,d=256,heads=8,vocab=2048");
//   Value loss = model_loss(trace.scope(), c, tokens, targets);
//
// Values that a plan can name: tokens, targets, x (the embedded tokens), block.<i>.r and block.<i>.y (the residual
// stream after attention and after the mlp), z, logits, nll, loss; parameters: embedding, positions, block.<i>.norm1
// ... (models/layers.h), norm, head.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

struct ModelConfig {
  enum Family : uint8_t { gpt, llama };
  std::string name;  // of the preset
  Family family = gpt;
  int64_t layers = 0, d = 0, heads = 0, kv_heads = 0, d_head = 0, f = 0, vocab = 0;
  int64_t context = 0;   // positions: of a GPT as many as it is run with
  bool tied = true;      // the embedding gives the scores too
  double eps = 1e-5;     // of the norms
  double theta = 10000;  // of rotary positions
};

std::vector<std::string> model_names();

// A preset and overrides: layers, d, heads, kv_heads, d_head, f, vocab, context, tied, eps, theta. What is not given
// follows: f keeps its ratio to d, d_head is d / heads, a GPT has as many kv_heads as heads. Errors (UserError): an
// unknown name, with the nearest; a size below 1; heads that do not divide d, or kv_heads that do not divide heads.
ModelConfig model_config(std::string_view text);

int64_t param_count(const ModelConfig& config);

// Scores of the next token at each position: tokens i32[b, t] -> [b, t, v]. A GPT takes exactly `context` tokens.
Value model_logits(const Scope& scope, const ModelConfig& config, Value tokens);
// The same behind what earlier runs saw. tokens i32[b, t] stand at positions start .. start + t - 1, start i32[]; keys and
// values of `length` positions are kept in the parameters block.<i>.cache_k and cache_v [b, heads, length, e], updated in
// place. Scores of one position, `at` i32[] of the t: [b, v]. A GPT takes no more positions than its context. UserError: t
// or length below 1, t above length.
Value cached_logits(const Scope& scope, const ModelConfig& config, Value tokens, Value start, Value at, int64_t length);
// The mean over b and t of the negative log likelihood: [].
Value model_loss(const Scope& scope, const ModelConfig& config, Value tokens, Value targets);

}  // namespace meshard
