#include "meshard/kernels/device/attention-inl.h"
#include "meshard/kernels/device/families.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> attention_family() {
  return {
      {reference::attention, attention},
      {reference::attention_vjp, attention_vjp},
  };
}

}  // namespace meshard::MESHARD_DEVICE
