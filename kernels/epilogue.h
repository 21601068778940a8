// Products with a bias and an activation by three kernels: for devices and shapes of which no kernel does all in one.
#pragma once

#include "meshard/kernels/kernel.h"

namespace meshard {

// The spec's parts: operands a, b and a bias; results the activation, if there is one, and the sum, unless only the
// activation is asked for. The parts point into `spec`, which stays where it is until they are prepared.
struct EpilogueParts {
  explicit EpilogueParts(const KernelSpec& spec, bool activated);

  KernelSpec product, bias, activation;  // a b -> sum; sum, bias -> sum; sum -> result 0
  size_t sum;                            // which result it is
};

// By these kernels one after the other, in the results' memory; `activation` may be null. An empty `run` where one of them has none.
Prepared run_epilogue(const KernelSpec& spec, PrepareFn product, PrepareFn add, PrepareFn activation);

}  // namespace meshard
