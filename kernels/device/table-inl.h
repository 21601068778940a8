// For each kernel of the specification the device's. Included by the one file that has the table of a device.
#ifndef MESHARD_KERNELS_DEVICE_TABLE_INL_H
#define MESHARD_KERNELS_DEVICE_TABLE_INL_H

#include "meshard/kernels/device/families.h"
#include "meshard/kernels/device/number-inl.h"
#include "meshard/kernels/device_kernels.h"

namespace meshard::MESHARD_DEVICE {

template <class U>
struct BoxBody {
  BoxCopy box;
  const U* x;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    int64_t from = 0, to = 0;
    for (int d = box.dims; d-- > 0;) {
      from += i % box.size[d] * box.from[d];
      to += i % box.size[d] * box.to[d];
      i /= box.size[d];
    }
    y[to] = x[from];
  }
};

template <class T>
struct FoldBody {
  DeviceKernels::Fold fold;
  int members;
  const T* x[kFoldMost];
  T* y;
  // i32 wraps around; a NaN wins, so that none is lost.
  MESHARD_BODY void operator()(int64_t i) const {
    Sum<T> so_far = load(x[0][i]);
    for (int m = 1; m < members; ++m) {
      const Sum<T> next = load(x[m][i]);
      switch (fold) {
        case DeviceKernels::Fold::sum: so_far += next; break;
        case DeviceKernels::Fold::max: so_far = next > so_far || next != next ? next : so_far; break;
        case DeviceKernels::Fold::min: so_far = next < so_far || next != next ? next : so_far; break;
      }
    }
    y[i] = store<T>(so_far);
  }
};

struct StoreBody {
  int32_t value;
  int32_t* to;
  MESHARD_BODY void operator()(int64_t) const { *to = value; }
};

template <class U>
void copy_box_of(const BoxCopy& box, const void* from, void* to, void* stream) {
  run_points(box.elements(), BoxBody<U>{box, static_cast<const U*>(from), static_cast<U*>(to)}, stream);
}
inline void copy_box(const BoxCopy& box, const void* from, void* to, void* stream) {
  switch (box.bytes) {
    case 8: return copy_box_of<uint64_t>(box, from, to, stream);
    case 4: return copy_box_of<uint32_t>(box, from, to, stream);
    default: return copy_box_of<uint16_t>(box, from, to, stream);
  }
}

template <class T>
void fold_of(DeviceKernels::Fold fold, void* out, std::span<const void* const> in, int64_t elements, void* stream) {
  MESHARD_CHECK(in.size() <= kFoldMost, "too many members for a reduction on one device");
  FoldBody<T> body{fold, static_cast<int>(in.size()), {}, static_cast<T*>(out)};
  for (size_t m = 0; m < in.size(); ++m) body.x[m] = static_cast<const T*>(in[m]);
  run_points(elements, body, stream);
}
inline void fold(DeviceKernels::Fold kind, Dtype dtype, void* out, std::span<const void* const> in, int64_t elements,
                 void* stream) {
  switch (dtype) {
    case Dtype::f64: return fold_of<double>(kind, out, in, elements, stream);
    case Dtype::f32: return fold_of<float>(kind, out, in, elements, stream);
    case Dtype::bf16: return fold_of<bfloat16>(kind, out, in, elements, stream);
    case Dtype::f16: return fold_of<float16>(kind, out, in, elements, stream);
    case Dtype::i32: return fold_of<int32_t>(kind, out, in, elements, stream);
  }
}

inline void store_number_at(int32_t value, void* to, void* stream) {
  run_points(1, StoreBody{value, static_cast<int32_t*>(to)}, stream);
}

inline KernelPair find_pair(PrepareFn reference) {
  for (const auto& family : {map_family(), reduce_family(), rows_family(), attention_family(), index_family(), other_family()}) {
    for (const KernelPair& pair : family) {
      if (pair.reference == reference) return pair;
    }
  }
  return {};
}
inline PrepareFn find_kernel(PrepareFn reference) { return find_pair(reference).device; }
inline PrepareFn find_mixed_kernel(PrepareFn reference) {
  const KernelPair pair = find_pair(reference);
  return pair.mixed ? pair.device : nullptr;
}

constexpr DeviceKernels kDeviceKernels = {find_kernel, copy_box, fold, store_number_at, find_mixed_kernel};

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_TABLE_INL_H
