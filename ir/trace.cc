// Scope and Trace: parameters where the model declares them, functions traced once and called often.
#include "meshard/ir/trace.h"

#include <algorithm>

#include "fmt/format.h"
#include "meshard/ir/verify.h"

namespace meshard {

Builder& Scope::builder() const { return trace_->builder(function_); }

Value Scope::input(std::string_view name, Dtype dtype, Shape shape, int64_t below, Where where) const {
  const Place place = place_of(where);
  check_name(name, place);
  Function& f = builder().function();
  if (function_ != 0) {
    throw UserError(
        place, fmt::format("input {} is declared inside func {}; declare it in main and pass it as an argument", name,
                           f.name));
  }
  if (builder().find(name) != ValueId::none)
    throw UserError(place, fmt::format("func {} has a value %{} already", f.name, name));
  const Value value = builder().param(name, {dtype, std::move(shape)}, {}, below);
  f.value(value.id()).source = place;
  return value;
}

Value Scope::param(std::string_view name, Shape shape, Init init, Where where) const {
  const Place place = place_of(where);
  check_name(name, place);
  const Value raw = declare(name, {trace_->dtype(), std::move(shape)}, init, place);
  const OpDef& use = builder().program().table->role(Role::use);
  return builder().apply(use, {raw}, {}, {}, join_name(name, "use"), place)[0];
}

Value Scope::declare(std::string_view name, const Type& type, Init init, const Place& place) const {
  Builder& here = builder();
  Function& f = here.function();
  const ValueId id = here.find(name);
  if (id == ValueId::none) {
    ParamInfo info;
    info.kind = ParamInfo::param;
    info.init = init;
    const Value value = here.param(name, type, info);
    f.value(value.id()).source = place;
    return value;
  }
  const ValueInfo& before = f.value(id);
  const std::string first = before.source.known() ? fmt::format(" at {}", before.source.str()) : "";
  const int number = f.param_index(id);
  if (number < 0 || f.param_info[static_cast<size_t>(number)].kind != ParamInfo::param) {
    throw UserError(place, fmt::format("%{} is another value of func {}{}; a parameter needs a name of its own", name,
                                       f.name, first));
  }
  if (before.type != type) {
    throw UserError(place, fmt::format("parameter {} is {}{}, here {}; tied weights have one shape", name,
                                       before.type.str(), first, type.str()));
  }
  return {&here, id};
}

void Scope::update(std::string_view name, Value value, Where where) const {
  const Place place = place_of(where);
  Builder& here = builder();
  const Function& f = here.function();
  here.check_owned(value, fmt::format("the new value of parameter {}", name), place);
  const ValueId id = here.find(name);
  const int number = id == ValueId::none ? -1 : f.param_index(id);
  if (number < 0 || f.param_info[static_cast<size_t>(number)].kind != ParamInfo::param) {
    throw UserError(place, fmt::format("func {} has no parameter {} of the model that could be updated", f.name, name));
  }
  if (value.type() != f.value(id).type) {
    throw UserError(place, fmt::format("parameter {} is {}, its new value {}", name, f.value(id).type.str(), value.type().str()));
  }
  const auto again = [&](bool is) {
    if (is) throw UserError(place, fmt::format("parameter {} is updated already; a run gives it one value", name));
  };
  if (function_ == 0) {
    again(std::any_of(f.returns.begin(), f.returns.end(), [&](const Return& r) { return r.in_place == id; }));
    here.result(value, {&here, id});
    return;
  }
  for (Trace::Traced& t : trace_->traced_) {
    if (t.function != function_) continue;
    again(std::any_of(t.updates.begin(), t.updates.end(), [&](const auto& u) { return u.first == name; }));
    t.updates.emplace_back(name, value);
  }
}

std::vector<Value> Scope::call(std::string_view function, std::string_view prefix, std::vector<Argument> arguments,
                               const std::function<std::vector<Value>(Scope&, const std::vector<Value>&)>& body,
                               Where where) const {
  Builder& caller = builder();
  const Place place = caller.source().known() ? caller.source() : place_of(where);
  const std::string what = fmt::format("call {}{}{}", function, prefix.empty() ? "" : " as ", prefix);
  const auto fail = [&](const std::string& text) { throw UserError(place, fmt::format("{}: {}", what, text)); };
  for (const Argument& a : arguments) caller.check_owned(a.value, fmt::format("{}: argument {}", what, a.name), place);

  auto& traced = trace_->traced_;
  auto at = std::find_if(traced.begin(), traced.end(), [&](const Trace::Traced& t) { return t.name == function; });
  if (at == traced.end()) {
    at = traced.begin() + trace_->trace_function(function, arguments, body, place);
  } else if (!at->done) {
    fail(fmt::format("func {} calls itself", function));
  }
  const Function& callee = trace_->program_.functions[static_cast<size_t>(at->function)];

  if (arguments.size() != at->arguments.size()) {
    fail(fmt::format("{} arguments, but it was traced with {}", arguments.size(), at->arguments.size()));
  }
  std::vector<Value> values;
  for (size_t a = 0; a < arguments.size(); ++a) {
    const ValueInfo& param = callee.value(callee.params[a]);
    const ValueInfo& given = caller.function().value(arguments[a].value.id());
    if (arguments[a].name != at->arguments[a])
      fail(fmt::format("argument {} is {}, but it was traced with {}", a, arguments[a].name, at->arguments[a]));
    if (given.type != param.type) {
      fail(fmt::format("argument {} is {}, but it was traced with {}", param.name, given.type.str(), param.type.str()));
    }
    if (given.below != param.below) {
      fail(fmt::format("argument {} has below={}, but it was traced with below={}", param.name, given.below,
                       param.below));
    }
    values.push_back(arguments[a].value);
  }
  for (size_t p = arguments.size(); p < callee.params.size(); ++p) {
    const ValueInfo& param = callee.value(callee.params[p]);
    values.push_back(declare(join_name(prefix, param.name), param.type, callee.param_info[p].init, place));
  }
  const std::vector<std::pair<std::string, Value>> updates = at->updates;
  std::vector<Value> results = caller.call(at->function, prefix, std::move(values), place);
  const size_t own = results.size() - updates.size();
  for (size_t u = 0; u < updates.size(); ++u) update(join_name(prefix, updates[u].first), results[own + u], where);
  results.resize(own);
  return results;
}

std::ptrdiff_t Trace::trace_function(std::string_view function, const std::vector<Scope::Argument>& arguments,
                                     const Scope::Body& body, const Place& place) {
  check_name(function, place);
  if (program_.find(function) >= 0)
    throw UserError(place, fmt::format("func {} is there already; give the function another name", function));
  Traced t{std::string(function), add_function(function), {}, {}, false};
  Builder& inside = builder(t.function);
  std::vector<Value> values;
  for (const Scope::Argument& a : arguments) {
    check_name(a.name, place);
    const ValueInfo& given = a.value.builder().function().value(a.value.id());
    values.push_back(inside.param(a.name, given.type, {}, given.below));
    inside.function().value(values.back().id()).source = place;
    t.arguments.emplace_back(a.name);
  }
  traced_.push_back(std::move(t));
  const auto number = static_cast<std::ptrdiff_t>(traced_.size()) - 1;
  Scope scope(this, traced_.back().function);
  for (const Value& value : body(scope, values)) inside.result(value);
  for (const auto& [name, value] : traced_[static_cast<size_t>(number)].updates) inside.result(value, {&inside, inside.find(name)});
  traced_[static_cast<size_t>(number)].done = true;
  return number;
}

Trace::Trace(const OpTable& table, Dtype dtype) : dtype_(dtype) {
  program_.table = &table;
  add_function("main");
}

Scope Trace::scope() { return {this, 0}; }
Builder& Trace::main() { return builder(0); }
Builder& Trace::builder(int function) { return builders_[static_cast<size_t>(function)]; }

int Trace::add_function(std::string_view name) {
  std::string fresh(name);
  for (int i = 1; program_.find(fresh) >= 0; ++i) fresh = fmt::format("{}.{}", name, i);
  const int number = static_cast<int>(program_.functions.size());
  program_.functions.emplace_back().name = std::move(fresh);
  builders_.emplace_back(program_, number);
  return number;
}

Value Trace::state(std::string_view name, Value param, Shape shape, Init init) {
  const Function& f = main().function();
  main().check_owned(param, fmt::format("the parameter of state {}", name), {});
  check_name(name, f.value(param.id()).source);
  const int number = f.param_index(param.id());
  if (number < 0 || f.param_info[static_cast<size_t>(number)].kind != ParamInfo::param) {
    throw UserError(f.value(param.id()).source,
                    fmt::format("state {} is of %{}, which is no parameter of the model", name, param.name()));
  }
  ParamInfo info;
  info.kind = ParamInfo::state;
  info.of = param.id();
  info.init = init;
  return main().param(name, {param.type().dtype, std::move(shape)}, info);
}

Value Trace::state(std::string_view name, Type type, Init init) {
  check_name(name, {});
  ParamInfo info;
  info.kind = ParamInfo::state;
  info.init = init;
  return main().param(name, std::move(type), info);
}

void Trace::result(Value value, Value in_place) { main().result(value, in_place); }

std::vector<Value> Trace::params() {
  const Function& f = main().function();
  std::vector<Value> out;
  for (size_t p = 0; p < f.params.size(); ++p) {
    if (f.param_info[p].kind == ParamInfo::param) out.emplace_back(&main(), f.params[p]);
  }
  return out;
}

Program Trace::program() const {
  Program out;
  out.table = program_.table;
  out.mesh = program_.mesh;
  out.signatures = program_.signatures;
  std::vector<int> place(program_.functions.size(), -1);
  const std::function<void(int)> visit = [&](int number) {
    const Function& f = program_.functions[static_cast<size_t>(number)];
    int& here = place[static_cast<size_t>(number)];
    if (here >= 0) return;
    MESHARD_CHECK(here == -1, fmt::format("func {} calls itself", f.name));
    here = -2;
    for (const Op& op : f.ops) {
      if (op.callee >= 0) visit(op.callee);
    }
    Function copy = f;
    for (Op& op : copy.ops) {
      if (op.callee >= 0) op.callee = place[static_cast<size_t>(op.callee)];
    }
    // What is a parameter of the model is one in main; a function only gets it passed.
    if (number != 0) std::fill(copy.param_info.begin(), copy.param_info.end(), ParamInfo());
    here = static_cast<int>(out.functions.size());
    out.functions.push_back(std::move(copy));
  };
  visit(0);
  verify(out, Level::traced);
  return out;
}

}  // namespace meshard
