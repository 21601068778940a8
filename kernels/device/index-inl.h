// Elements that go elsewhere: transposes, tables, windows, slices. A thread has an element of the result and finds where
// it comes from. What is summed by index is put in order first, so that it is summed in the order of the specification.
#ifndef MESHARD_KERNELS_DEVICE_INDEX_INL_H
#define MESHARD_KERNELS_DEVICE_INDEX_INL_H

#include "meshard/kernels/device/number-inl.h"
#include "meshard/kernels/reference/ring.h"

namespace meshard::MESHARD_DEVICE {

// Elements as they are stored, by their size alone.
template <class F>
Prepared for_size(Dtype dtype, const F& make) {
  switch (size_bytes(dtype)) {
    case 8: return make.template operator()<uint64_t>();
    case 4: return make.template operator()<uint32_t>();
    default: return make.template operator()<uint16_t>();
  }
}

template <class U>
struct CopyBody {
  const U* x;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const { y[i] = x[i]; }
};

template <class U>
struct TransposeBody {
  Points<2> points;
  const U* x;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    y[at[1]] = x[at[0]];
  }
};

// From a block of a wide tensor to a narrow one, or back.
template <class U>
struct RingBody {
  Points<2> points;
  bool back;
  const U* x;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    y[at[back ? 0 : 1]] = x[at[back ? 1 : 0]];
  }
};

template <class U>
struct ZeroBody {
  U* y;
  MESHARD_BODY void operator()(int64_t i) const { y[i] = U(0); }
};

// Row `*row` of x, or zeros.
template <class U>
struct TakeBody {
  int64_t rows, begin, size;
  const U* x;
  const int32_t* row;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t r = *row - begin;
    y[i] = r >= 0 && r < rows ? x[r * size + i] : U(0);
  }
};

// x at k = id; an embedding is one along its rows.
template <class U>
struct GatherBody {
  Points<3> points;  // x, ids, y
  int64_t begin, size, stride;
  const U* x;
  const int32_t* ids;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const auto at = points.at(i);
    const int64_t id = ids[at[1]] - begin;
    y[at[2]] = id >= 0 && id < size ? x[at[0] + id * stride] : U(0);
  }
};

// A block as runs along one dimension.
struct LineShape {
  int64_t outer = 1, size = 1, inner = 1;  // elements
  LineShape() = default;
  LineShape(const KernelOperand& block, size_t dimension) {
    const auto& dims = block.type.shape.dims;
    for (size_t d = 0; d < dims.size(); ++d) {
      (d < dimension ? outer : d == dimension ? size : inner) *= dims[d];
    }
  }
  int64_t count() const { return outer * size * inner; }
};

MESHARD_BODY inline int64_t ring_index(int64_t a, int64_t n) { return (a % n + n) % n; }

template <class U>
struct WindowBody {
  LineShape x_line, y_line;
  int64_t begin, read, offset, step, spread;
  bool ring;
  const U* x;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t j = i % y_line.inner, t = i / y_line.inner % y_line.size, o = i / y_line.inner / y_line.size;
    const int64_t at = offset + step * (begin + t), n = x_line.size;
    int64_t from = at / spread - read;
    if (ring && n > 0 && (from < 0 || from >= n)) from = ring_index(from, n);
    const bool there = at % spread == 0 && from >= 0 && from < n;
    y[i] = there ? x[(o * n + from) * x_line.inner + j] : U(0);
  }
};

// Copies `count` elements of the line of x from `from` on to that of y from `to` on. With `start`, both move: x is read
// from *start on by a slice, y is written there by an update, and what lies outside is zeros, or not written.
template <class U>
struct LineCopyBody {
  LineShape x_line, y_line;
  int64_t from, to, count;
  const int32_t* start;
  int from_sign, to_sign;
  bool zeros;
  const U* x;
  U* y;
  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t j = i % y_line.inner, t = i / y_line.inner % count, o = i / y_line.inner / count;
    const int64_t moved = start != nullptr ? *start : 0;
    const int64_t source = from + from_sign * moved + t, target = to + to_sign * moved + t;
    if (target < 0 || target >= y_line.size) return;
    const bool there = source >= 0 && source < x_line.size;
    if (!there && !zeros) return;
    y[(o * y_line.size + target) * y_line.inner + j] = there ? x[(o * x_line.size + source) * x_line.inner + j] : U(0);
  }
};

inline Prepared copy(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements();
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [n](const KernelCall& call) {
              if (call.results[0] == call.operands[0]) return;
              run_points(n, CopyBody<U>{in<U>(call, 0), out<U>(call)}, call.stream);
            }};
  });
}

inline Prepared transpose(const KernelSpec& spec) {
  const Points<2> points =
      points_of<2>(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.results[0]});
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [points](const KernelCall& call) {
              run_points(points.count, TransposeBody<U>{points, in<U>(call, 0), out<U>(call)}, call.stream);
            }};
  });
}

inline Prepared take(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements(), rows = spec.operands[0].type.shape[0];
  const int64_t begin = spec.factor("k").begin;
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(n, TakeBody<U>{rows, begin, n, in<U>(call, 0), in<int32_t>(call, 1), out<U>(call)},
                         call.stream);
            }};
  });
}

