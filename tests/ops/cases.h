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

  std::vector<Type> explicit_results() const { return def->explicit_type ? expected : std::vector<Type>{}; }
  BoundRule rule() const;
  std::vector<Type> results() const;
  int64_t elements() const;                         // of all operands and results
  bool small() const { return elements() <= 700; }  // the others only compare kernels
  double tolerance() const;                         // of the coarsest dtype
  // With every f32 in place of another float dtype; explicit dtypes of convert stay.
  Case with(Dtype dtype) const;
};

std::vector<Case> cases(const OpDef& def);
// Operands for a case: of either sign, or positive where the op gives no finite results otherwise (log, sqrt).
std::vector<Tensor> draw_operands(const Case& c, Random& random);

// Ops with kernels; the collectives have none.
std::vector<const OpDef*> computing_ops();

}  // namespace meshard::test
