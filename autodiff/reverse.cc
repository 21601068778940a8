#include "meshard/autodiff/reverse.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "meshard/autodiff/path.h"
#include "meshard/base/error.h"
#include "meshard/ops/functions.h"

namespace meshard {

Reverse::Reverse(Trace& trace, VjpFunctions& functions, int primal, int target)
    : trace_(&trace),
      functions_(&functions),
      target_(&trace.builder(target)),
      primal_(&trace.builder(primal).function()),
      primal_index_(primal),
      same_(primal == target) {}

// A parameter's uses share its cotangent.
ValueId Reverse::root(ValueId v) const {
  for (;;) {
    const int op = info(v).op;
    if (op < 0 || primal_->ops[static_cast<size_t>(op)].kind != Op::apply) return v;
    const Op& maker = primal_->ops[static_cast<size_t>(op)];
    if (maker.def->role != Role::use) return v;
    v = maker.operands[0];
  }
}

bool Reverse::is_parameter(ValueId v) const {
  const int p = primal_->param_index(v);
  if (p < 0) return false;
  if (primal_->param_info[static_cast<size_t>(p)].kind == ParamInfo::param) return true;
  return std::any_of(primal_->ops.begin(), primal_->ops.end(), [&](const Op& op) {
    return op.kind == Op::apply && op.def->role == Role::use && op.operands[0] == v;
  });
}

bool Reverse::wants(ValueId v) const {
  return v != ValueId::none && index(v) < depends_.size() && depends_[index(v)] && is_float(info(v).type.dtype);
}

void Reverse::rename(Value value, std::string wanted) {
  target_->rename(value.id(), "");  // its own name is free
  target_->rename(value.id(), free_name(*target_, same_ ? nullptr : &trace_->builder(primal_index_), wanted));
}

// Names are unique over a function and its vjp function together: calls of both under one prefix are inlined side by
// side.
void Reverse::separate_names(size_t values_before) {
  if (same_) return;
  Function& g = target_->function();
  for (size_t v = values_before; v < g.values.size(); ++v) {
    if (g.values[v].op >= 0 && trace_->builder(primal_index_).find(g.values[v].name) != ValueId::none)
      rename(Value(target_, static_cast<ValueId>(v)), g.values[v].name);
  }
}

Value Reverse::primal(ValueId v) {
  if (same_) return Value(target_, v);
  const auto found = copies_.find(v);
  if (found != copies_.end()) return found->second;

  const ValueInfo known = info(v);
  const Op* maker = known.op < 0 ? nullptr : &primal_->ops[static_cast<size_t>(known.op)];
  if (maker != nullptr && maker->kind == Op::apply && (maker->def->remake || maker->def->role == Role::use)) {
    std::vector<Value> operands;
    for (ValueId operand : maker->operands) operands.push_back(primal(operand));
    std::vector<Type> types;
    for (ValueId r : maker->results) types.push_back(info(r).type);
    if (!maker->def->typed()) types.clear();
    const std::vector<Value> again = target_->apply(*maker->def, operands, maker->attributes, types, "", maker->source);
    made_again_.insert(static_cast<int>(target_->function().ops.size()) - 1);
    for (size_t r = 0; r < again.size(); ++r) {
      rename(again[r], info(maker->results[r]).name);
      target_->function().value(again[r].id()).below = info(maker->results[r]).below;
      copies_[maker->results[r]] = again[r];
    }
    return copies_[v];
  }
  const ValueId other = target_->find(known.name);
  if (other != ValueId::none) rename(Value(target_, other), known.name);
  return copies_[v] = target_->param(known.name, known.type, {}, known.below);
}

Value Reverse::cotangent_of_result(ValueId v) const {
  const auto found = sums_.find(v);
  return found == sums_.end() ? Value() : found->second.total;
}

Value Reverse::cotangent(ValueId v) const { return cotangent_of_result(root(v)); }

bool Reverse::summed(ValueId v) const {
  const auto found = sums_.find(root(v));
  return found != sums_.end() && found->second.summed;
}

std::vector<Reverse::Term> Reverse::apply(const Op& op) {
  std::vector<Value> cotangents;
  bool any = false, needed_any = false;
  for (ValueId r : op.results) {
    cotangents.push_back(cotangent_of_result(r));
    any = any || static_cast<bool>(cotangents.back());
  }
  std::vector<bool> needed;
  for (ValueId v : op.operands) {
    needed.push_back(wants(v));
    needed_any = needed_any || needed.back();
  }
  if (!any || !needed_any) return {};
  if (op.def->vjp == nullptr) {
    const auto operand = std::find(needed.begin(), needed.end(), true) - needed.begin();
    throw UserError(op.source, fmt::format("{} has no gradient, but the loss depends on %{} through it (%{} = {} ...)",
                                           op.def->name, info(op.operands[static_cast<size_t>(operand)]).name,
                                           info(op.results[0]).name, op.def->name));
  }
  std::vector<Value> operands, results;
  for (ValueId v : op.operands) operands.push_back(primal(v));
  for (ValueId r : op.results) results.push_back(primal(r));
  Vjp vjp(*target_, op.attributes, operands, results, cotangents);
  vjp.set_needed(needed);
  op.def->vjp(vjp);

  std::vector<Term> terms;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    if (needed[i] && vjp.out()[i]) terms.push_back({root(op.operands[i]), vjp.out()[i]});
  }
  return terms;
}

