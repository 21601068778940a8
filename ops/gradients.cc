#include "meshard/ops/gradients.h"

#include <fmt/format.h>

#include <algorithm>

#include "meshard/base/error.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

std::string join_terms(const std::vector<std::string>& terms) { return fmt::format("{}", fmt::join(terms, ", ")); }

std::string term_text(const BoundRule& rule, const std::vector<BoundRule::Dim>& dims) {
  std::vector<std::string> words;
  for (const BoundRule::Dim& dim : dims) {
    std::vector<std::string> names;
    for (int f : dim) names.push_back(factor_name(rule, f));
    if (names.empty())
      words.emplace_back("1");
    else if (names.size() == 1)
      words.push_back(names[0]);
    else
      words.push_back(fmt::format("({})", fmt::join(names, " ")));
  }
  return fmt::format("{}", fmt::join(words, " "));
}

bool names_in(const std::vector<Rule::Term>& terms, const std::string& name) {
  for (const Rule::Term& term : terms)
    for (const auto& dim : term.dims)
      if (std::find(dim.begin(), dim.end(), name) != dim.end()) return true;
  return false;
}

// The first name of `terms` that `others` lacks; "" if there is none.
std::string missing_name(const std::vector<Rule::Term>& terms, const std::vector<Rule::Term>& others) {
  for (const Rule::Term& term : terms)
    for (const auto& dim : term.dims)
      for (const std::string& name : dim)
        if (!names_in(others, name)) return name;
  return "";
}

// The op that makes `value`, if it is a fill.
const Op* fill_behind(const Value& value) {
  const Function& f = value.builder().function();
  const int op = f.value(value.id()).op;
  if (op < 0) return nullptr;
  const Op& maker = f.ops[static_cast<size_t>(op)];
  return maker.def == &fill_op() ? &maker : nullptr;
}

}  // namespace

std::string factor_name(const BoundRule& rule, int factor) {
  std::string name = rule.factors[static_cast<size_t>(factor)].name;
  if (!name.starts_with("...")) return name;
  name = "n" + name.substr(3);
  const auto taken = [&](const Factor& f) { return f.name == name; };
  while (std::any_of(rule.factors.begin(), rule.factors.end(), taken)) name += "_";
  return name;
}

Value unbroadcast(Value cotangent, const Shape& shape) {
  const Shape& from = cotangent.shape();
  if (from == shape) return cotangent;
  const int lead = from.rank() - shape.rank();
  MESHARD_CHECK(lead >= 0, "a cotangent has fewer dimensions than its operand");
  std::vector<std::string> operand, result;
  for (int d = 0; d < from.rank(); ++d) {
    operand.push_back(fmt::format("n{}", d));
    if (d < lead) continue;
    result.push_back(shape[d - lead] == from[d] ? operand.back() : "1");
  }
  return sum(cotangent, fmt::format("{} -> {}", fmt::join(operand, " "), fmt::join(result, " ")));
}

Value repeat_over(Value cotangent, const BoundRule& rule, const Type& type, double factor) {
  Builder& builder = cotangent.builder();
  if (const Op* constant = fill_behind(cotangent))
    return fill(builder, constant->attributes.number("value") * factor, type);
  if (cotangent.shape().rank() == 0) return mul(cotangent, fill(builder, factor, type));
  Attributes sizes;
  for (int f = 0; f < static_cast<int>(rule.factors.size()); ++f)
    if (rule.reduced(f, 0)) sizes.set(factor_name(rule, f), rule.factors[static_cast<size_t>(f)].size);
  if (factor != 1) cotangent = scale(cotangent, factor);  // while it is small
  if (sizes.empty())
    return rule.results[0] == rule.operands[0] ? cotangent
                                               : transpose(cotangent, bound_text(rule, rule.results, rule.operands));
  return broadcast(cotangent, bound_text(rule, rule.results, rule.operands), sizes);
}

std::string bound_text(const BoundRule& rule, std::span<const std::vector<BoundRule::Dim>> operands,
                       std::span<const std::vector<BoundRule::Dim>> results) {
  std::vector<std::string> left, right;
  for (const auto& dims : operands) left.push_back(term_text(rule, dims));
  for (const auto& dims : results) right.push_back(term_text(rule, dims));
  return join_terms(left) + " -> " + join_terms(right);
}

void check_none_lost(std::string_view op, std::string_view text) {
  const Rule rule = Rule::parse(text);
  const std::string lost = missing_name(rule.operands, rule.results);
  if (!lost.empty())
    throw UserError(
        fmt::format("{} \"{}\": {} of the operand is not in the result; sum reduces a dimension", op, text, lost));
}

void check_none_made(std::string_view op, std::string_view text) {
  const Rule rule = Rule::parse(text);
  const std::string made = missing_name(rule.results, rule.operands);
  if (!made.empty())
    throw UserError(
        fmt::format("{} \"{}\": {} of the result is in no operand; broadcast makes a dimension", op, text, made));
}

}  // namespace meshard
