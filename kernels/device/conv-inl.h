// Convolutions and pools over h and w. The axes are those of kernels/reference/conv.cc: y[o] takes from
// x[(offset + stride o + dilation k) / spread] where that divides and lies in x.
#ifndef MESHARD_KERNELS_DEVICE_CONV_INL_H
#define MESHARD_KERNELS_DEVICE_CONV_INL_H

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

struct ConvAxis {
  int64_t stride = 1, offset = 0, dilation = 1, spread = 1;
  int64_t x_begin = 0, x_size = 1, x_step = 0;
  int64_t y_begin = 0, y_size = 1, y_step = 0;
  int64_t k_begin = 0, k_size = 1, k_step = 0;

  // Element of the block of x that window y has at k, both local, or -1.
  MESHARD_BODY int64_t at(int64_t y, int64_t k) const {
    const int64_t q = offset + stride * (y_begin + y) + dilation * (k_begin + k);
    if (q < 0 || q % spread != 0) return -1;
    const int64_t i = q / spread - x_begin;
    return i < x_size ? i : -1;
  }
  // The window (in the block of y) that has the element x (global) at k, or -1.
  MESHARD_BODY int64_t window(int64_t x, int64_t k) const {
    const int64_t q = x * spread - offset - dilation * (k_begin + k);
    if (q < 0 || q % stride != 0) return -1;
    const int64_t y = q / stride - y_begin;
    return y < y_size ? y : -1;
  }
};

struct ConvAxes {
  ConvAxis h, w;

  MESHARD_BODY int64_t windows() const { return h.y_size * w.y_size; }
  MESHARD_BODY int64_t window_size() const { return h.k_size * w.k_size; }
  // Offset in x of element k of window i (both counted row by row), or -1.
  MESHARD_BODY int64_t x_at(int64_t i, int64_t k) const {
    const int64_t p = h.at(i / w.y_size, k / w.k_size), q = w.at(i % w.y_size, k % w.k_size);
    return p < 0 || q < 0 ? -1 : p * h.x_step + q * w.x_step;
  }
  MESHARD_BODY int64_t y_at(int64_t i) const { return i / w.y_size * h.y_step + i % w.y_size * w.y_step; }
  MESHARD_BODY int64_t k_at(int64_t k) const { return k / w.k_size * h.k_step + k % w.k_size * w.k_step; }
};

// `k` has the window's factors kh and kw, or is null and the attributes window_h and window_w say them.
inline ConvAxes conv_axes(const KernelSpec& spec, const KernelOperand& x, const KernelOperand& y, const KernelOperand* k) {
  ConvAxes axes;
  for (const std::string letter : {"h", "w"}) {
    const bool there = std::any_of(spec.factors.begin(), spec.factors.end(), [&](const KernelFactor& f) { return f.name == letter; });
    if (!there) continue;
    const auto number = [&](const char* what, int64_t otherwise) {
      return spec.attributes->integer(what + ("_" + letter), otherwise);
    };
    ConvAxis& axis = letter == "h" ? axes.h : axes.w;
    axis.stride = number("stride", 1);
    axis.offset = number("offset", 0);
    axis.dilation = number("dilation", 1);
    axis.spread = number("spread", 1);
    axis.k_size = number("window", 1);
    const auto f = static_cast<size_t>(factor_index(spec, letter));
    const auto block = [&](const KernelOperand& o, int64_t& begin, int64_t& size, int64_t& step) {
      for (size_t d = 0; d < o.dims.size(); ++d) {
        if (o.dims[d].empty() || o.dims[d][0] != static_cast<int>(f)) continue;
        size = o.type.shape.dims[d];
        begin = o.begin.empty() ? spec.factors[f].begin : o.begin[d];
      }
      step = factor_strides(spec, o)[f];
    };
    block(x, axis.x_begin, axis.x_size, axis.x_step);
    block(y, axis.y_begin, axis.y_size, axis.y_step);
    if (k == nullptr) continue;
    const auto kernel = static_cast<size_t>(factor_index(spec, "k" + letter));
    axis.k_begin = spec.factors[kernel].begin;
    axis.k_size = spec.factors[kernel].size;
    axis.k_step = factor_strides(spec, *k)[kernel];
  }
  return axes;
}

inline std::vector<int> without_axes(const KernelSpec& spec, std::vector<int> factors) {
  std::vector<int> axes;
  for (size_t f = 0; f < spec.factors.size(); ++f) {
    const std::string_view name = spec.factors[f].name;
    if (name == "h" || name == "w" || name == "kh" || name == "kw") axes.push_back(static_cast<int>(f));
  }
  return without(std::move(factors), axes);
}

template <class T>
struct ConvBody {
  ConvAxes axes;
  Points<3> kept, summed;  // x, k, y
  const T *x, *k;
  T* y;

  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = kept.at(i / axes.windows());
    const int64_t window = i % axes.windows();
    Sum<T> sum = 0;
    for (int64_t e = 0; e < axes.window_size(); ++e) {
      const int64_t dx = axes.x_at(window, e), dk = axes.k_at(e);
      for (int64_t c = 0; dx >= 0 && c < summed.count; ++c) {
        const auto here = summed.at(c);
        sum += load(x[at[0] + here[0] + dx]) * load(k[at[1] + here[1] + dk]);
      }
    }
    y[at[2] + axes.y_at(window)] = store<T>(sum);
  }
};

// A team has one weight.
template <class T>
struct ConvWeightsBody {
  ConvAxes axes;
  Points<3> kept, summed;  // x, dy, dk
  const T *x, *dy;
  T* dk;

