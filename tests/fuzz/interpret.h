// The slow twin of compiling and running a program on one device: ops in order, each value in memory of its own, plain
// kernels. It shares neither the memory plan nor the flattening of calls and loops with the executor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/runtime/simulate.h"

namespace meshard::fuzz {

// A whole value. Copies share the memory, and nobody writes it again once it is made.
struct Array {
  Type type;
  std::shared_ptr<Buffer> store;

  Array() = default;
  explicit Array(Type t);
  View view() const { return {store->data(), type.dtype, type.shape}; }
  std::vector<double> numbers() const;
  // Not-a-number counts as infinite. 0 for a value without elements.
  double largest() const;
};

std::vector<Array> interpret_op(const Op& op, const std::vector<Type>& results, const std::vector<Array>& operands);
// What the function returns, in order.
std::vector<Array> interpret(const Program& program, int function, const std::vector<Array>& arguments);
std::vector<Array> interpret_repeat(const Program& program, const Op& op, std::vector<Array> arguments);
// The whole program on the data of `options`, as simulate() gives it.
Results interpret(const Program& program, const CheckOptions& options);

}  // namespace meshard::fuzz