std::vector<Reverse::Term> Reverse::call(size_t at) {
  Op op = primal_->ops[at];
  std::vector<bool> given, needed;
  bool any = false, needed_any = false;
  for (ValueId r : op.results) {
    given.push_back(static_cast<bool>(cotangent_of_result(r)));
    any = any || given.back();
  }
  for (ValueId v : op.operands) {
    needed.push_back(wants(v));
    needed_any = needed_any || needed.back();
  }
  if (!any || !needed_any) return {};
  MESHARD_CHECK(op.kind == Op::call, "a loop on the path was not unrolled");

  const VjpFunction vjp = functions_->get(op.callee, needed, given);
  op = primal_->ops[at];  // the callee may return more now
  const Program& program = trace_->building();
  const Function& f = program.functions[static_cast<size_t>(op.callee)];
  const Function& g = program.functions[static_cast<size_t>(vjp.function)];
  std::vector<Value> arguments;
  for (ValueId p : g.params) {
    const VjpParameter meaning = *vjp_parameter(f, g.value(p).name);
    switch (meaning.kind) {
      case VjpParameter::argument:
        arguments.push_back(primal(op.operands[meaning.index]));
        break;
      case VjpParameter::result:
        arguments.push_back(primal(op.results[meaning.index]));
        break;
      case VjpParameter::cotangent: {
        Value cotangent = cotangent_of_result(op.results[meaning.index]);
        arguments.push_back(cotangent ? cotangent : fill(*target_, 0, info(op.results[meaning.index]).type));
        break;
      }
    }
  }
  std::string prefix = op.prefix;
  const auto taken = [&](const std::string& candidate) {
    return std::any_of(g.returns.begin(), g.returns.end(), [&](const Return& r) {
      return target_->find(join_name(candidate, g.value(r.value).name)) != ValueId::none;
    });
  };
  for (int k = 1; taken(prefix); ++k) prefix = join_name(op.prefix, std::to_string(k));
  std::vector<Value> results;
  if (!g.returns.empty()) results = target_->call(vjp.function, prefix, arguments, op.source);

  std::vector<Term> terms;
  for (size_t i = 0; i < op.operands.size(); ++i) {
    const VjpFunction::Out& out = vjp.outs[i];
    const auto from = static_cast<size_t>(out.index);
    if (out.kind == VjpFunction::Out::result) terms.push_back({root(op.operands[i]), results[from], out.summed});
    if (out.kind == VjpFunction::Out::passed)
      terms.push_back({root(op.operands[i]), cotangent_of_result(op.results[from])});
  }
  return terms;
}

