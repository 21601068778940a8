// Elements by index. An index outside this block, or outside the tensor, finds nothing.
#include <algorithm>
#include <cstring>

#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared gather(const KernelSpec& spec) {
  const auto k = static_cast<size_t>(factor_index(spec, "k"));
  const int64_t begin = spec.factors[k].begin, size = spec.factors[k].size;
  const int64_t stride = factor_strides(spec, spec.operands[0])[k];
  const Nest<3> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const T* x = in<T>(call, 0);
              const int32_t* ids = in<int32_t>(call, 1);
              T* y = out<T>(call);
              nest.each({}, [&](const Offsets<3>& at) {
                const int64_t id = ids[at[1]] - begin;
                y[at[2]] = id >= 0 && id < size ? x[at[0] + id * stride] : T{};
              });
            }};
  });
}

namespace {

// Into zeros, or into the last operand.
Prepared scatter(const KernelSpec& spec, bool onto) {
  const auto k = static_cast<size_t>(factor_index(spec, "k"));
  const int64_t begin = spec.factors[k].begin, size = spec.factors[k].size;
  const int64_t stride = factor_strides(spec, spec.results[0])[k], n = spec.results[0].type.shape.elements();
  const Nest<3> nest(spec, factors_of(spec.operands[1]), {&spec.operands[0], &spec.operands[1], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    // Summed in the accumulating type: bf16 would drop small terms.
    constexpr bool kNarrow = sizeof(T) < sizeof(Sum<T>);
    return {kNarrow ? n * static_cast<int64_t>(sizeof(Sum<T>)) : 0, [=](const KernelCall& call) {
              const int32_t* ids = in<int32_t>(call, 0);
              const T* x = in<T>(call, 1);
              auto* sums = static_cast<Sum<T>*>(kNarrow ? call.workspace : call.results[0]);
              if (onto) {
                for (int64_t i = 0; i < n; ++i) sums[i] = static_cast<Sum<T>>(in<T>(call, 2)[i]);
              } else {
                std::fill_n(sums, n, Sum<T>{0});
              }
              nest.each({}, [&](const Offsets<3>& at) {
                const int64_t id = ids[at[0]] - begin;
                if (id >= 0 && id < size) sums[at[2] + id * stride] += static_cast<Sum<T>>(x[at[1]]);
              });
              if (kNarrow) std::transform(sums, sums + n, out<T>(call), [](Sum<T> s) { return static_cast<T>(s); });
            }};
  });
}

}  // namespace

Prepared scatter_add(const KernelSpec& spec) { return scatter(spec, false); }
Prepared scatter_add_onto(const KernelSpec& spec) { return scatter(spec, true); }

namespace {

// A block as runs: before and behind the dimension along which something moves.
struct Line {
  int64_t outer = 1, size = 1, inner = 1;  // inner in bytes
};
Line line_of(const KernelOperand& block, size_t dimension) {
  Line line;
  const auto& dims = block.type.shape.dims;
  for (size_t d = 0; d < dims.size(); ++d) {
    (d < dimension ? line.outer : d == dimension ? line.size : line.inner) *= dims[d];
  }
  line.inner *= size_bytes(block.type.dtype);
  return line;
}

void copy_run(std::byte* to, const std::byte* from, int64_t bytes) {
  if (bytes == 0) return;
  if (from == nullptr) {
    std::memset(to, 0, static_cast<size_t>(bytes));
  } else {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
}

int64_t floor_mod(int64_t a, int64_t n) { return (a % n + n) % n; }

}  // namespace

Prepared window(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const Line x = line_of(spec.operands[0], d), y = line_of(spec.results[0], d);
  const KernelFactor t = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])];
  const int64_t read = spec.operands[0].begin_of(d), step = spec.attributes->integer("step", 1);
  const int64_t spread = spec.attributes->integer("spread", 1);
  const bool ring = spec.attributes->flag("ring");
  int64_t offset = spec.attributes->integer("offset");
  if (ring && t.global > 0) offset = floor_mod(offset, t.global);
  return {0, [=](const KernelCall& call) {
            for (int64_t i = 0; i < y.size; ++i) {
              const int64_t at = offset + step * (t.begin + i);
              int64_t from = at / spread - read;
              if (ring && x.size > 0 && (from < 0 || from >= x.size)) from = floor_mod(from, x.size);
              const bool there = at % spread == 0 && from >= 0 && from < x.size;
              for (int64_t o = 0; o < y.outer; ++o) {
                const std::byte* source = in<std::byte>(call, 0) + (o * x.size + from) * x.inner;
                copy_run(out<std::byte>(call) + (o * y.size + i) * y.inner, there ? source : nullptr, y.inner);
              }
            }
          }};
}

Prepared concat(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const Line y = line_of(spec.results[0], d);
  const KernelFactor t = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])];
  struct Part {
    Line line;
    int64_t begin;  // of the block, in its operand
  };
  std::vector<Part> parts;
  for (const KernelOperand& operand : spec.operands) parts.push_back({line_of(operand, d), operand.begin_of(d)});
  std::vector<int64_t> starts{0};
  for (size_t i = 0; i + 1 < parts.size(); ++i) starts.push_back(spec.operands[i].global_of(d) + starts.back());
  return {0, [=](const KernelCall& call) {
            for (size_t p = 0; p < parts.size(); ++p) {
              const Line& x = parts[p].line;
              const int64_t first = std::max<int64_t>(starts[p] + parts[p].begin - t.begin, 0);
              const int64_t last = std::min<int64_t>(starts[p] + parts[p].begin + x.size - t.begin, y.size);
              for (int64_t o = 0; o < y.outer && first < last; ++o) {
                const int64_t from = first + t.begin - starts[p] - parts[p].begin;
                copy_run(out<std::byte>(call) + (o * y.size + first) * y.inner,
                         in<std::byte>(call, p) + (o * x.size + from) * x.inner, (last - first) * y.inner);
              }
            }
          }};
}

Prepared dynamic_slice(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const Line x = line_of(spec.operands[0], d), y = line_of(spec.results[0], d);
  const int64_t begin = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])].begin;
  const int64_t held = spec.factors[static_cast<size_t>(spec.operands[0].dims[d][0])].begin;
  return {0, [=](const KernelCall& call) {
            const int64_t start = in<int32_t>(call, 1)[0];
            for (int64_t i = 0; i < y.size; ++i) {
              const int64_t from = start + begin + i - held;
              for (int64_t o = 0; o < y.outer; ++o) {
                const std::byte* source = in<std::byte>(call, 0) + (o * x.size + from) * x.inner;
                copy_run(out<std::byte>(call) + (o * y.size + i) * y.inner, from >= 0 && from < x.size ? source : nullptr,
                         y.inner);
              }
            }
          }};
}

Prepared dynamic_update(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const Line y = line_of(spec.results[0], d), u = line_of(spec.operands[1], d);
  const int64_t begin = spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])].begin;
  const int64_t bytes = spec.results[0].type.bytes();
  return {0, [=](const KernelCall& call) {
            if (call.results[0] != call.operands[0]) copy_run(out<std::byte>(call), in<std::byte>(call, 0), bytes);
            const int64_t start = in<int32_t>(call, 2)[0];
            for (int64_t i = 0; i < u.size; ++i) {
              const int64_t to = start + i - begin;
              if (to < 0 || to >= y.size) continue;
              for (int64_t o = 0; o < y.outer; ++o) {
                copy_run(out<std::byte>(call) + (o * y.size + to) * y.inner,
                         in<std::byte>(call, 1) + (o * u.size + i) * u.inner, u.inner);
              }
            }
          }};
}

}  // namespace meshard::reference
