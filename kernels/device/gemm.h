// A stack of matrix products y = a b for a library, one for each device: cuda/cublaslt.cc, emulated/families.cc.
#pragma once

#include <functional>

#include "meshard/base/shape.h"

namespace meshard {

// a [stack, m, k], b [stack, k, n], y [stack, m, n]; elements between neighbours. Of row and column one is 1.
struct Gemm {
  // What becomes of a product before it is written: a bias of n elements is added to each row, and its gelu taken.
  enum class Epilogue : uint8_t { none, bias, gelu };
  struct Strides {
    int64_t stack, row, column;
  };
  Dtype dtype, result;  // of a and b; of y: the same, or f32 where they are narrow
  bool tf32;            // f32 operands may be rounded to 10 binary digits
  int64_t stack, m, n, k;
  Strides a, b, y;
  Epilogue epilogue = Epilogue::none;
  bool keeps_sum = false;  // of gelu: what it is taken of is written too, laid out as y
};

// What one run is given.
struct GemmCall {
  const void *a, *b;
  void *y, *workspace, *stream;
  const void* bias = nullptr;
  void* sum = nullptr;
};

// The same as a library takes it, whose matrices are column-major: result = op(first) op(second).
struct ColumnMajor {
  struct Matrix {
    int64_t rows, columns, leading, stack;  // as it lies in memory: element (i, j) at i + j leading
    bool transposed;
  };
  Matrix first, second, result;
  bool swapped;  // first is a and second b; else first is b and second a, and the result is y's transpose
};
ColumnMajor column_major(Gemm gemm);

struct PreparedGemm {
  int64_t workspace_bytes = 0;
  // Empty: the library does not take it.
  std::function<void(const GemmCall& call)> run;
};

// Whether products of f32 that are prepared now may round their operands: see allow_tf32.
bool tf32_allowed();

namespace cuda {
PreparedGemm prepare_gemm(const Gemm& gemm);
}
namespace emulated {
PreparedGemm prepare_gemm(const Gemm& gemm);
}

}  // namespace meshard
