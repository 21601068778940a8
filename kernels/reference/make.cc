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

Prepared random_normal(const KernelSpec& spec) { return random(spec, Distribution::normal); }
Prepared random_uniform(const KernelSpec& spec) { return random(spec, Distribution::uniform); }

}  // namespace meshard::reference
