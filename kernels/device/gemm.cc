#include "meshard/kernels/device/gemm.h"

#include <utility>

namespace meshard {
namespace {

// A row-major matrix of rows x columns lies in memory as its transpose does column by column, where its columns are next
// to one another; else as itself.
ColumnMajor::Matrix lying(const Gemm::Strides& s, int64_t rows, int64_t columns) {
  if (s.column == 1) return {columns, rows, s.row, s.stack, false};
  return {rows, columns, s.column, s.stack, true};
}

}  // namespace

ColumnMajor column_major(Gemm g) {
  // A library writes results of which columns lie one behind the other: y^T = b^T a^T, or where the rows of y do,
  // (y^T)^T = a b.
  const bool swapped = g.y.column != 1;
  if (swapped) {
    std::swap(g.a, g.b);
    std::swap(g.m, g.n);
    for (Gemm::Strides* s : {&g.a, &g.b, &g.y}) std::swap(s->row, s->column);
  }
  return {lying(g.b, g.k, g.n), lying(g.a, g.m, g.k), {g.n, g.m, g.y.row, g.y.stack, false}, swapped};
}

}  // namespace meshard
