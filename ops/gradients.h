// What the vjps of several op families share.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

// The cotangent of an operand of shape `shape` that was repeated to the shape of `cotangent` (see "..." in ir/rule.h):
// summed over what was repeated.
Value unbroadcast(Value cotangent, const Shape& shape);

// The cotangent of the operand, of type `type`, of a reduction by `rule`: `cotangent`, of the reduced shape, times
// `factor` and repeated. A constant stays a constant: the cotangent of a mean over a loss is one fill.
Value repeat_over(Value cotangent, const BoundRule& rule, const Type& type, double factor);

// The name of a factor as bound_text writes it: "...0" is "n0", or "n0_" where the rule has that name already.
std::string factor_name(const BoundRule& rule, int factor);

// A rule's text from bound terms: "..." spelled out.
std::string bound_text(const BoundRule& rule, std::span<const std::vector<BoundRule::Dim>> operands,
                       std::span<const std::vector<BoundRule::Dim>> results);

// For the rules that an op takes as an attribute: throws if a name of the operands stands in no result, or the other
// way round.
void check_none_lost(std::string_view op, std::string_view rule);
void check_none_made(std::string_view op, std::string_view rule);

}  // namespace meshard
