// How the lowerings of op families write ops: each named after the lowered op's first result, so that `nll` becomes
// nll.max, nll.sum and nll.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

class LoweredOps {
 public:
  explicit LoweredOps(Lowering& lowering) : lowering_(&lowering) {}

  // `part`: ".max"; "" for the first result itself.
  Value operator()(const OpDef& op, std::vector<Value> operands, std::string_view part,
                   Attributes attributes = {}) const {
    return lowering_->builder().apply(op, std::move(operands), std::move(attributes), {},
                                      lowering_->name() + std::string(part))[0];
  }
  // A reduction or reshape by a rule of its own.
  Value by_rule(const OpDef& op, Value operand, std::string_view rule, std::string_view part) const {
    return (*this)(op, {operand}, part, {{"rule", std::string(rule)}});
  }

 private:
  Lowering* lowering_;
};

}  // namespace meshard
