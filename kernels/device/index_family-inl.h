#include "meshard/kernels/device/einsum-inl.h"
#include "meshard/kernels/device/families.h"
#include "meshard/kernels/device/index-inl.h"
#include "meshard/kernels/device/scatter-inl.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> index_family() {
  return {
      {reference::einsum, einsum, true},
      {reference::einsum_activation, einsum_activation},
      {reference::einsum_bias, einsum_bias},
      {reference::identity, copy},
      {reference::reshape, copy},
      {reference::transpose, transpose},
      {reference::take, take},
      {reference::embedding, embedding},
      {reference::embedding_vjp, embedding_vjp},
      {reference::embedding_vjp_onto, embedding_vjp_onto},
      {reference::gather, gather},
      {reference::scatter_add, scatter_add},
      {reference::scatter_add_onto, scatter_add_onto},
      {reference::window, window},
      {reference::concat, concat},
      {reference::dynamic_slice, dynamic_slice},
      {reference::dynamic_update, dynamic_update},
      {reference::ring_part, ring_part},
      {reference::ring_place, ring_place},
  };
}

}  // namespace meshard::MESHARD_DEVICE
