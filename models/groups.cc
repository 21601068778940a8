#include "meshard/models/groups.h"

#include <map>

#include "meshard/base/error.h"

namespace meshard {
namespace {

using Numbers = std::map<std::string, size_t, std::less<>>;  // of parameters, by name

void add_calls(const Function& f, const Program& program, const Numbers& params, std::vector<bool>& placed,
               std::vector<ParamGroup>& groups) {
  for (const Op& op : f.ops) {
    if (op.callee < 0) continue;
    const Function& callee = program.functions[static_cast<size_t>(op.callee)];
    // Called without a prefix, the names inside are those of main.
    if (op.prefix.empty()) {
      add_calls(callee, program, params, placed, groups);
      continue;
    }
    ParamGroup group{op.callee, op.prefix, {}, {}};
    for (ValueId p : callee.params) {
      const std::string& name = callee.value(p).name;
      const auto at = params.find(join_name(op.prefix, name));
      if (at == params.end() || placed[at->second]) continue;
      const size_t i = at->second;
      placed[i] = true;
      group.members.push_back(i);
      group.names.push_back(name);
    }
    if (!group.members.empty()) groups.push_back(std::move(group));
  }
}

}  // namespace

std::string name_under(const std::string& prefix, const std::string& name) {
  return !prefix.empty() && name.starts_with(prefix + ".") ? name.substr(prefix.size() + 1) : name;
}

std::vector<ParamGroup> group_params(const Program& program, const Function& main, const std::vector<Value>& params) {
  std::vector<ParamGroup> groups(1);
  std::vector<bool> placed(params.size(), false);
  Numbers numbers;
  for (size_t i = 0; i < params.size(); ++i) numbers.try_emplace(params[i].name(), i);
  add_calls(main, program, numbers, placed, groups);
  for (size_t i = 0; i < params.size(); ++i) {
    if (placed[i]) continue;
    groups[0].members.push_back(i);
    groups[0].names.push_back(params[i].name());
  }
  return groups;
}

int GroupFunctions::get(const ParamGroup& group, const std::function<void(Builder&)>& body) {
  const auto key = std::make_pair(group.callee, group.names);
  const auto found = made_.find(key);
  if (found != made_.end()) return found->second;
  const int function = made_[key] = trace_->add_function(name_);
  body(trace_->builder(function));
  return function;
}

std::vector<Value> call_group(Builder& caller, int function, const ParamGroup& group, std::vector<Value> given) {
  const Function& callee = caller.program().functions[static_cast<size_t>(function)];
  for (size_t p = given.size(); p < callee.params.size(); ++p) {
    const std::string name = join_name(group.prefix, callee.value(callee.params[p]).name);
    const ValueId v = caller.find(name);
    MESHARD_CHECK(v != ValueId::none, "no value %" + name);
    given.emplace_back(&caller, v);
  }
  return caller.call(function, group.prefix, std::move(given));
}

}  // namespace meshard
