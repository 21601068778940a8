#include "meshard/kernels/reference/nest.h"

#include <algorithm>
#include <string>

namespace meshard {

std::vector<int64_t> factor_strides(const KernelSpec& spec, const KernelOperand& block) {
  std::vector<int64_t> strides(spec.factors.size(), 0);
  int64_t stride = 1;
  for (size_t d = block.dims.size(); d-- > 0;) {
    int64_t inside = stride;
    for (size_t i = block.dims[d].size(); i-- > 0;) {
      const auto f = static_cast<size_t>(block.dims[d][i]);
      strides[f] += inside;  // a factor that stands twice walks the diagonal
      inside *= spec.factors[f].size;
    }
    stride *= block.type.shape.dims[d];
  }
  return strides;
}

std::vector<int> factors_of(const KernelOperand& block) {
  std::vector<int> out;
  for (const std::vector<int>& dim : block.dims) {
    for (int f : dim) {
      if (std::find(out.begin(), out.end(), f) == out.end()) out.push_back(f);
    }
  }
  return out;
}

bool has_factor(const KernelOperand& block, int factor) {
  for (const std::vector<int>& dim : block.dims) {
    if (std::find(dim.begin(), dim.end(), factor) != dim.end()) return true;
  }
  return false;
}

int factor_index(const KernelSpec& spec, std::string_view name) {
  for (size_t f = 0; f < spec.factors.size(); ++f) {
    if (spec.factors[f].name == name) return static_cast<int>(f);
  }
  throw InternalError("a kernel asked for factor \"" + std::string(name) + "\", which its rule does not have");
}

std::vector<int> without(std::vector<int> factors, const std::vector<int>& others) {
  std::erase_if(factors, [&](int f) { return std::find(others.begin(), others.end(), f) != others.end(); });
  return factors;
}

std::vector<int> reduced_factors(const KernelSpec& spec, const KernelOperand& result) {
  std::vector<int> out;
  for (const KernelOperand& operand : spec.operands) {
    for (int f : factors_of(operand)) {
      if (!has_factor(result, f) && std::find(out.begin(), out.end(), f) == out.end()) out.push_back(f);
    }
  }
  return out;
}

Rows rows_of(const KernelOperand& block) {
  const auto& dims = block.type.shape.dims;
  MESHARD_CHECK(!dims.empty(), "a scalar has no rows");
  Rows rows;
  for (size_t d = 0; d + 1 < dims.size(); ++d) rows.count *= dims[d];
  rows.size = dims.back();
  return rows;
}

}  // namespace meshard
