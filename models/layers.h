// Layers: small functions on values, composed by models. A scope says where the parameters are declared, so a layer's
// parameters have the names given here, in main or in the function of a block. Nothing here knows about meshes or
// layouts.
//
// b batch, t time, s key time, d d_model, h heads, g key-value heads, r query heads for each of them, e d_head, f d_ff,
// v vocab.
#pragma once

#include <cstdint>
#include <string_view>

#include "meshard/ir/trace.h"

namespace meshard {

struct AttentionSizes {
  int64_t d = 0, heads = 0, kv_heads = 0, d_head = 0;
  double output_scale = 0.02;  // standard deviation of wo at the start
};

// Keys and values of the positions before those at hand, kept from run to run: parameters cache_k and cache_v [b, g, s, e].
struct AttentionCache {
  Value start;         // i32[]: where the t positions at hand begin
  int64_t length = 0;  // s
};

// Rows of a table: i32[b, t] -> [b, t, d]. Parameter `name` [v, d].
Value token_embedding(const Scope& s, std::string_view name, Value tokens, int64_t vocab, int64_t d);
// Adds a vector for each position: [b, t, d]. Parameter `name` [t, d].
Value learned_positions(const Scope& s, std::string_view name, Value x);
// The same for positions from `start` on, i32[], of a table of `length`.
Value learned_positions(const Scope& s, std::string_view name, Value x, Value start, int64_t length);
// Scores against the rows of a table: [b, t, d] -> [b, t, v]. Parameter `name` [v, d]: the embedding's, if they are
// tied.
Value unembedding(const Scope& s, std::string_view name, Value x, int64_t vocab);

// [b, t, d] -> [b, t, d]. Parameters `name` [d] and name_b [d]; rms: `name` [d].
Value layer_norm_layer(const Scope& s, std::string_view name, Value x, double eps);
Value rms_norm_layer(const Scope& s, std::string_view name, Value x, double eps);

// Causal attention of GPT-2, with biases: [b, t, d] -> [b, t, d]. Parameters wq, wk, wv [d, h, e], bq, bk, bv [h, e],
// wo [h, e, d], bo [d]. With a cache its keys and values are seen too.
Value gpt_attention(const Scope& s, Value x, const AttentionSizes& sizes, const AttentionCache* cache = nullptr);
// Causal grouped attention of Llama, with rotary positions: [b, t, d] -> [b, t, d]. Parameters wq [d, g, r, e], wk, wv
// [d, g, e], wo [g, r, e, d].
Value llama_attention(const Scope& s, Value x, const AttentionSizes& sizes, double theta,
                      const AttentionCache* cache = nullptr);

// gelu(x up + up_b) down + down_b: [b, t, d] -> [b, t, d]. Parameters up [d, f], up_b [f], down [f, d], down_b [d].
Value gelu_mlp(const Scope& s, Value x, int64_t f, double output_scale);
// (silu(x gate) * (x up)) down: [b, t, d] -> [b, t, d]. Parameters gate, up [d, f], down [f, d].
Value swiglu_mlp(const Scope& s, Value x, int64_t f, double output_scale);

}  // namespace meshard
