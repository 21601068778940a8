#include "meshard/kernels/device/adamw-inl.h"
#include "meshard/kernels/device/conv-inl.h"
#include "meshard/kernels/device/families.h"
#include "meshard/kernels/device/make-inl.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> other_family() {
  return {
      {reference::iota, iota},
      {reference::one_hot, one_hot},
      {reference::dropout, dropout},
      {reference::random_normal, random<true>},
      {reference::random_uniform, random<false>},
      {reference::rope, rope},
      {reference::adamw, adamw},
      {reference::conv, conv},
      {reference::conv_weights, conv_weights},
      {reference::sum_pool, pool<false>},
      {reference::max_pool, pool<true>},
      {reference::max_pool_vjp, max_pool_vjp},
  };
}

}  // namespace meshard::MESHARD_DEVICE
