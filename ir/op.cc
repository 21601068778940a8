#include "meshard/ir/op.h"

#include <algorithm>

#include "fmt/format.h"

namespace meshard {
namespace {

std::string_view type_name(const Attribute& value) {
  constexpr std::string_view kNames[] = {"true or false", "an integer", "a number", "a text"};
  return kNames[value.index()];
}

bool has_type(const Attribute& value, const Attribute& like) {
  return value.index() == like.index() ||
         (std::holds_alternative<double>(like) && std::holds_alternative<int64_t>(value));
}

// The rule as far as it is known without operands.
std::optional<Rule> written_rule(const OpDef& def, const Attributes& attributes, const Place& place) {
  const auto* text = attributes.find("rule");
  const bool known = text != nullptr && std::holds_alternative<std::string>(*text) &&
                     std::any_of(def.attributes.begin(), def.attributes.end(), [](const AttributeSpec& s) { return s.name == "rule"; });
  if (def.rule_for != nullptr) return known ? std::optional(Rule::parse(std::get<std::string>(*text), place)) : std::nullopt;
  return Rule::parse(rule_text(def, attributes, {}, place), place);
}

bool takes_rule(const OpDef& def) { return def.rule.empty() && def.rule_for == nullptr; }

// Whether the product of the sizes and the bytes of an element fits.
bool fits(const Type& type) {
  int64_t bytes = size_bytes(type.dtype);
  for (int64_t size : type.shape.dims) {
    if (size == 0) return true;
  }
  for (int64_t size : type.shape.dims) {
    if (__builtin_mul_overflow(bytes, size, &bytes) || bytes > int64_t{1} << 62) return false;
  }
  return true;
}

void check_dtypes(const OpDef& def, std::span<const Type> operands, const Place& place) {
  const auto fail = [&](const std::string& text) { throw UserError(place, fmt::format("{}: {}", def.name, text)); };
  int first = -1;  // float operand
  for (size_t i = 0; i < operands.size(); ++i) {
    const Type& type = operands[i];
    const std::optional<Dtype> wanted = i < def.operand_dtypes.size() ? def.operand_dtypes[i] : std::nullopt;
    if (wanted) {
      if (type.dtype != *wanted) fail(fmt::format("operand {} is {}, it must be {}", i, type.str(), name(*wanted)));
      continue;
    }
    if (def.wide_operand(i) && type.dtype == Dtype::f32 && first >= 0 && is_narrow(operands[static_cast<size_t>(first)].dtype)) continue;
    // Where a result has the very type of this operand, the op does not care which it is.
    const auto& kept = def.result_dtype;
    if (def.identity || std::find(kept.begin(), kept.end(), static_cast<int>(i)) != kept.end()) continue;
    if (!is_float(type.dtype) && !def.integers) {
      fail(fmt::format("operand {} is {}, it must be a float", i, type.str()));
    }
    if (first >= 0 && operands[static_cast<size_t>(first)].dtype != type.dtype) {
      fail(fmt::format("operand {} is {} but operand {} is {}; convert one of them", first,
                       operands[static_cast<size_t>(first)].str(), i, type.str()));
    }
    if (first < 0) first = static_cast<int>(i);
  }
}

Dtype result_dtype(const OpDef& def, size_t result, std::span<const Type> operands) {
  const int from = result < def.result_dtype.size() ? def.result_dtype[result] : -1;
  if (from == kInteger) return Dtype::i32;
  if (from >= 0) return operands[static_cast<size_t>(from)].dtype;
  for (size_t i = 0; i < operands.size(); ++i) {
    const bool own = i < def.operand_dtypes.size() && def.operand_dtypes[i];
    if (is_float(operands[i].dtype) || (def.integers && !own)) return operands[i].dtype;
  }
  MESHARD_CHECK(!operands.empty(),
                fmt::format("{} has no operand to take its type from and is not of explicit type", def.name));
  return operands[0].dtype;
}

}  // namespace

bool OpDef::wide_operand(size_t i) const {
  return std::find(wide_operands.begin(), wide_operands.end(), static_cast<int>(i)) != wide_operands.end();
}

bool OpDef::may_be_wide(size_t result) const {
  if (widens && result == 0) return true;
  return std::find(wide_results.begin(), wide_results.end(), static_cast<int>(result)) != wide_results.end();
}

void check_attributes(const OpDef& def, const Attributes& attributes, const Place& place) {
  const auto fail = [&](const std::string& text) { throw UserError(place, fmt::format("{}: {}", def.name, text)); };
  const auto check_type = [&](std::string_view name, const Attribute& value, const Attribute& like) {
    if (!has_type(value, like))
      fail(fmt::format("attribute {} is {}, it must be {}", name, type_name(value), type_name(like)));
  };
  std::optional<Rule> rule;
  for (const auto& [name, value] : attributes) {
    const auto spec = std::find_if(def.attributes.begin(), def.attributes.end(),
                                   [&](const AttributeSpec& s) { return s.name == name; });
    if (spec != def.attributes.end()) {
      check_type(name, value, spec->otherwise);
      continue;
    }
    if (name == "rule" && takes_rule(def)) {
      check_type(name, value, std::string());
      continue;
    }
    // Not of the list: it may be the size of a factor. A rule of another type is told where its own turn comes.
    const Attribute* text = attributes.find("rule");
    const bool readable = !takes_rule(def) || text == nullptr || std::holds_alternative<std::string>(*text);
    if (!rule && readable) rule = written_rule(def, attributes, place);
    if (rule && name != "..." && rule->names(name)) {
      check_type(name, value, int64_t{0});
      continue;
    }
    std::vector<std::string> known;
    for (const AttributeSpec& s : def.attributes) known.emplace_back(s.name);
    if (takes_rule(def)) known.emplace_back("rule");
    fail(fmt::format("no attribute \"{}\"{}", name, did_you_mean(name, known)));
  }
  for (const AttributeSpec& spec : def.attributes) {
    if (spec.required && attributes.find(spec.name) == nullptr) {
      fail(fmt::format("attribute {} is missing; it is {}", spec.name, type_name(spec.otherwise)));
    }
  }
  if (takes_rule(def)) (void)rule_text(def, attributes, {}, place);
}

std::vector<Type> infer_types(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                              std::span<const Type> results, const Place& place, BoundRule* rule) {
  if (def.collective && operands.size() > 1) {
    // One message of several values: each keeps its type.
    std::vector<Type> all;
    for (const Type& operand : operands) {
      if (operand.dtype != operands[0].dtype) {
        throw UserError(place, fmt::format("{}: one message has one dtype, but operand 0 is {} and operand {} is {}",
                                           def.name, operands[0].str(), all.size(), operand.str()));
      }
      all.push_back(infer_types(def, attributes, {&operand, 1}, {}, place, rule)[0]);
    }
    return all;
  }
  if (def.explicit_type && static_cast<int>(results.size()) != def.results) {
    throw UserError(place, fmt::format("{}: the type of the result must be given", def.name));
  }
  BoundRule bound = bind_rule(def, attributes, operands, def.explicit_type ? results : std::span<const Type>(), place);
  check_dtypes(def, operands, place);
  std::vector<Type> types;
  if (def.explicit_type) {
    types.assign(results.begin(), results.end());
  } else {
    for (Shape& shape : result_shapes(bound))
      types.push_back({result_dtype(def, types.size(), operands), std::move(shape)});
    for (size_t r = 0; r < types.size() && types.size() == results.size(); ++r) {
      if (def.may_be_wide(r) && is_narrow(types[r].dtype) && results[r].dtype == Dtype::f32) types[r].dtype = Dtype::f32;
    }
  }
  for (const Type& type : types) {
    if (!fits(type))
      throw UserError(place, fmt::format("{}: a result {} has more than 2^62 bytes", def.name, type.str()));
  }
  if (def.check != nullptr) {
    const std::string reason = [&] {
      try {
        return def.check(operands, types, attributes);
      } catch (const UserError& error) {
        throw UserError(place, error.diagnostic().text, error.diagnostic().notes);
      }
    }();
    if (!reason.empty()) throw UserError(place, fmt::format("{}{}{}", def.name, reason[0] == '"' ? " " : ": ", reason));
  }
  if (rule != nullptr) *rule = std::move(bound);
  return types;
}

OpTable::OpTable(std::vector<const OpDef*> ops) : ops_(std::move(ops)) {
  std::sort(ops_.begin(), ops_.end(), [](const OpDef* a, const OpDef* b) { return a->name < b->name; });
  for (size_t i = 1; i < ops_.size(); ++i) {
    MESHARD_CHECK(ops_[i - 1]->name != ops_[i]->name, fmt::format("two ops are called {}", ops_[i]->name));
  }
}

const OpDef* OpTable::find(std::string_view name) const {
  const auto at = std::lower_bound(ops_.begin(), ops_.end(), name,
                                   [](const OpDef* op, std::string_view n) { return op->name < n; });
  return at != ops_.end() && (*at)->name == name ? *at : nullptr;
}

const OpDef& OpTable::get(std::string_view name) const {
  const OpDef* def = find(name);
  MESHARD_CHECK(def != nullptr, fmt::format("the table has no op {}", name));
  return *def;
}

const OpDef& OpTable::cast() const {
  const auto at = std::find_if(ops_.begin(), ops_.end(), [](const OpDef* op) { return op->cast; });
  MESHARD_CHECK(at != ops_.end(), "the table has no op that changes the dtype");
  return **at;
}

const OpDef& OpTable::collective(Collective kind) const {
  const auto at = std::find_if(ops_.begin(), ops_.end(), [&](const OpDef* op) { return op->identity && op->collective == kind; });
  MESHARD_CHECK(at != ops_.end(), fmt::format("the table has no op for the collective {}", meshard::name(kind)));
  return **at;
}

const OpDef& OpTable::role(Role role) const {
  MESHARD_CHECK(role != Role::none, "no role");
  const auto at = std::find_if(ops_.begin(), ops_.end(), [&](const OpDef* op) { return op->role == role; });
  MESHARD_CHECK(at != ops_.end(), fmt::format("the table has no op for the role {}", meshard::name(role)));
  return **at;
}

std::vector<std::string> OpTable::names() const {
  std::vector<std::string> names;
  for (const OpDef* op : ops_) names.emplace_back(op->name);
  return names;
}

}  // namespace meshard
