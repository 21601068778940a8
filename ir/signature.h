// Signature: what an op's rule says for operands of given types, bound once. Programs repeat the same few kinds of ops
// thousands of times, and every pass asks: so a program keeps them, and the programs that passes make of it share them.
//
//   const BoundRule& rule = bound_rule(program, function, op);
//   const Type& made = signature(program, function, op).results[0];
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

struct Signature {
  BoundRule rule;
  std::vector<Type> results;
};

// Only grows; may be asked by several threads. What it gives stays where it is for as long as this lives.
class Signatures {
 public:
  Signatures();
  ~Signatures();
  Signatures(const Signatures&) = delete;

  // Of the op with these attributes. `results` are the types as written: they count where the op has explicit_type and
  // are otherwise ignored. Errors at `place`, those of check_attributes and infer_types (ir/op.h), each time it is asked.
  const Signature& get(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                       std::span<const Type> results, const Place& place);
  // Of an op of kind Op::apply; errors at its source.
  const Signature& get(const Function& function, const Op& op);

 private:
  struct Table;
  std::unique_ptr<Table> table_;
};

// As Signatures::get of the program's. A result whose type is not explicit may be of another type than the op makes: only
// verify compares them.
const Signature& signature(const Program& program, const Function& function, const Op& op);
const BoundRule& bound_rule(const Program& program, const Function& function, const Op& op);

}  // namespace meshard
