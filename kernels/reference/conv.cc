// Convolutions and pools over one or two dimensions, h and w. With attributes stride, offset, dilation and spread of each,
// y[o] takes from x[(offset + stride o + dilation k) / spread] over the elements k of the window, where that divides and
// lies in x. So a transposed convolution is one too.
#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

// One of the two dimensions. `x` is the operand that is read through windows, `y` what has a window for each element.
struct Axis {
  int64_t stride = 1, offset = 0, dilation = 1, spread = 1;
  int64_t x_begin = 0, x_size = 1, x_step = 0;
  int64_t y_begin = 0, y_size = 1, y_step = 0;
  int64_t k_begin = 0, k_size = 1, k_step = 0;

  // Element of the block of x that window y (global) has at k (global), or -1.
  int64_t at(int64_t y, int64_t k) const {
    const int64_t q = offset + stride * y + dilation * k;
    if (q < 0 || q % spread != 0) return -1;
    const int64_t i = q / spread - x_begin;
    return i < x_size ? i : -1;
  }
};

using Axes = std::array<Axis, 2>;  // h, w

struct Steps {
  int64_t x = 0, w = 0, y = 0;
};

// The axes of an op whose x is `x`, windows are of `y`; `k` has the window's factors kh, kw, or is none and the attributes
// window_h, window_w say them.
Axes axes_of(const KernelSpec& spec, const KernelOperand& x, const KernelOperand& y, const KernelOperand* k) {
  Axes axes;
  for (size_t a = 0; a < 2; ++a) {
    const std::string letter = a == 0 ? "h" : "w";
    bool there = false;
    for (const KernelFactor& f : spec.factors) there = there || f.name == letter;
    if (!there) continue;
    const auto number = [&](const char* what, int64_t otherwise) {
      return spec.attributes->integer(what + ("_" + letter), otherwise);
    };
    Axis& axis = axes[a];
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

// f(offset in x, offset in k) for each element of window (i, j), indices in the block of y.
template <class F>
void each_in_window(const Axes& axes, int64_t i, int64_t j, const F& f) {
  const Axis &h = axes[0], &w = axes[1];
  for (int64_t kh = 0; kh < h.k_size; ++kh) {
    const int64_t p = h.at(h.y_begin + i, h.k_begin + kh);
    if (p < 0) continue;
    for (int64_t kw = 0; kw < w.k_size; ++kw) {
      const int64_t q = w.at(w.y_begin + j, w.k_begin + kw);
      if (q >= 0) f(p * h.x_step + q * w.x_step, kh * h.k_step + kw * w.k_step);
    }
  }
}

// Factors of the two blocks without those of the axes.
std::vector<int> others(const KernelSpec& spec, std::vector<int> factors) {
  std::vector<int> axes;
  for (size_t f = 0; f < spec.factors.size(); ++f) {
    const std::string_view name = spec.factors[f].name;
    if (name == "h" || name == "w" || name == "kh" || name == "kw") axes.push_back(static_cast<int>(f));
  }
  return without(std::move(factors), axes);
}

}  // namespace

Prepared conv(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &k = spec.operands[1], &y = spec.results[0];
  const Axes axes = axes_of(spec, x, y, &k);
  const std::array<const KernelOperand*, 3> blocks = {&x, &k, &y};
  const Nest<3> kept(spec, others(spec, factors_of(y)), blocks);
  const Nest<3> summed(spec, others(spec, reduced_factors(spec, y)), blocks);
  return for_float(y.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const T *from = in<T>(call, 0), *weights = in<T>(call, 1);
              T* to = out<T>(call);
              kept.each({}, [&](const Offsets<3>& at) {
                for (int64_t i = 0; i < axes[0].y_size; ++i) {
                  for (int64_t j = 0; j < axes[1].y_size; ++j) {
                    Sum<T> sum = 0;
                    each_in_window(axes, i, j, [&](int64_t dx, int64_t dk) {
                      summed.each(at, [&](const Offsets<3>& c) {
                        sum += static_cast<Sum<T>>(from[c[0] + dx]) * static_cast<Sum<T>>(weights[c[1] + dk]);
                      });
                    });
                    to[at[2] + i * axes[0].y_step + j * axes[1].y_step] = static_cast<T>(sum);
                  }
                }
              });
            }};
  });
}

Prepared conv_weights(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &dy = spec.operands[1], &k = spec.results[0];
  const Axes axes = axes_of(spec, x, dy, &k);
  const std::array<const KernelOperand*, 3> blocks = {&x, &dy, &k};
  const Nest<3> kept(spec, others(spec, factors_of(k)), blocks);
  const Nest<3> summed(spec, others(spec, reduced_factors(spec, k)), blocks);
  return for_float(k.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const T *from = in<T>(call, 0), *outer = in<T>(call, 1);
              T* to = out<T>(call);
              const Axis &h = axes[0], &w = axes[1];
              kept.each({}, [&](const Offsets<3>& at) {
                for (int64_t kh = 0; kh < h.k_size; ++kh) {
                  for (int64_t kw = 0; kw < w.k_size; ++kw) {
                    Sum<T> sum = 0;
                    for (int64_t i = 0; i < h.y_size; ++i) {
                      const int64_t p = h.at(h.y_begin + i, h.k_begin + kh);
                      for (int64_t j = 0; j < w.y_size && p >= 0; ++j) {
                        const int64_t q = w.at(w.y_begin + j, w.k_begin + kw);
                        if (q < 0) continue;
                        const int64_t dx = p * h.x_step + q * w.x_step, dy_at = i * h.y_step + j * w.y_step;
                        summed.each(at, [&](const Offsets<3>& b) {
                          sum += static_cast<Sum<T>>(from[b[0] + dx]) * static_cast<Sum<T>>(outer[b[1] + dy_at]);
                        });
                      }
                    }
                    to[at[2] + kh * h.k_step + kw * w.k_step] = static_cast<T>(sum);
                  }
                }
              });
            }};
  });
}

