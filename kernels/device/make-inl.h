// Values made by global index, dropout, rope and AdamW: a thread has an element, or a pair.
#ifndef MESHARD_KERNELS_DEVICE_MAKE_INL_H
#define MESHARD_KERNELS_DEVICE_MAKE_INL_H

#include "meshard/kernels/device/number-inl.h"
#include "meshard/kernels/philox.h"

namespace meshard::MESHARD_DEVICE {

// The index of a block's element in the whole tensor, row-major.
struct GlobalIndex {
  static constexpr int kMost = 12;
  int loops = 0;
  int64_t size[kMost] = {}, begin[kMost] = {}, stride[kMost] = {};

  GlobalIndex(const KernelSpec& spec, const KernelOperand& y) {
    int64_t step = 1;
    for (size_t d = y.dims.size(); d-- > 0;) {
      for (size_t i = y.dims[d].size(); i-- > 0;) {
        const KernelFactor& f = spec.factors[static_cast<size_t>(y.dims[d][i])];
        MESHARD_CHECK(loops < kMost, "a kernel has too many loops");
        size[loops] = f.size;
        begin[loops] = f.begin;
        stride[loops++] = step;
        step *= f.global;
      }
    }
  }
  MESHARD_BODY int64_t of(int64_t i) const {
    int64_t index = 0;
    for (int l = 0; l < loops; ++l) {
      index += (begin[l] + i % size[l]) * stride[l];
      i /= size[l];
    }
    return index;
  }
};

MESHARD_BODY inline double random_at(const RandomStream& stream, int64_t index) {
  return random_four(stream, index / 4).x[index % 4];
}

struct RandomBody {
  RandomStream stream;
  GlobalIndex index;
  Side y;
  MESHARD_BODY void operator()(int64_t i) const { y.set(i, random_at(stream, index.of(i))); }
};

template <class T>
struct DropoutBody {
  RandomStream stream;
  GlobalIndex index;
  double rate;
  const T* x;
  const int32_t* step;
  T* y;

  MESHARD_BODY void operator()(int64_t i) const {
    RandomStream mine = stream;
    mine.seed += static_cast<uint64_t>(static_cast<int64_t>(*step)) * 0x9e3779b97f4a7c15ull;
    const bool keep = static_cast<double>(static_cast<float>(random_at(mine, index.of(i)))) >= 2 * rate - 1;
    y[i] = store<T>(keep ? load(x[i]) * static_cast<Sum<T>>(1 / (1 - rate)) : Sum<T>(0));
  }
};

struct IotaBody {
  static constexpr int kMost = 6;
  Side y;
  int64_t first = 0;
  int axes = 0;
  int64_t size[kMost] = {}, stride[kMost] = {}, step[kMost] = {};

  MESHARD_BODY void operator()(int64_t i) const {
    int64_t value = first;
    for (int a = 0; a < axes; ++a) value += i / stride[a] % size[a] * step[a];
    y.set(i, static_cast<double>(value));
  }
};

struct OneHotBody {
  int64_t size, begin;
  const int32_t* ids;
  Side y;
  MESHARD_BODY void operator()(int64_t i) const { y.set(i, ids[i / size] - begin == i % size ? 1 : 0); }
};

template <class T>
struct RopeBody {
  Points<1> rows;       // without t and e
  const int32_t* start;  // null: 0
  int64_t begin, count, stride, half;
  double theta, sign;
  const T* x;
  T* y;

  MESHARD_BODY void operator()(int64_t i) const {
    using A = Sum<T>;
    const int64_t j = i % half, t = i / half % count;
    const int64_t at = rows.at(i / half / count)[0] + t * stride + j;
    const int64_t position = begin + t + (start != nullptr ? *start : 0);
    const double angle =
        static_cast<double>(position) * ::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(2 * half));
    const A c = static_cast<A>(::cos(angle)), s = static_cast<A>(sign * ::sin(angle));
    const A low = load(x[at]), high = load(x[at + half]);
    y[at] = store<T>(low * c - high * s);
    y[at + half] = store<T>(high * c + low * s);
  }
};