  MESHARD_BODY void operator()(const Team& team) const {
    const int64_t e = team.index() % axes.window_size();
    const auto at = kept.at(team.index() / axes.window_size());
    const Sum<T> sum = team.sum<Sum<T>>(axes.windows() * summed.count, [&](int64_t i) {
      const int64_t window = i / summed.count, dx = axes.x_at(window, e);
      if (dx < 0) return Sum<T>(0);
      const auto here = summed.at(i % summed.count);
      return load(x[at[0] + here[0] + dx]) * load(dy[at[1] + here[1] + axes.y_at(window)]);
    });
    team.each(1, [&](int64_t) { dk[at[2] + axes.k_at(e)] = store<T>(sum); });
  }
};

template <class T>
struct PoolBody {
  ConvAxes axes;
  Points<2> kept;  // x, y
  bool largest;
  const T* x;
  T* y;

  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = kept.at(i / axes.windows());
    const int64_t window = i % axes.windows();
    Sum<T> so_far = largest ? -infinity<Sum<T>>() : Sum<T>(0);
    for (int64_t e = 0; e < axes.window_size(); ++e) {
      const int64_t dx = axes.x_at(window, e);
      if (dx < 0) continue;
      const Sum<T> value = load(x[at[0] + dx]);
      so_far = !largest ? so_far + value : value > so_far || value != value ? value : so_far;
    }
    y[at[1] + axes.y_at(window)] = store<T>(so_far);
  }
};

// dx[i] is the sum of dy over the windows of which x[i] is the largest, shared with those equal to it.
template <class T>
struct MaxPoolVjpBody {
  ConvAxes axes, made;  // windows in the x that is read, and in the block of dx
  Points<3> kept;       // x, dy, dx
  const T *x, *dy;
  T* dx;

  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t elements = made.h.x_size * made.w.x_size;
    const auto at = kept.at(i / elements);
    const int64_t p = i % elements / made.w.x_size, q = i % made.w.x_size;
    Sum<T> sum = 0;
    for (int64_t e = 0; e < axes.window_size(); ++e) {
      const int64_t wh = axes.h.window(made.h.x_begin + p, e / axes.w.k_size);
      const int64_t ww = axes.w.window(made.w.x_begin + q, e % axes.w.k_size);
      if (wh < 0 || ww < 0) continue;
      const int64_t window = wh * axes.w.y_size + ww;
      Sum<T> top = -infinity<Sum<T>>();
      int64_t equal = 0;
      for (int64_t k = 0; k < axes.window_size(); ++k) {
        const int64_t d = axes.x_at(window, k);
        if (d < 0) continue;
        const Sum<T> value = load(x[at[0] + d]);
        equal = value > top ? 1 : equal + (value == top);
        top = larger(top, value);
      }
      const int64_t mine = axes.x_at(window, e);
      if (mine < 0 || equal == 0 || load(x[at[0] + mine]) != top) continue;
      sum += load(dy[at[1] + axes.y_at(window)]) / static_cast<Sum<T>>(equal);
    }
    dx[at[2] + p * made.h.x_step + q * made.w.x_step] = store<T>(sum);
  }
};

inline Prepared conv(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &k = spec.operands[1], &y = spec.results[0];
  const ConvAxes axes = conv_axes(spec, x, y, &k);
  const Points<3> kept = points_of<3>(spec, without_axes(spec, factors_of(y)), {&x, &k, &y});
  const Points<3> summed = points_of<3>(spec, without_axes(spec, reduced_factors(spec, y)), {&x, &k, &y});
  return for_float(y.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, n = y.type.shape.elements()](const KernelCall& call) {
              run_points(n, ConvBody<T>{axes, kept, summed, in<T>(call, 0), in<T>(call, 1), out<T>(call)}, call.stream);
            }};
  });
}

inline Prepared conv_weights(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &dy = spec.operands[1], &k = spec.results[0];
  const ConvAxes axes = conv_axes(spec, x, dy, &k);
  const Points<3> kept = points_of<3>(spec, without_axes(spec, factors_of(k)), {&x, &dy, &k});
  const Points<3> summed = points_of<3>(spec, without_axes(spec, reduced_factors(spec, k)), {&x, &dy, &k});
  return for_float(k.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, n = k.type.shape.elements()](const KernelCall& call) {
              run_teams(n, kRowThreads, 0,
                        ConvWeightsBody<T>{axes, kept, summed, in<T>(call, 0), in<T>(call, 1), out<T>(call)},
                        call.stream);
            }};
  });
}

template <bool largest>
Prepared pool(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &y = spec.results[0];
  const ConvAxes axes = conv_axes(spec, x, y, nullptr);
  const Points<2> kept = points_of<2>(spec, without_axes(spec, factors_of(y)), {&x, &y});
  return for_float(y.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, n = y.type.shape.elements()](const KernelCall& call) {
              run_points(n, PoolBody<T>{axes, kept, largest, in<T>(call, 0), out<T>(call)}, call.stream);
            }};
  });
}

inline Prepared max_pool_vjp(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &dy = spec.operands[1], &dx = spec.results[0];
  const ConvAxes axes = conv_axes(spec, x, dy, nullptr), made = conv_axes(spec, dx, dy, nullptr);
  const Points<3> kept = points_of<3>(spec, without_axes(spec, factors_of(dx)), {&x, &dy, &dx});
  return for_float(dx.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, n = dx.type.shape.elements()](const KernelCall& call) {
              run_points(n, MaxPoolVjpBody<T>{axes, made, kept, in<T>(call, 0), in<T>(call, 1), out<T>(call)},
                         call.stream);
            }};
  });
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_CONV_INL_H
