// Kernels on operands and results of different float types, made from kernels of one type: what is narrow (bf16, f16) is converted to
// f32 in the workspace, the kernel runs in f32, and its results are converted back. For ops that take wide operands beside
// narrow ones (OpDef::wide_operands) this is the specification; a tuned kernel may do the same without the copies.
#pragma once

#include "meshard/kernels/kernel.h"

namespace meshard {

// Whether some of the spec's floats are bf16 or f16, and whether others are f32.
struct FloatTypes {
  bool narrow = false, wide = false;
  bool mixed() const { return narrow && wide; }
};
FloatTypes float_types(const KernelSpec& spec);

// `kernel` in f32 between copies by `convert`, both of one kind of device. An empty `run` if `kernel` does not take the
// spec in f32.
Prepared in_f32(PrepareFn kernel, PrepareFn convert, const KernelSpec& spec);

// The kernel itself where the types are alike, else in_f32.
Prepared prepare_any(PrepareFn kernel, PrepareFn convert, const KernelSpec& spec);

}  // namespace meshard