template <bool normal>
Prepared random(const KernelSpec& spec) {
  const KernelOperand& y = spec.results[0];
  const RandomStream stream{normal, static_cast<uint64_t>(spec.attributes->integer("seed")),
                            random_name(spec.attributes->text("name")), spec.attributes->number("scale", 1)};
  return {0, [=, n = y.type.shape.elements(), dtype = y.type.dtype,
              index = GlobalIndex(spec, y)](const KernelCall& call) {
            run_points(n, RandomBody{stream, index, side(call.results[0], dtype)}, call.stream);
          }};
}

inline Prepared dropout(const KernelSpec& spec) {
  const KernelOperand& y = spec.results[0];
  const RandomStream stream{false, static_cast<uint64_t>(spec.attributes->integer("seed")),
                            random_name(spec.attributes->text("name")), 1};
  const double rate = spec.attributes->number("rate");
  const GlobalIndex index(spec, y);
  return for_float(y.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, n = y.type.shape.elements()](const KernelCall& call) {
              run_points(n, DropoutBody<T>{stream, index, rate, in<T>(call, 0), in<int32_t>(call, 1), out<T>(call)},
                         call.stream);
            }};
  });
}

inline Prepared iota(const KernelSpec& spec) {
  const KernelOperand& y = spec.results[0];
  const auto dimension = static_cast<size_t>(spec.attributes->integer("dimension"));
  MESHARD_CHECK(dimension < y.dims.size(), "iota runs along a dimension of its result");
  IotaBody body{side(nullptr, y.type.dtype)};
  int64_t step = 1;
  const std::vector<int64_t> strides = factor_strides(spec, y);
  for (size_t i = y.dims[dimension].size(); i-- > 0;) {
    const auto index = static_cast<size_t>(y.dims[dimension][i]);
    const KernelFactor& f = spec.factors[index];
    MESHARD_CHECK(body.axes < IotaBody::kMost, "a dimension has too many factors");
    body.size[body.axes] = f.size;
    body.stride[body.axes] = strides[index];
    body.step[body.axes++] = step;
    body.first += f.begin * step;
    step *= f.global;
  }
  return {0, [n = y.type.shape.elements(), body](const KernelCall& call) {
            IotaBody mine = body;
            mine.y.data = call.results[0];
            run_points(n, mine, call.stream);
          }};
}

inline Prepared one_hot(const KernelSpec& spec) {
  const KernelFactor v = spec.factor("v");
  const KernelOperand& y = spec.results[0];
  return {0, [n = y.type.shape.elements(), dtype = y.type.dtype, begin = v.begin, size = v.size](const KernelCall& call) {
            run_points(n, OneHotBody{size, begin, in<int32_t>(call, 0), side(call.results[0], dtype)}, call.stream);
          }};
}

inline Prepared rope(const KernelSpec& spec) {
  const int64_t e = spec.operands[0].type.shape.dims.back();
  MESHARD_CHECK(e % 2 == 0, "rope turns pairs: its last dimension must be even");
  const double theta = spec.attributes->number("theta", 10000), sign = spec.attributes->flag("inverse") ? -1 : 1;
  const int t = factor_index(spec, "t");
  const KernelFactor positions = spec.factors[static_cast<size_t>(t)];
  const int64_t begin = positions.begin, count = positions.size;
  const int64_t stride = factor_strides(spec, spec.operands[0])[static_cast<size_t>(t)];
  const std::vector<int> others =
      without(without(factors_of(spec.operands[0]), spec.operands[0].dims.back()), {t});
  const Points<1> rows = points_of<1>(spec, others, {&spec.operands[0]});
  const bool moved = spec.operands.size() > 1;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(rows.count * count * (e / 2),
                         RopeBody<T>{rows, moved ? in<int32_t>(call, 1) : nullptr, begin, count, stride, e / 2, theta, sign, in<T>(call, 0),
                                     out<T>(call)},
                         call.stream);
            }};
  });
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_MAKE_INL_H
