#include "meshard/autodiff/path.h"

namespace meshard {

std::vector<bool> Dependence::on(int function, const std::vector<ValueId>& on) {
  std::vector<bool> depends(program_->functions[static_cast<size_t>(function)].values.size(), false);
  for (ValueId v : on) depends[index(v)] = true;
  return propagate(function, std::move(depends));
}

std::vector<bool> Dependence::propagate(int function, std::vector<bool> depends) {
  const Function& f = program_->functions[static_cast<size_t>(function)];
  const auto is = [&](ValueId v) { return v != ValueId::none && depends[index(v)] && is_float(f.value(v).type.dtype); };
  for (const Op& op : f.ops) {
    std::vector<bool> operands;
    for (ValueId v : op.operands) operands.push_back(is(v));
    std::vector<bool> made(op.results.size(), false);
    if (op.callee < 0) {
      for (bool operand : operands) {
        if (operand) made.assign(made.size(), true);
      }
    } else {
      const Function& callee = program_->functions[static_cast<size_t>(op.callee)];
      // A loop hands results on to its next round: go round until nothing is added.
      for (bool grew = true; grew;) {
        grew = false;
        made = results(op.callee, operands);
        if (op.kind != Op::repeat) break;
        for (size_t r = 0; r < callee.returns.size(); ++r) {
          const int carried =
              callee.returns[r].in_place == ValueId::none ? -1 : callee.param_index(callee.returns[r].in_place);
          if (carried < 0 || !made[r] || operands[static_cast<size_t>(carried)]) continue;
          operands[static_cast<size_t>(carried)] = grew = true;
        }
      }
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      if (made[r] && is_float(f.value(op.results[r]).type.dtype)) depends[index(op.results[r])] = true;
    }
  }
  return depends;
}

const std::vector<bool>& Dependence::results(int callee, const std::vector<bool>& parameters) {
  const Function& f = program_->functions[static_cast<size_t>(callee)];
  std::vector<bool>& out = memo_[{callee, parameters}];
  if (out.size() == f.returns.size()) return out;
  std::vector<bool> depends(f.values.size(), false);
  for (size_t p = 0; p < f.params.size(); ++p) depends[index(f.params[p])] = parameters[p];
  depends = propagate(callee, std::move(depends));
  std::vector<bool> made;
  for (const Return& r : f.returns) made.push_back(depends[index(r.value)]);
  out = std::move(made);
  return out;
}

std::vector<bool> reaches(const Function& f, const std::vector<ValueId>& of) {
  std::vector<bool> out(f.values.size(), false);
  for (ValueId v : of) out[index(v)] = true;
  for (size_t i = f.ops.size(); i-- > 0;) {
    const Op& op = f.ops[i];
    bool read = false;
    for (ValueId r : op.results) read = read || out[index(r)];
    if (!read) continue;
    for (ValueId v : op.operands) {
      if (v != ValueId::none) out[index(v)] = true;
    }
  }
  return out;
}

std::string free_name(const Builder& a, const Builder* b, const std::string& wanted) {
  const auto taken = [&](const std::string& name) {
    return a.find(name) != ValueId::none || (b != nullptr && b->find(name) != ValueId::none);
  };
  std::string name = wanted;
  for (int k = 1; taken(name); ++k) name = wanted + "." + std::to_string(k);
  return name;
}

}  // namespace meshard
