// Value and Builder: ops appended to one function.
#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "fmt/format.h"
#include "meshard/ir/runs.h"
#include "meshard/ir/signature.h"
#include "meshard/ir/trace.h"

namespace meshard {
namespace {

// What a further result is called behind the first one's name: "rstd", or its number.
std::string result_suffix(const OpDef& def, size_t result) {
  if (result < def.result_names.size() && !def.result_names[result].empty())
    return std::string(def.result_names[result]);
  return std::to_string(result);
}

bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }

}  // namespace

Place place_of(const std::source_location& where) {
  const std::string_view file = where.file_name();
  return {std::string(file.substr(file.find_last_of('/') + 1)), static_cast<int>(where.line()), 0};
}

void check_name(std::string_view name, const Place& place) {
  bool good = !name.empty() && name.front() != '.' && name.back() != '.' && name.find("..") == std::string_view::npos;
  for (char c : name) good = good && (is_word(c) || c == '.');
  if (good) return;
  throw UserError(
      place, fmt::format("\"{}\" is no name; a name is words of letters, digits and _ with dots between them", name));
}

Type Value::type() const { return builder_->function().value(id_).type; }
std::string Value::name() const { return builder_->function().value(id_).name; }

Value Value::named(std::string_view name) const {
  Function& f = builder_->function();
  ValueInfo& info = f.value(id_);
  check_name(name, info.source);
  if (info.name == name) return *this;
  if (info.op < 0)
    throw UserError(info.source,
                    fmt::format("%{} is a parameter of func {} and can't be renamed to %{}", info.name, f.name, name));
  const Op& op = f.ops[static_cast<size_t>(info.op)];
  if (op.kind != Op::apply) {
    const std::string& callee = builder_->program().functions[static_cast<size_t>(op.callee)].name;
    throw UserError(info.source,
                    fmt::format("%{} is a result of a call and can't be renamed to %{}; name it inside func {}",
                                info.name, name, callee));
  }
  builder_->rename(id_, builder_->fresh_name(name));
  if (op.results[0] != id_) return *this;
  for (size_t r = 1; r < op.results.size(); ++r) {
    builder_->rename(op.results[r], builder_->fresh_name(join_name(info.name, result_suffix(*op.def, r))));
  }
  return *this;
}

ValueId Builder::add_value(std::string name, Type type, int op, const Place& source) {
  ValueInfo info;
  info.name = std::move(name);
  info.type = std::move(type);
  info.op = op;
  info.source = source;
  function().values.push_back(std::move(info));
  return static_cast<ValueId>(function().values.size() - 1);
}

void Builder::check_owned(const Value& value, std::string_view what, const Place& place) const {
  if (!value)
    throw UserError(place, fmt::format("{} is none; a Value comes from an input, a parameter or an op", what));
  if (&value.builder().program() == program_ && value.builder().function_index() == function_) return;
  throw UserError(place, fmt::format("{} is %{} of func {}, which func {} can't read; pass it as an argument", what,
                                     value.name(), value.builder().function().name, function().name));
}

Value Builder::param(std::string_view name, Type type, ParamInfo info, int64_t below) {
  Function& f = function();
  if (find(name) != ValueId::none)
    throw UserError(source_, fmt::format("func {} has a value %{} already", f.name, name));
  const ValueId id = add_value(std::string(name), std::move(type), -1, source_);
  f.value(id).below = below;
  f.params.push_back(id);
  f.param_info.push_back(info);
  return {this, id};
}

