#include "meshard/autodiff/unroll.h"

#include "meshard/autodiff/path.h"
#include "meshard/base/error.h"
#include "meshard/ops/functions.h"

namespace meshard {

int Straightened::original(int function) const {
  const auto found = originals_.find(function);
  return found == originals_.end() ? function : found->second;
}

int Straightened::keeps_arguments(int callee) {
  const auto found = copies_.find(callee);
  if (found != copies_.end()) return found->second;
  std::deque<Function>& functions = trace_->building().functions;
  bool overwrites = false;
  for (const Return& r : functions[static_cast<size_t>(callee)].returns)
    overwrites = overwrites || r.in_place != ValueId::none;
  if (!overwrites) return callee;
  const int copy = trace_->add_function(functions[static_cast<size_t>(callee)].name);
  Function& f = functions[static_cast<size_t>(copy)];
  const std::string name = f.name;
  f = functions[static_cast<size_t>(callee)];
  f.name = name;
  for (Return& r : f.returns) r.in_place = ValueId::none;
  copies_[callee] = copy;
  originals_[copy] = callee;
  return copy;
}

void Straightened::unroll(int function, size_t at) {
  Function& f = trace_->builder(function).function();
  const Op loop = f.ops[at];
  const int callee = keeps_arguments(loop.callee);
  const Function& overwriting = trace_->building().functions[static_cast<size_t>(loop.callee)];
  MESHARD_CHECK(loop.count > 0, "a loop of no rounds");

  std::vector<Op> calls;
  std::vector<ValueId> arguments = loop.operands;
  for (int64_t round = 0; round < loop.count; ++round) {
    if (loop.index_operand >= 0) {
      Value number = fill(trace_->builder(function), static_cast<double>(round), Type{Dtype::i32, {}});
      f.value(number.id()).below = loop.count;
      calls.push_back(std::move(f.ops.back()));
      f.ops.pop_back();
      arguments[static_cast<size_t>(loop.index_operand)] = number.id();
    }
    Op call = loop;
    call.kind = Op::call;
    call.callee = callee;
    call.count = 1;
    call.index_operand = -1;
    call.operands = arguments;
    if (round + 1 < loop.count) {
      call.prefix = join_name(loop.prefix, std::to_string(round));
      for (size_t r = 0; r < loop.results.size(); ++r) {
        ValueInfo value = f.value(loop.results[r]);
        value.name =
            free_name(trace_->builder(function), nullptr, join_name(call.prefix, overwriting.value(overwriting.returns[r].value).name));
        call.results[r] = static_cast<ValueId>(f.values.size());
        f.values.push_back(std::move(value));
      }
    }
    for (size_t r = 0; r < call.results.size(); ++r) {
      const ValueId carried = overwriting.returns[r].in_place;
      if (carried != ValueId::none) arguments[static_cast<size_t>(overwriting.param_index(carried))] = call.results[r];
    }
    calls.push_back(std::move(call));
  }

  f.ops.erase(f.ops.begin() + static_cast<int64_t>(at));
  f.ops.insert(f.ops.begin() + static_cast<int64_t>(at), calls.begin(), calls.end());
  for (size_t i = 0; i < f.ops.size(); ++i) {
    for (ValueId r : f.ops[i].results) f.value(r).op = static_cast<int>(i);
  }
}

void Straightened::straighten(int function, const std::vector<ValueId>& wrt, const std::vector<ValueId>& of) {
  Function& f = trace_->builder(function).function();
  std::vector<bool> depends = Dependence(trace_->building()).on(function, wrt), reach = reaches(f, of);
  const auto on_path = [&](const Op& op) {
    for (ValueId r : op.results) {
      if (depends[index(r)] && reach[index(r)]) return true;
    }
    return false;
  };
  for (size_t i = 0; i < f.ops.size();) {
    if (f.ops[i].callee >= 0 && on_path(f.ops[i])) {
      if (f.ops[i].kind == Op::repeat) {
        unroll(function, i);
        depends = Dependence(trace_->building()).on(function, wrt);
        reach = reaches(f, of);
        continue;  // the calls that stand here now
      }
      f.ops[i].callee = keeps_arguments(f.ops[i].callee);
    }
    ++i;
  }
}

}  // namespace meshard
