#include "meshard/autodiff/vjp_functions.h"

#include <algorithm>

#include "meshard/autodiff/path.h"
#include "meshard/autodiff/prune.h"
#include "meshard/autodiff/reverse.h"
#include "meshard/base/error.h"

namespace meshard {
namespace {

std::optional<size_t> find_return(const Function& f, std::string_view name) {
  for (size_t r = 0; r < f.returns.size(); ++r) {
    if (f.value(f.returns[r].value).name == name) return r;
  }
  return std::nullopt;
}

}  // namespace

std::optional<VjpParameter> vjp_parameter(const Function& f, std::string_view name) {
  for (size_t p = 0; p < f.params.size(); ++p) {
    if (f.value(f.params[p]).name == name) return VjpParameter{VjpParameter::argument, p};
  }
  if (const auto r = find_return(f, name)) return VjpParameter{VjpParameter::result, *r};
  if (!name.ends_with(".d")) return std::nullopt;
  if (const auto r = find_return(f, name.substr(0, name.size() - 2))) return VjpParameter{VjpParameter::cotangent, *r};
  return std::nullopt;
}

const VjpFunction& VjpFunctions::get(int callee, const std::vector<bool>& needed, const std::vector<bool>& given) {
  // Results that were added for a vjp function have no cotangents: whether they were there already makes no difference.
  std::vector<bool> known = given;
  while (!known.empty() && !known.back()) known.pop_back();
  const auto key = std::make_tuple(callee, needed, known);
  const auto found = made_.find(key);
  if (found != made_.end()) return found->second;
  std::optional<VjpFunction> ready = custom(callee, needed, given);
  return made_[key] = ready ? *ready : make(callee, needed, given);
}

std::optional<VjpFunction> VjpFunctions::custom(int callee, const std::vector<bool>& needed,
                                                const std::vector<bool>& given) const {
  const Program& program = trace_->building();
  const Function& f = program.functions[static_cast<size_t>(callee)];
  VjpFunction out;
  out.function = program.find(program.functions[static_cast<size_t>(straightened_.original(callee))].name + "_vjp");
  if (out.function < 0 || own_.contains(out.function)) return std::nullopt;
  const Function& g = program.functions[static_cast<size_t>(out.function)];

  std::vector<bool> taken(f.returns.size(), false);
  for (ValueId p : g.params) {
    const std::optional<VjpParameter> meaning = vjp_parameter(f, g.value(p).name);
    if (!meaning) return std::nullopt;
    if (meaning->kind == VjpParameter::cotangent) taken[meaning->index] = true;
  }
  for (size_t r = 0; r < given.size(); ++r) {
    if (given[r] && !taken[r]) return std::nullopt;
  }
  out.outs.resize(f.params.size());
  for (size_t p = 0; p < f.params.size(); ++p) {
    if (!needed[p]) continue;
    const std::string& name = f.value(f.params[p]).name;
    const auto grad = find_return(g, name + ".grad"), plain = find_return(g, name + ".d");
    if (!grad && !plain) return std::nullopt;
    out.outs[p] = {VjpFunction::Out::result, static_cast<int>(grad ? *grad : *plain), grad.has_value()};
  }
  return out;
}

VjpFunction VjpFunctions::make(int callee, const std::vector<bool>& needed, const std::vector<bool>& given) {
  Function& f = trace_->builder(callee).function();
  std::vector<ValueId> wrt, of;
  for (size_t p = 0; p < needed.size(); ++p) {
    if (needed[p]) wrt.push_back(f.params[p]);
  }
  for (size_t r = 0; r < given.size(); ++r) {
    if (given[r]) of.push_back(f.returns[r].value);
  }
  straightened_.straighten(callee, wrt, of);

  const std::string& name = trace_->building().functions[static_cast<size_t>(straightened_.original(callee))].name;
  VjpFunction out;
  out.function = trace_->add_function(name + "_vjp");
  own_.insert(out.function);
  Builder& builder = trace_->builder(out.function);
  Reverse reverse(*trace_, *this, callee, out.function);
  std::vector<ValueId> cotangents(given.size(), ValueId::none);
  for (size_t r = 0; r < given.size(); ++r) {
    if (!given[r]) continue;
    const ValueInfo& result = f.value(f.returns[r].value);
    Value cotangent = builder.param(result.name + ".d", result.type);
    cotangents[r] = cotangent.id();
    reverse.seed(f.returns[r].value, cotangent);
  }
  reverse.run(wrt);

  Function& g = builder.function();
  out.outs.resize(f.params.size());
  std::vector<ValueId> returned;
  for (size_t p = 0; p < f.params.size(); ++p) {
    Value cotangent = needed[p] ? reverse.cotangent(f.params[p]) : Value();
    if (!cotangent) continue;
    const auto passed = std::find(cotangents.begin(), cotangents.end(), cotangent.id());
    if (passed != cotangents.end()) {
      out.outs[p] = {VjpFunction::Out::passed, static_cast<int>(passed - cotangents.begin()), false};
      continue;
    }
    const auto at = std::find(returned.begin(), returned.end(), cotangent.id());
    out.outs[p] = {VjpFunction::Out::result, static_cast<int>(at - returned.begin()), reverse.summed(f.params[p])};
    if (at == returned.end()) returned.push_back(cotangent.id());
  }
  for (ValueId v : returned) g.returns.push_back({v});

  // Parameters in the order of f: its own, values made in it, cotangents.
  std::vector<std::pair<std::pair<int, size_t>, ValueId>> order;
  for (ValueId p : g.params) {
    const bool cotangent = std::find(cotangents.begin(), cotangents.end(), p) != cotangents.end();
    const ValueId primal = cotangent ? ValueId::none : f.find(g.value(p).name);
    const int own = cotangent ? -1 : f.param_index(primal);
    std::pair<int, size_t> rank{2, order.size()};
    if (own >= 0) rank = {0, static_cast<size_t>(own)};
    // Results of calls are as old as their call, whenever they were added.
    else if (!cotangent)
      rank = {1, (static_cast<size_t>(f.value(primal).op) << 32) + index(primal)};
    order.push_back({rank, p});
  }
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) g.params[i] = order[i].second;
  prune(g, returned, {.first = 0, .parameters = true, .late = reverse.made_again()});
  builder.names_changed();

