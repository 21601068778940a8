#include "meshard/kernels/device/families.h"
#include "meshard/kernels/device/map-inl.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::MESHARD_DEVICE {

std::vector<KernelPair> map_family() {
  return {
      {reference::neg, map<Map::neg>},
      {reference::exp, map<Map::exp>},
      {reference::log, map<Map::log>},
      {reference::sqrt, map<Map::sqrt>},
      {reference::rsqrt, map<Map::rsqrt>},
      {reference::square, map<Map::square>},
      {reference::tanh, map<Map::tanh>},
      {reference::sigmoid, map<Map::sigmoid>},
      {reference::reciprocal, map<Map::reciprocal>},
      {reference::scale, scale},
      {reference::offset, offset},
      {reference::gelu, map<Map::gelu>},
      {reference::gelu_vjp, map<Map::gelu_vjp>},
      {reference::silu, map<Map::silu>},
      {reference::silu_vjp, map<Map::silu_vjp>},
      {reference::abs, map<Map::abs>},
      {reference::sign, map<Map::sign>},
      {reference::floor, map<Map::floor>},
      {reference::sin, map<Map::sin>},
      {reference::cos, map<Map::cos>},
      {reference::clamp, clamp},
      {reference::bit_not, map<Map::bit_not>},
      {reference::convert, convert},
      {reference::add, map<Map::add>},
      {reference::sub, map<Map::sub>},
      {reference::mul, map<Map::mul>},
      {reference::div, map<Map::div>},
      {reference::maximum, map<Map::maximum>},
      {reference::minimum, map<Map::minimum>},
      {reference::pow, map<Map::pow>},
      {reference::log_add, map<Map::log_add>},
      {reference::less, compare<Map::less>},
      {reference::less_equal, compare<Map::less_equal>},
      {reference::equal_to, compare<Map::equal_to>},
      {reference::not_equal, compare<Map::not_equal>},
      {reference::select, select},
      {reference::bit_and, map<Map::bit_and>},
      {reference::bit_or, map<Map::bit_or>},
      {reference::bit_xor, map<Map::bit_xor>},
      {reference::shift_left, map<Map::shift_left>},
      {reference::shift_right, map<Map::shift_right>},
      {reference::fill, fill},
  };
}

}  // namespace meshard::MESHARD_DEVICE