inline Prepared prepare_gather(const KernelSpec& spec, size_t table, size_t ids, std::string_view factor) {
  const auto k = static_cast<size_t>(factor_index(spec, factor));
  const int64_t begin = spec.factors[k].begin, size = spec.factors[k].size;
  const int64_t stride = factor_strides(spec, spec.operands[table])[k];
  const Points<3> points = points_of<3>(spec, factors_of(spec.results[0]),
                                        {&spec.operands[table], &spec.operands[ids], &spec.results[0]});
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(points.count,
                         GatherBody<U>{points, begin, size, stride, in<U>(call, table), in<int32_t>(call, ids),
                                       out<U>(call)},
                         call.stream);
            }};
  });
}
inline Prepared gather(const KernelSpec& spec) { return prepare_gather(spec, 0, 1, "k"); }
inline Prepared embedding(const KernelSpec& spec) { return prepare_gather(spec, 1, 0, "v"); }

inline Prepared window(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const LineShape x(spec.operands[0], d), y(spec.results[0], d);
  const KernelFactor t = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])];
  const int64_t begin = t.begin, read = spec.operands[0].begin_of(d), step = spec.attributes->integer("step", 1);
  const int64_t spread = spec.attributes->integer("spread", 1);
  const bool ring = spec.attributes->flag("ring");
  int64_t offset = spec.attributes->integer("offset");
  if (ring && t.global > 0) offset = (offset % t.global + t.global) % t.global;
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(y.count(),
                         WindowBody<U>{x, y, begin, read, offset, step, spread, ring, in<U>(call, 0), out<U>(call)},
                         call.stream);
            }};
  });
}

inline Prepared concat(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const LineShape y(spec.results[0], d);
  const int64_t begin = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])].begin;
  struct Part {
    LineShape line;
    int64_t from, to, count;
  };
  std::vector<Part> parts;
  int64_t start = 0;
  for (const KernelOperand& operand : spec.operands) {
    const LineShape line(operand, d);
    const int64_t at = start + operand.begin_of(d);  // of the block's first element, in the whole result
    const int64_t first = std::max(at - begin, int64_t{0}), last = std::min(at + line.size - begin, y.size);
    parts.push_back({line, first + begin - at, first, std::max(last - first, int64_t{0})});
    start += operand.global_of(d);
  }
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              for (size_t p = 0; p < parts.size(); ++p) {
                const Part& part = parts[p];
                run_points(y.outer * part.count * y.inner,
                           LineCopyBody<U>{part.line, y, part.from, part.to, part.count, nullptr, 0, 0, false,
                                           in<U>(call, p), out<U>(call)},
                           call.stream);
              }
            }};
  });
}

inline Prepared dynamic_slice(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const LineShape x(spec.operands[0], d), y(spec.results[0], d);
  const int64_t begin = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])].begin;
  const int64_t held = spec.factors[static_cast<size_t>(spec.operands[0].dims[d][0])].begin;
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              run_points(y.count(),
                         LineCopyBody<U>{x, y, begin - held, 0, y.size, in<int32_t>(call, 1), 1, 0, true,
                                         in<U>(call, 0), out<U>(call)},
                         call.stream);
            }};
  });
}

inline Prepared dynamic_update(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const LineShape y(spec.results[0], d), u(spec.operands[1], d);
  const int64_t begin = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])].begin;
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              if (call.results[0] != call.operands[0]) {
                run_points(y.count(), CopyBody<U>{in<U>(call, 0), out<U>(call)}, call.stream);
              }
              run_points(u.count(),
                         LineCopyBody<U>{u, y, 0, -begin, u.size, in<int32_t>(call, 2), 0, 1, false, in<U>(call, 1),
                                         out<U>(call)},
                         call.stream);
            }};
  });
}

// Block ring + offset of letter "block", for each index of "ring": copied out of the wide operand, or into it.
inline Prepared copy_ring_blocks(const KernelSpec& spec, bool out_of) {
  const RingBlocks blocks(spec, spec.operands[0], out_of ? spec.results[0] : spec.operands[1]);
  const Points<2> points(blocks.nest);
  const int64_t narrow = (out_of ? spec.results[0] : spec.operands[1]).type.shape.elements();
  const int64_t wide = spec.operands[0].type.shape.elements();
  return for_size(spec.results[0].type.dtype, [&]<class U>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              U* y = out<U>(call);
              if (out_of && blocks.misses) run_points(narrow, ZeroBody<U>{y}, call.stream);
              if (!out_of && call.results[0] != call.operands[0]) run_points(wide, CopyBody<U>{in<U>(call, 0), y}, call.stream);
              blocks.each([&](int64_t at_wide, int64_t at_narrow) {
                const U* from = out_of ? in<U>(call, 0) + at_wide : in<U>(call, 1) + at_narrow;
                U* to = y + (out_of ? at_narrow : at_wide);
                run_points(points.count, RingBody<U>{points, !out_of, from, to}, call.stream);
              });
            }};
  });
}

inline Prepared ring_part(const KernelSpec& spec) { return copy_ring_blocks(spec, true); }
inline Prepared ring_place(const KernelSpec& spec) { return copy_ring_blocks(spec, false); }

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_INDEX_INL_H
