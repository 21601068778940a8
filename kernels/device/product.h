// Products of two operands as stacks of matrix products y = a b, for whoever multiplies matrices (cuBLASLt, or a plain
// kernel): factors fall into stack (in both operands and the result), m (first operand and result), n (second and
// result) and k (both operands, summed).
//
//   std::optional<Product> p = find_product(spec);
//   if (p && !p->a.packed) ... rows of a are p->a.row elements apart
#pragma once

#include <optional>
#include <vector>

#include "meshard/kernels/reference/nest.h"

namespace meshard {

// A block as a stack of matrices: elements between neighbours of the stack, the rows and the columns; of rows and
// columns one is 1, and the other spans at least what it steps over.
struct MatrixStack {
  int64_t stack = 0, row = 0, column = 1;
  // Where the block does not lie so, it is copied (a result: back) as `points` say, from block to packed place.
  bool packed = false;
  std::optional<Nest<2>> points;
};

struct Product {
  int64_t stack = 1, m = 1, n = 1, k = 1;
  MatrixStack a, b, y;
};

// none: not two operands, or a factor is summed in one of them alone.
std::optional<Product> find_product(const KernelSpec& spec);

}  // namespace meshard