std::vector<Value> Builder::apply(const OpDef& def, std::vector<Value> operands, Attributes attributes,
                                  std::vector<Type> results, std::string_view name, Place source) {
  const Place& place = source.known() ? source : source_;
  Op op;
  op.def = &def;
  op.source = place;
  std::vector<Type> operand_types;
  for (size_t i = 0; i < operands.size(); ++i) {
    check_owned(operands[i], fmt::format("{}: operand {}", def.name, i), place);
    op.operands.push_back(operands[i].id());
    operand_types.push_back(operands[i].type());
  }
  const std::vector<Type>& types =
      program_->signatures->get(def, attributes, operand_types, results, place).results;
  if (!results.empty() && results != types) {
    const auto at = static_cast<size_t>(
        std::mismatch(types.begin(), types.end(), results.begin(), results.end()).first - types.begin());
    const std::string asked = at < results.size() ? results[at].str() : "none";
    throw UserError(place, fmt::format("{} gives {}, not {}", def.name,
                                       at < types.size() ? types[at].str() : "no more results", asked));
  }
  op.attributes = std::move(attributes);
  const int number = static_cast<int>(function().ops.size());
  std::vector<Value> out;
  std::string first;
  for (size_t r = 0; r < types.size(); ++r) {
    std::string wanted = r == 0 ? std::string(name.empty() ? def.name : name) : join_name(first, result_suffix(def, r));
    std::string fresh = fresh_name(wanted);
    if (r == 0) first = fresh;
    op.results.push_back(add_value(std::move(fresh), types[r], number, place));
    if (def.identity) function().value(op.results[r]).below = function().value(op.operands[0]).below;
    out.emplace_back(this, op.results[r]);
  }
  function().ops.push_back(std::move(op));
  return out;
}

std::vector<Value> Builder::call(int callee, std::string_view prefix, std::vector<Value> arguments, Place source) {
  Op op;
  op.kind = Op::call;
  op.callee = callee;
  op.prefix = prefix;
  op.source = source.known() ? std::move(source) : source_;
  return emit_call(std::move(op), arguments);
}

std::vector<Value> Builder::repeat(int callee, std::string_view prefix, int64_t count, std::vector<Value> arguments,
                                   int index_operand, Place source) {
  Op op;
  op.kind = Op::repeat;
  op.callee = callee;
  op.prefix = prefix;
  op.count = count;
  op.index_operand = index_operand;
  op.source = source.known() ? std::move(source) : source_;
  if (count < 1) throw UserError(op.source, fmt::format("repeat {}: a call is repeated once or more", count));
  return emit_call(std::move(op), arguments);
}

std::vector<Value> Builder::emit_call(Op op, const std::vector<Value>& arguments) {
  const Function& callee = program_->functions[static_cast<size_t>(op.callee)];
  const std::string what = fmt::format("call {}{}{}", callee.name, op.prefix.empty() ? "" : " as ", op.prefix);
  const auto fail = [&](const std::string& text) { throw UserError(op.source, fmt::format("{}: {}", what, text)); };
  if (!op.prefix.empty()) check_name(op.prefix, op.source);
  if (op.callee == function_) fail("a function can't call itself");
  if (arguments.size() != callee.params.size())
    fail(fmt::format("{} arguments, the function takes {}", arguments.size(), callee.params.size()));
  for (size_t a = 0; a < arguments.size(); ++a) {
    const ValueInfo& param = callee.value(callee.params[a]);
    if (static_cast<int>(a) == op.index_operand) {
      if (param.type != Type{Dtype::i32, {}})
        fail(fmt::format("%{} is {}; the number of the round is i32[]", param.name, param.type.str()));
      op.operands.push_back(ValueId::none);
      continue;
    }
    check_owned(arguments[a], fmt::format("{}: argument {}", what, param.name), op.source);
    if (arguments[a].type() != param.type) {
      fail(fmt::format("argument {} is %{} {}, the function takes {}", param.name, arguments[a].name(),
                       arguments[a].type().str(), param.type.str()));
    }
    op.operands.push_back(arguments[a].id());
  }
  const int number = static_cast<int>(function().ops.size());
  std::vector<Value> out;
  for (const Return& r : callee.returns) {
    const ValueInfo& made = callee.value(r.value);
    std::string name = join_name(op.prefix, base_name(made.name));
    if (find(name) != ValueId::none) {
      fail(fmt::format("func {} has a value %{} already; a call needs a prefix of its own", function().name, name));
    }
    const ValueId id = add_value(std::move(name), made.type, number, op.source);
    function().value(id).layout = made.layout;
    function().value(id).below = made.below;
    op.results.push_back(id);
    out.emplace_back(this, id);
  }
  function().ops.push_back(std::move(op));
  return out;
}

