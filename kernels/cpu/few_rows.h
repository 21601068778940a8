// Products of a few rows and a matrix, of one instruction set: limited by reading the matrix, which is read once and in order.
#pragma once

#include <cstdint>

namespace meshard::cpu {

constexpr int64_t kFewRows = 4;

// y [rows, n] from x [rows, k], elements of a row next to one another.
struct FewRows {
  int64_t rows = 0, k = 0, n = 0;
  const float* x = nullptr;
  int64_t ld_x = 0;
  const float* w = nullptr;
  int64_t ld_w = 0;
  float* y = nullptr;
  int64_t ld_y = 0;
};

struct FewRowsFns {
  void (*across)(const FewRows& p);  // w [k, n]
  void (*along)(const FewRows& p);   // w [n, k]
};

// Of the instruction set that this processor has.
FewRowsFns best_few_rows_functions();

}  // namespace meshard::cpu
