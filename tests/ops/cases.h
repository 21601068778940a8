// The cases of an op's entry, parsed and ready to run.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "meshard/ir/op.h"
#include "meshard/ir/rule.h"
#include "tensor.h"

namespace meshard::test {

struct Case {
  const OpDef* def = nullptr;
  Attributes attributes;
  std::vector<Type> operands;
  std::vector<Type> expected;  // results as the entry states them; empty: not stated
  int64_t below = 4;
  std::string text;

  bool wide = false;  // of mixed types: results that may stay f32 do
  std::string types;  // in words

  std::vector<Type> explicit_results() const { return def->explicit_type ? expected : wide ? results() : std::vector<Type>{}; }
  BoundRule rule() const;
  std::vector<Type> results() const;
  int64_t elements() const;                         // of all operands and results
  bool small() const { return elements() <= 700; }  // the others only compare kernels
  double tolerance() const;                         // of the coarsest dtype
  // With every f32 in place of another float dtype; explicit dtypes of convert stay.
  Case with(Dtype dtype) const;
  // In f32, bf16, f16 and f64; and in bf16 and f16 with f32 where the op takes it beside (OpDef::wide_operands).
  std::vector<Case> in_all_types() const;
  // The kernel for such types: between copies where they differ.
  Prepared prepare(PrepareFn kernel, PrepareFn convert, const KernelSpec& spec) const;
};

std::vector<Case> cases(const OpDef& def);
// Operands for a case: of either sign, or positive where the op gives no finite results otherwise (log, sqrt).
std::vector<Tensor> draw_operands(const Case& c, Random& random);

// Ops with kernels; the collectives have none.
std::vector<const OpDef*> computing_ops();

}  // namespace meshard::test
