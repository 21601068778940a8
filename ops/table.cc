#include "meshard/ops/table.h"

#include "meshard/ops/ops.h"

namespace meshard {

const OpTable& op_table() {
  // In the order of their names.
  static const OpTable table({
      &adamw_op(), &add_op(), &all_gather_op(), &all_reduce_op(), &all_to_all_op(), &attention_op(),
      &attention_vjp_op(), &broadcast_op(), &convert_op(), &cross_entropy_op(), &cross_entropy_vjp_op(), &div_op(),
      &einsum_op(), &embedding_op(), &embedding_vjp_op(), &exchange_op(), &exp_op(), &fill_op(), &gelu_op(),
      &gelu_vjp_op(), &grad_op(), &iota_op(), &layer_norm_op(), &layer_norm_vjp_op(), &log_op(), &log_add_op(),
      &max_op(), &maximum_op(), &mean_op(), &min_op(), &minimum_op(), &mul_op(), &neg_op(), &offset_op(),
      &permute_op(), &pick_op(), &random_normal_op(), &random_uniform_op(), &reciprocal_op(), &reduce_scatter_op(),
      &reshape_op(), &reshard_op(), &rms_norm_op(), &rms_norm_vjp_op(), &rope_op(), &rsqrt_op(), &scale_op(),
      &sigmoid_op(), &silu_op(), &silu_vjp_op(), &slice_op(), &softmax_op(), &softmax_vjp_op(), &sqrt_op(),
      &square_op(), &sub_op(), &sum_op(), &sum_exp_op(), &sum_squares_op(), &take_op(), &tanh_op(), &total_op(),
      &transpose_op(), &use_op(),
  });
  return table;
}

}  // namespace meshard
