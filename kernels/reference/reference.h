// The reference kernels: plain loops for f64, f32 and bf16, the specification that tuned kernels are held against. Any
// size may be 0, any factor split (unless said otherwise); an operand that lacks factors of the result is repeated
// along them. In brackets: shapes; in braces: attributes with their defaults.
#pragma once

#include "meshard/kernels/kernel.h"

namespace meshard::reference {

// Products: any number of operands -> the product summed over the factors that the result lacks.
Prepared einsum(const KernelSpec& spec);

// Elementwise, [...] -> [...].
Prepared identity(const KernelSpec& spec);
Prepared neg(const KernelSpec& spec);
Prepared exp(const KernelSpec& spec);
Prepared log(const KernelSpec& spec);
Prepared sqrt(const KernelSpec& spec);
Prepared rsqrt(const KernelSpec& spec);
Prepared square(const KernelSpec& spec);
Prepared tanh(const KernelSpec& spec);
Prepared sigmoid(const KernelSpec& spec);
Prepared reciprocal(const KernelSpec& spec);
Prepared scale(const KernelSpec& spec);     // factor x {factor = 1.0}
Prepared offset(const KernelSpec& spec);    // x + amount {amount = 0.0}
Prepared gelu(const KernelSpec& spec);      // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
Prepared gelu_vjp(const KernelSpec& spec);  // x, dy -> dx
Prepared silu(const KernelSpec& spec);      // x sigmoid(x)
Prepared silu_vjp(const KernelSpec& spec);  // x, dy -> dx
Prepared convert(const KernelSpec& spec);   // to the result's dtype, i32 included; towards zero from float to i32

// Pairs, either repeated along the result's factors that it lacks.
Prepared add(const KernelSpec& spec);
Prepared sub(const KernelSpec& spec);
Prepared mul(const KernelSpec& spec);
Prepared div(const KernelSpec& spec);
Prepared maximum(const KernelSpec& spec);
Prepared minimum(const KernelSpec& spec);

// Reductions over the factors that the result lacks. Of nothing: 0, -inf, inf. The mean divides the local sum by the
// global count of the reduced factors, so that partial means add up.
Prepared sum(const KernelSpec& spec);
Prepared max(const KernelSpec& spec);
Prepared min(const KernelSpec& spec);
Prepared mean(const KernelSpec& spec);
Prepared sum_squares(const KernelSpec& spec);
Prepared sum_exp(const KernelSpec& spec);  // x, m -> the sum of exp(x - m), m repeated along the reduced factors

// Dimensions.
Prepared reshape(const KernelSpec& spec);  // a copy in row-major order
Prepared transpose(
    const KernelSpec& spec);            // elements go where their factors stand, repeated along factors that x lacks
Prepared take(const KernelSpec& spec);  // x [k, ...], i i32[] -> row i of the whole factor k; zeros if there is none

// Table lookup by factor "v", which may be split: ids outside this block of v give zeros.
Prepared embedding(const KernelSpec& spec);  // ids i32[...], table [v, d] -> [..., d]
Prepared embedding_vjp(
    const KernelSpec& spec);  // ids i32[...], dy [..., d] -> dtable [v, d], added in the order of ids

// Rows over the last dimension c, which is whole.
Prepared softmax(const KernelSpec& spec);      // [..., c] -> [..., c]
Prepared softmax_vjp(const KernelSpec& spec);  // y, dy [..., c] -> dx
Prepared layer_norm(
    const KernelSpec& spec);  // x [..., d], weight [d], bias [d] -> y, mean [...], rstd [...] {eps = 1e-5}
Prepared layer_norm_vjp(const KernelSpec& spec);  // x, weight, mean, rstd, dy -> dx, dweight, dbias
Prepared rms_norm(const KernelSpec& spec);        // x [..., d], weight [d] -> y, rstd [...] {eps = 1e-5}
Prepared rms_norm_vjp(const KernelSpec& spec);    // x, weight, rstd, dy -> dx, dweight

// Rotates the pairs (j, j + e/2) of x [..., t, ..., e] by the angle t theta^(-2j/e), t the global index of factor "t"
// and e the last dimension, whole and even; back with inverse. {theta = 10000.0, inverse = false}
Prepared rope(const KernelSpec& spec);

// softmax(scale q k^T) v by factors: q "b h t e", k and v "b h s e", o as q, lse "b h t" the log of the sum of
// exponentials. Grouped: q "b g r t e", k and v "b g s e". Causal: global position t sees s <= t. t may be split, s and
// e not. {causal = true, scale = 0.0: 1 / sqrt(e)}
Prepared attention(const KernelSpec& spec);      // q, k, v -> o, lse
Prepared attention_vjp(const KernelSpec& spec);  // q, k, v, o, lse, do -> dq, dk, dv

// Rows over factor "v", the last dimension of logits.
Prepared cross_entropy(const KernelSpec& spec);  // logits [..., v], targets i32[...] -> nll [...], lse [...]; v whole
Prepared cross_entropy_vjp(const KernelSpec& spec);  // logits, targets, lse, dnll -> dlogits; v may be split
Prepared pick(const KernelSpec& spec);               // logits, targets -> the target's logit, 0 outside this block of v
Prepared log_add(const KernelSpec& spec);            // m, s -> m + log(s)

// Made from nothing: functions of the global index.
Prepared fill(const KernelSpec& spec);  // {value = 0.0}
Prepared iota(const KernelSpec& spec);  // the global index along {dimension = 0}
Prepared random_normal(
    const KernelSpec& spec);  // standard deviation scale {seed = 0, name = "", scale = 1.0}; kernels/random.h
Prepared random_uniform(const KernelSpec& spec);  // in [-scale, scale)

// w, m, v, g [...], rate, scale, step [] -> w, m, v after one step; results may be in the memory of operands 0..2.
// g is multiplied by scale; step counts from 1. {beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.0}
Prepared adamw(const KernelSpec& spec);

}  // namespace meshard::reference
