#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/ops.h"

namespace meshard {

// The step is one op so that a weight, its gradient and its moments are each read once.
const OpDef& adamw_op() {
  static const OpDef def = {
      .name = "adamw",
      .purpose = "w, m, v after one step of AdamW with gradient scale g, as they were where g is not finite; step counts from 1",
      .rule = "..., ..., ..., ..., , , -> ..., ..., ...",
      .attributes = {{"beta1", 0.9}, {"beta2", 0.95}, {"eps", 1e-8}, {"decay", 0.0}},
      .results = 3,
      .result_names = {"", "m", "v"},
      .in_place = {{0, 0}, {1, 1}, {2, 2}},
      .precision = Precision::keeps,
      .flops_per_point = 16,
      .reference = reference::adamw,
      .cpu = cpu::adamw,
      .cases = {{"f32[5,3], f32[5,3], f32[5,3], f32[5,3], f32[], f32[], f32[]", "{beta1 = 0.8, decay = 0.1}",
                 "f32[5,3], f32[5,3], f32[5,3]"},
                {"f32[1], f32[1], f32[1], f32[1], f32[], f32[], f32[]", "{eps = 0.001}"},
                {"f32[0,3], f32[0,3], f32[0,3], f32[0,3], f32[], f32[], f32[]"},
                {"f32[29,67], f32[29,67], f32[29,67], f32[29,67], f32[], f32[], f32[]", "{decay = 0.1}"}},
  };
  return def;
}

}  // namespace meshard
