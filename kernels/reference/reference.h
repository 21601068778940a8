// The reference kernels: plain loops for f64, f32, bf16 and f16, the specification that tuned kernels are held against. Any
// size may be 0, any factor split (unless said otherwise); an operand that lacks factors of the result is repeated
// along them. In brackets: shapes; in braces: attributes with their defaults.
#pragma once

#include "meshard/kernels/kernel.h"

namespace meshard::reference {

// Products: any number of operands -> the product summed over the factors that the result lacks.
Prepared einsum(const KernelSpec& spec);
Prepared einsum_bias(const KernelSpec& spec);  // a, b, bias -> the product and the bias, repeated where it lacks factors
// a, b, bias -> the {activation} of that, "gelu" or "silu"; beside it, where there are two results, that itself
Prepared einsum_activation(const KernelSpec& spec);

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
Prepared abs(const KernelSpec& spec);
Prepared sign(const KernelSpec& spec);   // -1, 0 or 1
Prepared floor(const KernelSpec& spec);
Prepared sin(const KernelSpec& spec);
Prepared cos(const KernelSpec& spec);
Prepared clamp(const KernelSpec& spec);    // {low = -inf, high = inf}
Prepared bit_not(const KernelSpec& spec);  // of i32
Prepared convert(const KernelSpec& spec);   // to the result's dtype, i32 included; towards zero from float to i32

// Pairs, either repeated along the result's factors that it lacks.
Prepared add(const KernelSpec& spec);
Prepared sub(const KernelSpec& spec);
Prepared mul(const KernelSpec& spec);
Prepared div(const KernelSpec& spec);
Prepared maximum(const KernelSpec& spec);
Prepared minimum(const KernelSpec& spec);
Prepared pow(const KernelSpec& spec);  // a^b
// 0 or 1, as i32.
Prepared less(const KernelSpec& spec);
Prepared less_equal(const KernelSpec& spec);
Prepared equal_to(const KernelSpec& spec);
Prepared not_equal(const KernelSpec& spec);
Prepared select(const KernelSpec& spec);  // c i32, a, b -> a where c is not 0, else b
// Of i32. Shifts by less than 0 or more than 31 shift all bits out; to the right the sign is kept.
Prepared bit_and(const KernelSpec& spec);
Prepared bit_or(const KernelSpec& spec);
Prepared bit_xor(const KernelSpec& spec);
Prepared shift_left(const KernelSpec& spec);
Prepared shift_right(const KernelSpec& spec);

// Reductions over the factors that the result lacks. Of nothing: 0, -inf, inf. The mean divides the local sum by the
// global count of the reduced factors, so that partial means add up.
Prepared sum(const KernelSpec& spec);
Prepared max(const KernelSpec& spec);
Prepared min(const KernelSpec& spec);
Prepared mean(const KernelSpec& spec);
Prepared sum_squares(const KernelSpec& spec);
Prepared logsumexp(const KernelSpec& spec);  // log(sum(e^x)); the reduced factors are whole
Prepared sum_exp(const KernelSpec& spec);  // x, m -> the sum of exp(x - m), m repeated along the reduced factors

// Dimensions.
Prepared reshape(const KernelSpec& spec);  // a copy in row-major order
Prepared transpose(
    const KernelSpec& spec);            // elements go where their factors stand, repeated along factors that x lacks
Prepared take(const KernelSpec& spec);  // x [k, ...], i i32[] -> row i of factor k; zeros if this block has none

// Table lookup by factor "v", which may be split: ids outside this block of v give zeros.
Prepared embedding(const KernelSpec& spec);  // ids i32[...], table [v, d] -> [..., d]
Prepared embedding_vjp(
    const KernelSpec& spec);  // ids i32[...], dy [..., d] -> dtable [v, d], added in the order of ids

Prepared embedding_vjp_onto(const KernelSpec& spec);  // ids, dy, base [v, d] -> base and the rows added to it; may be in its memory

// By index. The factor k may be split: an index outside this block gives zeros, or adds nothing.
Prepared gather(const KernelSpec& spec);       // x with k, ids i32 -> the elements of x at k = id
Prepared scatter_add(const KernelSpec& spec);  // ids i32, x -> with k: x summed by id
Prepared scatter_add_onto(const KernelSpec& spec);  // ids i32, x, base with k -> base and x added by id; may be in its memory

// Along {dimension}: y[i] = x[(offset + step i) / spread] where that divides and lies in x, else 0; as a ring, x[... modulo
// its size]. {offset = 0, step = 1, spread = 1, ring = false}
Prepared window(const KernelSpec& spec);
Prepared concat(const KernelSpec& spec);  // any number of operands -> one behind the other along {dimension}
// x, start i32[] -> elements from start on along {dimension}, zeros where this block has none.
Prepared dynamic_slice(const KernelSpec& spec);
// x, u, start i32[] -> x with u from start on along {dimension}; may be in the memory of x.
Prepared dynamic_update(const KernelSpec& spec);

// Of letter "block" in operand 0, block i + {offset} (modulo their number), where i is the index of letter "ring": x -> that
// block; or x, u -> x with u there, which may be in the memory of x.
Prepared ring_part(const KernelSpec& spec);
Prepared ring_place(const KernelSpec& spec);

// Along {dimension}, backwards with {reverse = true}. In blocks of {parts = 1}; the last operand of cumsum and scan, if
// there is one more, is what each block begins with.
Prepared cumsum(const KernelSpec& spec);          // x [, before] -> its running sum
Prepared block_sum(const KernelSpec& spec);       // x -> the sum of each block
Prepared exclusive_sum(const KernelSpec& spec);   // x -> the sum of what is before each element
Prepared scan(const KernelSpec& spec);            // a, b [, before] -> h, h_t = a_t h_{t-1} + b_t
Prepared block_scan(const KernelSpec& spec);      // a, b -> of each block the product of a, and the last h from 0 on
Prepared exclusive_scan(const KernelSpec& spec);  // a, b -> h before each element

// Rows over the last dimension, equal elements in their order.
Prepared sort(const KernelSpec& spec);  // x -> x in order, i32 where each stood {descending = false}
// x -> the k largest of each of {parts = 1} blocks, i32 their indices; -inf and the row's size where a block has fewer.
Prepared block_top_k(const KernelSpec& spec);
Prepared top_k(const KernelSpec& spec);   // x [, i32 their indices] -> the k largest, largest first, and their indices
Prepared argmax(const KernelSpec& spec);  // -> i32, the first of equal ones; of nothing 2^31 - 1
Prepared argmin(const KernelSpec& spec);
Prepared index_of(const KernelSpec& spec);  // x [..., v], m [...] -> i32, the first index where x = m, or 2^31 - 1

// Over one or two dimensions, see conv.cc. {stride_w = 1, offset_w = 0, dilation_w = 1, spread_w = 1}, the same of h;
// pools also {window_w}.
Prepared conv(const KernelSpec& spec);          // x "b h w (g c)", "kh kw c (g o)" -> "b h w (g o)"
Prepared conv_weights(const KernelSpec& spec);  // x, dy -> the cotangent of the weights
Prepared sum_pool(const KernelSpec& spec);      // "b h w c" -> the sum of each window
Prepared max_pool(const KernelSpec& spec);      // the largest of each window
Prepared max_pool_vjp(const KernelSpec& spec);  // x, dy -> dx; equal ones share

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
Prepared one_hot(const KernelSpec& spec);  // ids i32[...] -> [..., v], 1 at the id; v may be split
// x [...], step i32[] -> x / (1 - rate), or 0 with probability rate: by (seed + step, name, global index). {rate, seed, name}
Prepared dropout(const KernelSpec& spec);
Prepared random_normal(
    const KernelSpec& spec);  // standard deviation scale {seed = 0, name = "", scale = 1.0}; kernels/random.h
Prepared random_uniform(const KernelSpec& spec);  // in [-scale, scale)

// w, m, v, g [...], rate, scale, step [] -> w, m, v after one step; results may be in the memory of operands 0..2.
// g is multiplied by scale; step counts from 1. {beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.0}
Prepared adamw(const KernelSpec& spec);

}  // namespace meshard::reference