void Reverse::add_term(const Term& term) {
  Sum& sum = sums_[term.to];
  if (sum.terms++ == 0) {
    sum.total = term.cotangent;
    sum.named = term.named;
    sum.summed = term.summed;
    return;
  }
  sum.total = add(sum.total, term.cotangent);
  rename(sum.total, fmt::format("{}.d.{}", info(term.to).name, ++sum.parts));
  sum.named = true;
  sum.summed = false;
}

void Reverse::complete(ValueId v) {
  const auto found = sums_.find(v);
  if (found == sums_.end() || found->second.complete) return;
  Sum& sum = found->second;
  sum.complete = true;
  if (sum.named) rename(sum.total, info(v).name + ".d");
  if (!is_parameter(v) || sum.summed) return;
  sum.total = grad(sum.total);
  rename(sum.total, info(v).name + ".grad");
  sum.summed = true;
}

// Sums of several terms are added up last: a gradient that is whole is marked, and may be reduced, as soon as it is
// made.
void Reverse::receive(std::vector<Term> terms, size_t values_before, int op) {
  std::map<ValueId, int> count;
  std::set<ValueId> named;
  for (Term& term : terms) {
    ++count[term.to];
    if (index(term.cotangent.id()) < values_before || !named.insert(term.cotangent.id()).second) continue;
    term.named = true;
    rename(term.cotangent, fmt::format("{}.d.{}", info(term.to).name, ++sums_[term.to].parts));
  }
  std::vector<Term> later;
  for (const Term& term : terms) {
    if (count[term.to] > 1 || sums_[term.to].terms > 0) {
      later.push_back(term);
      continue;
    }
    add_term(term);
    if (first_user_[index(term.to)] == op) complete(term.to);
  }
  for (const Term& term : later) {
    add_term(term);
    if (--count[term.to] == 0 && first_user_[index(term.to)] == op) complete(term.to);
  }
}

void Reverse::run(const std::vector<ValueId>& wrt) {
  std::vector<ValueId> of;
  for (const auto& [v, cotangent] : seeds_) of.push_back(v);
  depends_ = Dependence(trace_->building()).on(primal_index_, wrt);
  const std::vector<bool> reach = reaches(*primal_, of);
  const int end = static_cast<int>(primal_->ops.size());
  first_user_.assign(primal_->values.size(), -1);
  for (int i = end; i-- > 0;) {
    const Op& op = primal_->ops[static_cast<size_t>(i)];
    const bool on_path = std::any_of(op.results.begin(), op.results.end(),
                                     [&](ValueId r) { return wants(r) && reach[index(r)] && root(r) == r; });
    if (!on_path) continue;
    for (ValueId v : op.operands) {
      if (wants(v)) first_user_[index(root(v))] = i;
    }
  }

  const Place place = target_->source();
  for (const auto& [v, cotangent] : seeds_) add_term({root(v), cotangent});
  for (int i = end; i-- > 0;) {
    const Op op = primal_->ops[static_cast<size_t>(i)];
    target_->set_source(op.source);
    const size_t values_before = target_->function().values.size();
    std::vector<Term> terms;
    if (op.kind == Op::apply)
      terms = apply(op);
    else if (op.callee >= 0)
      terms = call(static_cast<size_t>(i));
    // What a call gives is called as the function calls it.
    receive(std::move(terms), op.kind == Op::apply ? values_before : std::numeric_limits<size_t>::max(), i);
    for (ValueId v : op.operands) {
      if (wants(v) && first_user_[index(root(v))] == i) complete(root(v));
    }
    separate_names(values_before);
  }
  for (ValueId v : wrt) complete(root(v));
  target_->set_source(place);
}

}  // namespace meshard
