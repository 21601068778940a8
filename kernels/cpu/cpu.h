// The tuned CPU kernels: f32, and bf16 and f16 computed in f32; threads, vector code chosen at run time. Same meaning as reference/reference.h; an empty
// `run` says that the kernel does not take these dtypes or shapes, and the reference serves. Sums are in f32 but in
// another order than the reference's; for one spec they are the same on every run.
#pragma once

#include "meshard/kernels/kernel.h"

namespace meshard::cpu {

// Two operands, by oneDNN's matrix products. Without oneDNN never taken.
Prepared einsum(const KernelSpec& spec);
// Of bf16 operands by the machine's own instructions, to bf16 or f32; never taken where it has none. `einsum` does so
// where that is faster than f32 with conversions (kernels/mixed.h), which `einsum` leaves to its caller.
Prepared einsum_bf16(const KernelSpec& spec);

// The product, then bias and activation in one pass while it is in the caches.
Prepared einsum_bias(const KernelSpec& spec);
Prepared einsum_activation(const KernelSpec& spec);

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
Prepared scale(const KernelSpec& spec);
Prepared offset(const KernelSpec& spec);
Prepared gelu(const KernelSpec& spec);
Prepared gelu_vjp(const KernelSpec& spec);
Prepared silu(const KernelSpec& spec);
Prepared silu_vjp(const KernelSpec& spec);
Prepared convert(const KernelSpec& spec);  // between f32, bf16 and f16

Prepared add(const KernelSpec& spec);
Prepared sub(const KernelSpec& spec);
Prepared mul(const KernelSpec& spec);
Prepared div(const KernelSpec& spec);
Prepared maximum(const KernelSpec& spec);
Prepared minimum(const KernelSpec& spec);

// The reduced factors must be the leading dimensions, or the trailing ones.
Prepared sum(const KernelSpec& spec);
Prepared max(const KernelSpec& spec);
Prepared min(const KernelSpec& spec);
Prepared mean(const KernelSpec& spec);
Prepared sum_squares(const KernelSpec& spec);
Prepared sum_exp(const KernelSpec& spec);

Prepared reshape(const KernelSpec& spec);
Prepared transpose(const KernelSpec& spec);
Prepared take(const KernelSpec& spec);
Prepared ring_part(const KernelSpec& spec);
Prepared ring_place(const KernelSpec& spec);

Prepared embedding(const KernelSpec& spec);
Prepared embedding_vjp(const KernelSpec& spec);
Prepared embedding_vjp_onto(const KernelSpec& spec);

Prepared softmax(const KernelSpec& spec);
Prepared softmax_vjp(const KernelSpec& spec);
Prepared layer_norm(const KernelSpec& spec);
Prepared layer_norm_vjp(const KernelSpec& spec);
Prepared rms_norm(const KernelSpec& spec);
Prepared rms_norm_vjp(const KernelSpec& spec);
Prepared rope(const KernelSpec& spec);

Prepared attention(const KernelSpec& spec);
Prepared attention_vjp(const KernelSpec& spec);

Prepared cross_entropy(const KernelSpec& spec);
Prepared cross_entropy_vjp(const KernelSpec& spec);
Prepared pick(const KernelSpec& spec);
Prepared log_add(const KernelSpec& spec);

Prepared fill(const KernelSpec& spec);
Prepared iota(const KernelSpec& spec);
Prepared random_normal(const KernelSpec& spec);
Prepared random_uniform(const KernelSpec& spec);

Prepared adamw(const KernelSpec& spec);

}  // namespace meshard::cpu
