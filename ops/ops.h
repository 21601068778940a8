// Every op's entry; see table.h for the table of them.
#pragma once

#include "meshard/ir/op.h"

namespace meshard {

const OpDef& adamw_op();
const OpDef& add_op();
const OpDef& all_gather_op();
const OpDef& all_reduce_op();
const OpDef& all_to_all_op();
const OpDef& attention_op();
const OpDef& attention_vjp_op();
const OpDef& broadcast_op();
const OpDef& convert_op();
const OpDef& cross_entropy_op();
const OpDef& cross_entropy_vjp_op();
const OpDef& div_op();
const OpDef& einsum_op();
const OpDef& embedding_op();
const OpDef& embedding_vjp_op();
const OpDef& exchange_op();
const OpDef& exp_op();
const OpDef& fill_op();
const OpDef& gelu_op();
const OpDef& gelu_vjp_op();
const OpDef& grad_op();
const OpDef& iota_op();
const OpDef& layer_norm_op();
const OpDef& layer_norm_vjp_op();
const OpDef& log_op();
const OpDef& log_add_op();
const OpDef& max_op();
const OpDef& maximum_op();
const OpDef& mean_op();
const OpDef& min_op();
const OpDef& minimum_op();
const OpDef& mul_op();
const OpDef& neg_op();
const OpDef& offset_op();
const OpDef& permute_op();
const OpDef& pick_op();
const OpDef& random_normal_op();
const OpDef& random_uniform_op();
const OpDef& reciprocal_op();
const OpDef& reduce_scatter_op();
const OpDef& reshape_op();
const OpDef& reshard_op();
const OpDef& rms_norm_op();
const OpDef& rms_norm_vjp_op();
const OpDef& rope_op();
const OpDef& rsqrt_op();
const OpDef& scale_op();
const OpDef& sigmoid_op();
const OpDef& silu_op();
const OpDef& silu_vjp_op();
const OpDef& slice_op();
const OpDef& softmax_op();
const OpDef& softmax_vjp_op();
const OpDef& sqrt_op();
const OpDef& square_op();
const OpDef& sub_op();
const OpDef& sum_op();
const OpDef& sum_exp_op();
const OpDef& sum_squares_op();
const OpDef& take_op();
const OpDef& tanh_op();
const OpDef& total_op();
const OpDef& transpose_op();
const OpDef& use_op();

}  // namespace meshard
