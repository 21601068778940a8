#include "meshard/autodiff/custom.h"

#include <fmt/format.h>

#include "meshard/base/error.h"
#include "meshard/ops/functions.h"

namespace meshard {
namespace {

void trace_rule(Trace& trace, int function, const std::string& rule_name,
                const std::function<std::vector<Value>(const VjpBody&)>& vjp_body) {
  const int index = trace.add_function(rule_name);
  const Function& f = trace.building().functions[static_cast<size_t>(function)];
  Builder& builder = trace.builder(index);
  VjpBody body;
  body.builder = &builder;
  for (ValueId p : f.params)
    body.arguments.push_back(builder.param(f.value(p).name, f.value(p).type, {}, f.value(p).below));
  for (const Return& r : f.returns) {
    const ValueInfo& result = f.value(r.value);
    const int argument = f.param_index(r.value);
    body.results.push_back(argument >= 0 ? body.arguments[static_cast<size_t>(argument)]
                                         : builder.param(result.name, result.type, {}, result.below));
  }
  for (const Return& r : f.returns) {
    const ValueInfo& result = f.value(r.value);
    body.cotangents.push_back(is_float(result.type.dtype) ? builder.param(result.name + ".d", result.type) : Value());
  }
  const std::vector<Value> cotangents = vjp_body(body);
  if (cotangents.size() != body.arguments.size()) {
    throw UserError(fmt::format("{}: the gradient gives {} cotangents, but {} takes {} arguments", rule_name,
                                cotangents.size(), f.name, body.arguments.size()));
  }
  for (size_t i = 0; i < cotangents.size(); ++i) {
    const Value& argument = body.arguments[i];
    if (!is_float(argument.type().dtype)) continue;
    if (cotangents[i] && (cotangents[i].type() != argument.type() || &cotangents[i].builder() != &builder)) {
      throw UserError(fmt::format("{}: the cotangent of {} must be a value of {} and of type {}, not {}", rule_name,
                                  argument.name(), rule_name, argument.type().str(), cotangents[i].type().str()));
    }
    // A value of its own for each: one may be given for several arguments, or be the cotangent of a result.
    Value given = cotangents[i] ? reshard(cotangents[i]) : fill(builder, 0, argument.type());
    given = given.named(argument.name() + ".d");
    builder.result(given);
  }
}

}  // namespace

std::vector<Value> custom_call(const Scope& scope, std::string_view name, std::string_view prefix,
                               std::vector<Scope::Argument> arguments,
                               const std::function<std::vector<Value>(Scope&, const std::vector<Value>&)>& body,
                               const std::function<std::vector<Value>(const VjpBody&)>& vjp_body) {
  const std::vector<Value> results = scope.call(name, prefix, std::move(arguments), body);
  Trace& trace = scope.trace();
  const std::string rule_name = std::string(name) + "_vjp";
  if (trace.building().find(rule_name) < 0) trace_rule(trace, trace.building().find(name), rule_name, vjp_body);
  return results;
}

}  // namespace meshard
