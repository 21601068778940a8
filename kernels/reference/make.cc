// Values made from nothing, by global index.
#include <string>

#include "meshard/kernels/random.h"
#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

Prepared random(const KernelSpec& spec, Distribution distribution) {
  const KernelOperand& y = spec.results[0];
  std::vector<RandomLoop> loops;
  int64_t stride = 1;
  for (size_t d = y.dims.size(); d-- > 0;) {
    for (size_t i = y.dims[d].size(); i-- > 0;) {
      const KernelFactor& f = spec.factors[static_cast<size_t>(y.dims[d][i])];
      loops.insert(loops.begin(), {f.size, f.begin, stride});
      stride *= f.global;
    }
  }
  return {0, [=, dtype = y.type.dtype, threads = spec.threads, seed = spec.attributes->integer("seed"),
              name = std::string(spec.attributes->text("name")),
              scale = spec.attributes->number("scale", 1)](const KernelCall& call) {
            fill_random(distribution, call.results[0], dtype, loops, seed, name, scale, threads);
          }};
}

}  // namespace

Prepared fill(const KernelSpec& spec) {
  const int64_t n = spec.results[0].type.shape.elements();
  const Dtype dtype = spec.results[0].type.dtype;
  return {0, [n, dtype, value = spec.attributes->number("value")](const KernelCall& call) {
            for (int64_t i = 0; i < n; ++i) store_number(call.results[0], dtype, i, value);
          }};
}

Prepared iota(const KernelSpec& spec) {
  const KernelOperand& y = spec.results[0];
  const auto dimension = static_cast<size_t>(spec.attributes->integer("dimension"));
  MESHARD_CHECK(dimension < y.dims.size(), "iota runs along a dimension of its result");
  struct Axis {
    int64_t size, stride, step;
  };  // elements in the block between neighbours, and how far their values are apart
  std::vector<Axis> axes;
  int64_t first = 0, step = 1;
  const std::vector<int64_t> strides = factor_strides(spec, y);
  for (size_t i = y.dims[dimension].size(); i-- > 0;) {
    const auto index = static_cast<size_t>(y.dims[dimension][i]);
    const KernelFactor& f = spec.factors[index];
    axes.push_back({f.size, strides[index], step});
    first += f.begin * step;
    step *= f.global;
  }
  return {0, [=, n = y.type.shape.elements(), dtype = y.type.dtype](const KernelCall& call) {
            for (int64_t i = 0; i < n; ++i) {
              int64_t value = first;
              for (const Axis& axis : axes) value += i / axis.stride % axis.size * axis.step;
              store_number(call.results[0], dtype, i, static_cast<double>(value));
            }
          }};
}

Prepared one_hot(const KernelSpec& spec) {
  const int64_t ids = spec.operands[0].type.shape.elements();
  const KernelFactor v = spec.factor("v");
  const Dtype dtype = spec.results[0].type.dtype;
  return {0, [=, begin = v.begin, size = v.size](const KernelCall& call) {
            for (int64_t i = 0; i < ids; ++i) {
              const int64_t id = in<int32_t>(call, 0)[i] - begin;
              for (int64_t j = 0; j < size; ++j) store_number(call.results[0], dtype, i * size + j, id == j ? 1 : 0);
            }
          }};
}

Prepared dropout(const KernelSpec& spec) {
  const KernelOperand& y = spec.results[0];
  std::vector<RandomLoop> loops;
  int64_t stride = 1;
  for (size_t d = y.dims.size(); d-- > 0;) {
    for (size_t i = y.dims[d].size(); i-- > 0;) {
      const KernelFactor& f = spec.factors[static_cast<size_t>(y.dims[d][i])];
      loops.insert(loops.begin(), {f.size, f.begin, stride});
      stride *= f.global;
    }
  }
  if (loops.empty()) loops.push_back({});
  const int64_t row = loops.back().size, rows = row == 0 ? 0 : y.type.shape.elements() / row;
  const double rate = spec.attributes->number("rate");
  // Random numbers are drawn row by row: as many as the last dimension is long.
  return for_float(y.type.dtype, [&]<class T>() -> Prepared {
    return {row * int64_t{4},
            [=, at = loops, seed = spec.attributes->integer("seed"),
             name = std::string(spec.attributes->text("name"))](const KernelCall& call) mutable {
              auto* drawn = static_cast<float*>(call.workspace);
              const auto step = static_cast<uint64_t>(in<int32_t>(call, 1)[0]);
              const auto key = static_cast<int64_t>(static_cast<uint64_t>(seed) + step * 0x9e3779b97f4a7c15ull);
              const Sum<T> kept = static_cast<Sum<T>>(1 / (1 - rate));
              for (int64_t r = 0; r < rows; ++r) {
                int64_t rest = r;
                for (size_t l = loops.size() - 1; l-- > 0;) {
                  at[l] = {1, loops[l].begin + rest % loops[l].size, loops[l].stride};
                  rest /= loops[l].size;
                }
                fill_random(Distribution::uniform, drawn, Dtype::f32, at, key, name, 1, 1);
                for (int64_t i = 0; i < row; ++i) {
                  const Sum<T> x = static_cast<Sum<T>>(in<T>(call, 0)[r * row + i]);
                  const bool keep = static_cast<double>(drawn[i]) >= 2 * rate - 1;
                  out<T>(call)[r * row + i] = static_cast<T>(keep ? x * kept : 0);
                }
              }
            }};
  });
}

Prepared random_normal(const KernelSpec& spec) { return random(spec, Distribution::normal); }
Prepared random_uniform(const KernelSpec& spec) { return random(spec, Distribution::uniform); }

}  // namespace meshard::reference