void Builder::result(Value value, Value in_place) {
  Function& f = function();
  check_owned(value, "a result", source_);
  Return r{value.id(), ValueId::none};
  if (in_place) {
    check_owned(in_place, "the memory of a result", source_);
    const ValueInfo &made = f.value(value.id()), &param = f.value(in_place.id());
    if (f.param_index(in_place.id()) < 0) {
      throw UserError(made.source,
                      fmt::format("%{} can't be returned in place of %{}, which is no parameter of func {}", made.name,
                                  param.name, f.name));
    }
    if (made.type != param.type) {
      throw UserError(made.source, fmt::format("%{} {} can't be returned in place of %{} {}", made.name,
                                               made.type.str(), param.name, param.type.str()));
    }
    r.in_place = in_place.id();
  }
  f.returns.push_back(r);
}

// Values are only appended, but for rename(): what stands behind `known` is new.
struct Builder::Names {
  size_t known = 0;
  absl::flat_hash_map<std::string, ValueId> ids;   // only looked up
  absl::flat_hash_map<std::string, int64_t> free;  // of X: no X.k with a lower k is free; only looked up

  void learn(const Function& f) {
    if (known > f.values.size()) *this = Names();
    for (; known < f.values.size(); ++known) ids.try_emplace(f.values[known].name, static_cast<ValueId>(known));
  }
};

Builder::Builder(Program& program, int function)
    : program_(&program), function_(function), names_(std::make_shared<Names>()) {}

void Builder::names_changed() { *names_ = Names(); }

ValueId Builder::find(std::string_view name) const {
  names_->learn(function());
  const auto found = names_->ids.find(absl::string_view(name.data(), name.size()));
  return found == names_->ids.end() ? ValueId::none : found->second;
}

void Builder::rename(ValueId value, std::string name) {
  names_->learn(function());
  std::string& old = function().value(value).name;
  if (const auto found = names_->ids.find(old); found != names_->ids.end() && found->second == value) {
    names_->ids.erase(found);
  }
  const size_t point = old.rfind('.');
  if (point != std::string::npos) {
    const auto free = names_->free.find(absl::string_view(old.data(), point));
    const std::optional<int64_t> number = part_number(std::string_view(old).substr(point + 1));
    if (free != names_->free.end() && number) free->second = std::min(free->second, std::max<int64_t>(1, *number));
  }
  names_->ids.try_emplace(name, value);
  old = std::move(name);
}

std::string Builder::fresh_name(std::string_view wanted) const {
  if (find(wanted) == ValueId::none) return std::string(wanted);
  int64_t& free = names_->free.try_emplace(std::string(wanted), 1).first->second;
  for (;; ++free) {
    std::string name = fmt::format("{}.{}", wanted, free);
    if (!names_->ids.contains(name)) return name;
  }
}

namespace {

std::vector<Value> apply_named(std::string_view op, std::vector<Value> operands, Attributes attributes,
                               std::vector<Type> results, const std::source_location& where) {
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i])
      throw UserError(place_of(where),
                      fmt::format("{}: operand {} is none; a Value comes from an input, a parameter or an op", op, i));
  }
  if (operands.empty())
    throw UserError(place_of(where),
                    fmt::format("{}: apply needs an operand to know the function; use Builder::apply", op));
  Builder& builder = operands[0].builder();
  const OpTable& table = *builder.program().table;
  const OpDef* def = table.find(op);
  const Place place = builder.source().known() ? builder.source() : place_of(where);
  if (def == nullptr) throw UserError(place, fmt::format("no op \"{}\"{}", op, did_you_mean(op, table.names())));
  return builder.apply(*def, std::move(operands), std::move(attributes), std::move(results), "", place);
}

}  // namespace

Value apply(std::string_view op, std::vector<Value> operands, Attributes attributes, std::vector<Type> results,
            std::source_location where) {
  return apply_named(op, std::move(operands), std::move(attributes), std::move(results), where)[0];
}

std::vector<Value> apply_all(std::string_view op, std::vector<Value> operands, Attributes attributes,
                             std::vector<Type> results, std::source_location where) {
  return apply_named(op, std::move(operands), std::move(attributes), std::move(results), where);
}

}  // namespace meshard
