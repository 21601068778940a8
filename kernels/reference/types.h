// From a dtype at run time to a C++ type, and numbers kept in one type and computed in another.
#pragma once

#include <type_traits>

#include "meshard/base/buffer.h"
#include "meshard/base/error.h"
#include "meshard/kernels/kernel.h"

namespace meshard {

// What a kernel computes in.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, int32_t>, int64_t,
                               std::conditional_t<std::is_same_v<T, double>, double, float>>;

// make.operator()<T>() for the float type T.
template <class F>
Prepared for_float(Dtype dtype, const F& make) {
  switch (dtype) {
    case Dtype::f64:
      return make.template operator()<double>();
    case Dtype::f32:
      return make.template operator()<float>();
    case Dtype::bf16:
      return make.template operator()<bfloat16>();
    case Dtype::f16:
      return make.template operator()<float16>();
    case Dtype::i32:
      break;
  }
  throw InternalError("a kernel for floats was asked to take integers");
}

template <class F>
Prepared for_any(Dtype dtype, const F& make) {
  if (dtype == Dtype::i32) return make.template operator()<int32_t>();
  return for_float(dtype, make);
}

// Small values beside the large ones (a row's statistics, scalars), whose float type may be another.
inline double load_number(const void* data, Dtype dtype, int64_t i) {
  switch (dtype) {
    case Dtype::f64:
      return static_cast<const double*>(data)[i];
    case Dtype::f32:
      return static_cast<const float*>(data)[i];
    case Dtype::bf16:
      return static_cast<float>(static_cast<const bfloat16*>(data)[i]);
    case Dtype::f16:
      return static_cast<float>(static_cast<const float16*>(data)[i]);
    case Dtype::i32:
      break;
  }
  return static_cast<const int32_t*>(data)[i];
}

inline void store_number(void* data, Dtype dtype, int64_t i, double value) {
  switch (dtype) {
    case Dtype::f64:
      static_cast<double*>(data)[i] = value;
      return;
    case Dtype::f32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case Dtype::bf16:
      static_cast<bfloat16*>(data)[i] = bfloat16(static_cast<float>(value));
      return;
    case Dtype::f16:
      static_cast<float16*>(data)[i] = float16(static_cast<float>(value));
      return;
    case Dtype::i32:
      static_cast<int32_t*>(data)[i] = static_cast<int32_t>(value);
      return;
  }
}

template <class T>
const T* in(const KernelCall& call, size_t i) {
  return static_cast<const T*>(call.operands[i]);
}
template <class T>
T* out(const KernelCall& call, size_t i = 0) {
  return static_cast<T*>(call.results[i]);
}

}  // namespace meshard
