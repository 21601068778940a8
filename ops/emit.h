// How the functions of functions.h append an op: the place is the caller's line, unless a vjp or a pass is at work.
#pragma once

#include <string_view>
#include <vector>

#include "meshard/ops/functions.h"

namespace meshard {

// All results of the op. A UserError names an operand that is none.
std::vector<Value> emit_all(std::string_view op, std::vector<Value> operands, const Where& where,
                            Attributes attributes = {}, std::vector<Type> results = {});
// The first.
Value emit_one(std::string_view op, std::vector<Value> operands, const Where& where, Attributes attributes = {},
               std::vector<Type> results = {});

}  // namespace meshard