namespace {

template <class F>
Prepared pool(const KernelSpec& spec, double neutral, F fold) {
  const KernelOperand &x = spec.operands[0], &y = spec.results[0];
  const Axes axes = axes_of(spec, x, y, nullptr);
  const Nest<2> kept(spec, others(spec, factors_of(y)), {&x, &y});
  return for_float(y.type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const T* from = in<T>(call, 0);
              T* to = out<T>(call);
              kept.each({}, [&](const Offsets<2>& at) {
                for (int64_t i = 0; i < axes[0].y_size; ++i) {
                  for (int64_t j = 0; j < axes[1].y_size; ++j) {
                    auto so_far = static_cast<Sum<T>>(neutral);
                    each_in_window(axes, i, j, [&](int64_t dx, int64_t) {
                      so_far = fold(so_far, static_cast<Sum<T>>(from[at[0] + dx]));
                    });
                    to[at[1] + i * axes[0].y_step + j * axes[1].y_step] = static_cast<T>(so_far);
                  }
                }
              });
            }};
  });
}

}  // namespace

Prepared sum_pool(const KernelSpec& spec) {
  return pool(spec, 0, [](auto s, auto x) { return s + x; });
}

Prepared max_pool(const KernelSpec& spec) {
  return pool(spec, -std::numeric_limits<double>::infinity(), [](auto s, auto x) { return x > s || x != x ? x : s; });
}

// dx[i] is the sum of dy over the windows of which x[i] is the largest, shared with those equal to it.
Prepared max_pool_vjp(const KernelSpec& spec) {
  const KernelOperand &x = spec.operands[0], &dy = spec.operands[1], &dx = spec.results[0];
  const Axes axes = axes_of(spec, x, dy, nullptr);   // windows of the dy that is read, in the x that is read
  const Axes made = axes_of(spec, dx, dy, nullptr);  // and in the block of dx
  const Nest<3> kept(spec, others(spec, factors_of(dx)), {&x, &dy, &dx});
  const int64_t n = dx.type.shape.elements();
  return for_float(dx.type.dtype, [&]<class T>() -> Prepared {
    return {n * static_cast<int64_t>(sizeof(Sum<T>)), [=](const KernelCall& call) {
              const T *from = in<T>(call, 0), *outer = in<T>(call, 1);
              auto* sums = static_cast<Sum<T>*>(call.workspace);
              std::fill_n(sums, n, Sum<T>{0});
              kept.each({}, [&](const Offsets<3>& at) {
                for (int64_t i = 0; i < axes[0].y_size; ++i) {
                  for (int64_t j = 0; j < axes[1].y_size; ++j) {
                    const int64_t o = at[1] + i * axes[0].y_step + j * axes[1].y_step;
                    auto top = -std::numeric_limits<Sum<T>>::infinity();
                    int64_t equal = 0;
                    each_in_window(axes, i, j, [&](int64_t d, int64_t) {
                      const auto v = static_cast<Sum<T>>(from[at[0] + d]);
                      equal = v > top ? 1 : equal + (v == top);
                      top = std::max(top, v);
                    });
                    if (equal == 0) continue;
                    const Sum<T> share = static_cast<Sum<T>>(outer[o]) / static_cast<Sum<T>>(equal);
                    // The same elements by their places in the block of dx, where they are in it.
                    for (int64_t kh = 0; kh < axes[0].k_size; ++kh) {
                      const int64_t p = axes[0].at(axes[0].y_begin + i, kh), to_h = made[0].at(made[0].y_begin + i, kh);
                      for (int64_t kw = 0; kw < axes[1].k_size && p >= 0 && to_h >= 0; ++kw) {
                        const int64_t q = axes[1].at(axes[1].y_begin + j, kw);
                        const int64_t to_w = made[1].at(made[1].y_begin + j, kw);
                        if (q < 0 || to_w < 0) continue;
                        if (static_cast<Sum<T>>(from[at[0] + p * axes[0].x_step + q * axes[1].x_step]) != top) continue;
                        sums[at[2] + to_h * made[0].x_step + to_w * made[1].x_step] += share;
                      }
                    }
                  }
                }
              });
              std::transform(sums, sums + n, out<T>(call), [](Sum<T> s) { return static_cast<T>(s); });
            }};
  });
}

}  // namespace meshard::reference
