#include "meshard/kernels/device/families.h"
#include "meshard/kernels/device/order-inl.h"
#include "meshard/kernels/device/reduce-inl.h"
#include "meshard/kernels/device/scan-inl.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> reduce_family() {
  return {
      {reference::sum, reduce<Fold::sum>},
      {reference::max, reduce<Fold::max>},
      {reference::min, reduce<Fold::min>},
      {reference::mean, mean},
      {reference::sum_squares, reduce<Fold::sum_squares>},
      {reference::sum_exp, reduce<Fold::sum_exp>},
      {reference::logsumexp, reduce<Fold::logsumexp>},
      {reference::cumsum, scan<false>},
      {reference::scan, scan<true>},
      {reference::block_sum, block_scan<false>},
      {reference::block_scan, block_scan<true>},
      {reference::exclusive_sum, exclusive_scan<false>},
      {reference::exclusive_scan, exclusive_scan<true>},
      {reference::sort, sort},
      {reference::block_top_k, block_top_k},
      {reference::top_k, top_k},
  };
}

}  // namespace meshard::MESHARD_DEVICE
