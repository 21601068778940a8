#include "meshard/kernels/epilogue.h"

#include "meshard/kernels/reference/reference.h"

namespace meshard::reference {

Prepared einsum_bias(const KernelSpec& spec) { return run_epilogue(spec, einsum, add, nullptr); }

Prepared einsum_activation(const KernelSpec& spec) {
  return run_epilogue(spec, einsum, add, spec.attributes->text("activation") == "silu" ? silu : gelu);
}

}  // namespace meshard::reference
