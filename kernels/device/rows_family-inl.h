#include "meshard/kernels/device/families.h"
#include "meshard/kernels/device/rows-inl.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> rows_family() {
  return {
      {reference::softmax, softmax},
      {reference::softmax_vjp, softmax_vjp},
      {reference::layer_norm, norm<true>},
      {reference::layer_norm_vjp, norm_vjp<true>},
      {reference::rms_norm, norm<false>},
      {reference::rms_norm_vjp, norm_vjp<false>},
      {reference::cross_entropy, cross_entropy},
      {reference::cross_entropy_vjp, cross_entropy_vjp},
      {reference::pick, pick},
      {reference::argmax, index_in_row<0>},
      {reference::argmin, index_in_row<1>},
      {reference::index_of, index_in_row<2>},
  };
}

}  // namespace meshard::MESHARD_DEVICE
