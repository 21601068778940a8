#include "meshard/kernels/device/gemm.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "meshard/kernels/device_kernels.h"

namespace meshard {
namespace {

// A row-major matrix of rows x columns lies in memory as its transpose does column by column, where its columns are next
// to one another; else as itself.
ColumnMajor::Matrix lying(const Gemm::Strides& s, int64_t rows, int64_t columns) {
  ColumnMajor::Matrix m{rows, columns, s.column, s.stack, true};
  if (s.column == 1) m = {columns, rows, s.row, s.stack, false};
  // Nothing steps over a single column, but a library checks how far that would be.
  if (m.columns <= 1) m.leading = std::max(m.leading, m.rows);
  return m;
}

}  // namespace

namespace {
std::atomic<bool> tf32 = false;
}

void allow_tf32(bool allowed) { tf32 = allowed; }
bool tf32_allowed() { return tf32; }

ColumnMajor column_major(Gemm g) {
  // A library writes results of which columns lie one behind the other: y^T = b^T a^T, or where the rows of y do,
  // (y^T)^T = a b.
  const bool swapped = g.y.column != 1;
  if (swapped) {
    std::swap(g.a, g.b);
    std::swap(g.m, g.n);
    for (Gemm::Strides* s : {&g.a, &g.b, &g.y}) std::swap(s->row, s->column);
  }
  ColumnMajor::Matrix result = lying(g.y, g.m, g.n);
  result.transposed = false;
  return {lying(g.b, g.k, g.n), lying(g.a, g.m, g.k), result, swapped};
}

}  // namespace meshard