  std::vector<ValueId> residuals;
  for (ValueId p : g.params) {
    const std::optional<VjpParameter> known = vjp_parameter(f, g.value(p).name);
    if (!known) residuals.push_back(f.find(g.value(p).name));
  }
  return_also(callee, residuals);
  return out;
}

void VjpFunctions::return_also(int function, const std::vector<ValueId>& values) {
  if (values.empty()) return;
  Program& program = trace_->building();
  Function& f = program.functions[static_cast<size_t>(function)];
  for (ValueId v : values) f.returns.push_back({v});
  for (size_t c = 0; c < program.functions.size(); ++c) {
    Function& caller = program.functions[c];
    Builder& names = trace_->builder(static_cast<int>(c));
    for (size_t i = 0; i < caller.ops.size(); ++i) {
      if (caller.ops[i].callee != function) continue;
      for (ValueId v : values) {
        ValueInfo result;
        result.name = join_name(caller.ops[i].prefix, f.value(v).name);
        // A call's results are called after the callee's: another value of that name gives way.
        const ValueId other = names.find(result.name);
        if (other != ValueId::none) names.rename(other, free_name(names, nullptr, result.name));
        result.type = f.value(v).type;
        result.below = f.value(v).below;
        result.op = static_cast<int>(i);
        result.source = f.value(v).source;
        caller.ops[i].results.push_back(static_cast<ValueId>(caller.values.size()));
        caller.values.push_back(std::move(result));
      }
    }
  }
}

}  // namespace meshard
