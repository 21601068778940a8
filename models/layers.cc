#include "meshard/models/layers.h"

#include <string>

#include "meshard/ops/functions.h"

namespace meshard {
namespace {

constexpr double kWeightScale = 0.02;

Init weight(double scale = kWeightScale) { return {Init::normal, scale}; }
Init zeros() { return {Init::zeros}; }
Init ones() { return {Init::ones}; }

// One of q, k, v of GPT-2: [b, t, d] -> [b, h, t, e].
Value heads_of(const Scope& s, Value x, const AttentionSizes& n, const std::string& letter) {
  Value w = s.param("w" + letter, {n.d, n.heads, n.d_head}, weight());                     // [d, h, e]
  Value b = reshape(s.param("b" + letter, {n.heads, n.d_head}, zeros()), "h e -> h 1 e");  // [h, 1, e]
  return (einsum("b t d, d h e -> b h t e", x, w) + b).named(letter);                      // [b, h, t, e]
}

// The cache from here on: what was there, with the keys or values at hand written over positions start .. start + t - 1.
Value extended(const Scope& s, std::string_view name, Value x, const AttentionCache& cache) {
  const Shape& shape = x.shape();  // [b, g, t, e]
  Value before = s.param(name, {shape[0], shape[1], cache.length, shape[3]}, zeros());
  Value after = dynamic_update(before, x, cache.start, 2).named(std::string(name) + ".new");
  s.update(name, after);
  return after;
}

// q [b, h, t, e] or [b, g, r, t, e]; k and v [b, g, t, e].
Value attend(const Scope& s, Value q, Value k, Value v, const AttentionCache* cache) {
  if (cache == nullptr) return attention(q, k, v).named("o");
  return attention(q, extended(s, "cache_k", k, *cache), extended(s, "cache_v", v, *cache), cache->start).named("o");
}

}  // namespace

Value token_embedding(const Scope& s, std::string_view name, Value tokens, int64_t vocab, int64_t d) {
  return embedding(tokens, s.param(name, {vocab, d}, weight()));  // [b, t, d]
}

Value learned_positions(const Scope& s, std::string_view name, Value x) {
  const Shape& shape = x.shape();  // [b, t, d]
  return x + s.param(name, {shape[1], shape[2]}, weight());
}

Value learned_positions(const Scope& s, std::string_view name, Value x, Value start, int64_t length) {
  const Shape& shape = x.shape();  // [b, t, d]
  return x + dynamic_slice(s.param(name, {length, shape[2]}, weight()), start, 0, shape[1]);
}

Value unembedding(const Scope& s, std::string_view name, Value x, int64_t vocab) {
  Value table = s.param(name, {vocab, x.shape()[2]}, weight());  // [v, d]
  return einsum("b t d, v d -> b t v", x, table);                // [b, t, v]
}

Value layer_norm_layer(const Scope& s, std::string_view name, Value x, double eps) {
  const int64_t d = x.shape()[x.shape().rank() - 1];
  Value w = s.param(name, {d}, ones());
  return layer_norm(x, w, s.param(std::string(name) + "_b", {d}, zeros()), eps);  // [b, t, d]
}

Value rms_norm_layer(const Scope& s, std::string_view name, Value x, double eps) {
  const int64_t d = x.shape()[x.shape().rank() - 1];
  return rms_norm(x, s.param(name, {d}, ones()), eps);  // [b, t, d]
}

Value gpt_attention(const Scope& s, Value x, const AttentionSizes& n, const AttentionCache* cache) {
  Value q = heads_of(s, x, n, "q");    // [b, h, t, e]
  Value k = heads_of(s, x, n, "k");    // [b, h, s, e]
  Value v = heads_of(s, x, n, "v");    // [b, h, s, e]
  Value o = attend(s, q, k, v, cache);  // [b, h, t, e]
  Value wo = s.param("wo", {n.heads, n.d_head, n.d}, weight(n.output_scale));
  Value p = einsum("b h t e, h e d -> b t d", o, wo).named("p");  // [b, t, d]
  return p + s.param("bo", {n.d}, zeros());
}

Value llama_attention(const Scope& s, Value x, const AttentionSizes& n, double theta, const AttentionCache* cache) {
  const int64_t g = n.kv_heads, r = n.heads / n.kv_heads, e = n.d_head;
  Value q = einsum("b t d, d g r e -> b g r t e", x, s.param("wq", {n.d, g, r, e}, weight()));  // [b, g, r, t, e]
  Value k = einsum("b s d, d g e -> b g s e", x, s.param("wk", {n.d, g, e}, weight()));         // [b, g, s, e]
  Value v = einsum("b s d, d g e -> b g s e", x, s.param("wv", {n.d, g, e}, weight())).named("v");
  const auto turned = [&](Value y) { return cache == nullptr ? rope(y, theta) : rope(y, cache->start, theta); };
  q = turned(q).named("q");
  k = turned(k).named("k");
  Value o = attend(s, q, k, v, cache);  // [b, g, r, t, e]
  Value wo = s.param("wo", {g, r, e, n.d}, weight(n.output_scale));
  return einsum("b g r t e, g r e d -> b t d", o, wo).named("p");  // [b, t, d]
}

Value gelu_mlp(const Scope& s, Value x, int64_t f, double output_scale) {
  const int64_t d = x.shape()[2];
  Value up = einsum("b t d, d f -> b t f", x, s.param("up", {d, f}, weight()));  // [b, t, f]
  Value h = (up + s.param("up_b", {f}, zeros())).named("h");
  Value g = gelu(h).named("g");
  Value m = einsum("b t f, f d -> b t d", g, s.param("down", {f, d}, weight(output_scale))).named("m");  // [b, t, d]
  return m + s.param("down_b", {d}, zeros());
}

Value swiglu_mlp(const Scope& s, Value x, int64_t f, double output_scale) {
  const int64_t d = x.shape()[2];
  Value n = einsum("b t d, d f -> b t f", x, s.param("gate", {d, f}, weight())).named("n");  // [b, t, f]
  Value h = einsum("b t d, d f -> b t f", x, s.param("up", {d, f}, weight())).named("h");    // [b, t, f]
  Value g = (silu(n) * h).named("g");
  return einsum("b t f, f d -> b t d", g, s.param("down", {f, d}, weight(output_scale))).named("m");  // [b, t, d]
}

}  // namespace meshard
