#include "meshard/kernels/device/product.h"

#include <algorithm>

namespace meshard {
namespace {

using Group = std::vector<int>;  // factors, major first

int64_t size_of(const KernelSpec& spec, const Group& group) {
  int64_t size = 1;
  for (int f : group) size *= spec.factors[static_cast<size_t>(f)].size;
  return size;
}

// The group in the order in which the block has it.
Group ordered(const Group& group, const KernelOperand& block) {
  Group out;
  for (int f : factors_of(block)) {
    if (std::find(group.begin(), group.end(), f) != group.end()) out.push_back(f);
  }
  return out;
}

// The one stride at which the group's points lie; none if there is no such stride. `alone` is that of a single point.
std::optional<int64_t> stride_of(const KernelSpec& spec, const std::vector<int64_t>& strides, const Group& group,
                                 int64_t alone) {
  if (group.empty()) return alone;
  for (size_t i = 0; i + 1 < group.size(); ++i) {
    const auto outer = static_cast<size_t>(group[i]), inner = static_cast<size_t>(group[i + 1]);
    if (strides[outer] != strides[inner] * spec.factors[inner].size) return std::nullopt;
  }
  return strides[static_cast<size_t>(group.back())];
}

MatrixStack matrices(const KernelSpec& spec, const KernelOperand& block, const Group& stack, const Group& rows,
                     const Group& columns) {
  const int64_t r = size_of(spec, rows), c = size_of(spec, columns);
  const std::vector<int64_t> strides = factor_strides(spec, block);
  const auto row = stride_of(spec, strides, rows, c), column = stride_of(spec, strides, columns, 1);
  const auto depth = stride_of(spec, strides, stack, r * c);
  if (row && column && depth) {
    MatrixStack out{*depth, *row, *column, false, {}};
    if (rows.empty() && out.column != 1) out.row = 1;  // a single row with gaps is a column of a matrix on its side
    if ((out.column == 1 && out.row >= c) || (out.row == 1 && out.column >= r)) return out;
  }
  KernelOperand packed{{block.type.dtype, {}}, {}, {}, {}};
  Group all;
  for (const Group* group : {&stack, &rows, &columns}) {
    packed.type.shape.dims.push_back(size_of(spec, *group));
    packed.dims.push_back(*group);
    all.insert(all.end(), group->begin(), group->end());
  }
  return {r * c, c, 1, true, Nest<2>(spec, all, {&block, &packed})};
}

}  // namespace

std::optional<Product> find_product(const KernelSpec& spec) {
  if (spec.operands.size() != 2) return std::nullopt;
  const KernelOperand &a = spec.operands[0], &b = spec.operands[1], &y = spec.results[0];
  Group stack, m, n, k;
  for (size_t i = 0; i < spec.factors.size(); ++i) {
    const int f = static_cast<int>(i);
    if (spec.factors[i].size == 1) continue;
    const bool in_a = has_factor(a, f), in_b = has_factor(b, f), in_y = has_factor(y, f);
    if (!in_a && !in_b && !in_y) continue;
    if (in_a + in_b + in_y < 2) return std::nullopt;
    (in_a && in_b && in_y ? stack : in_a && in_y ? m : in_b && in_y ? n : k).push_back(f);
  }
  stack = ordered(stack, y);
  m = ordered(m, y);
  n = ordered(n, y);
  k = ordered(k, a);
  Product p{size_of(spec, stack), size_of(spec, m), size_of(spec, n), size_of(spec, k), {}, {}, {}};
  p.a = matrices(spec, a, stack, m, k);
  p.b = matrices(spec, b, stack, k, n);
  p.y = matrices(spec, y, stack, m, n);
  return p;
}

}  // namespace meshard
