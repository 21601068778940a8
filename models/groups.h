// The parameters of main by the calls that bring them: what a step does for each parameter is one function for all
// blocks.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

struct ParamGroup {
  int callee = -1;                 // the function, as it is called by main; -1: parameters of main itself
  std::string prefix;              // of the call; "" in main
  std::vector<size_t> members;     // indices into `params`
  std::vector<std::string> names;  // of the members inside the function: prefix.name is the parameter
};

// `params` are parameters of `main`. Its own are the first group, always there; then one group a call, in the order of
// the calls.
std::vector<ParamGroup> group_params(const Program& program, const Function& main, const std::vector<Value>& params);

// A function made once for each kind of group, and called for each group under its prefix.
class GroupFunctions {
 public:
  GroupFunctions(Trace& trace, std::string name) : trace_(&trace), name_(std::move(name)) {}
  // The function for such a group; `body` makes it at the first one.
  int get(const ParamGroup& group, const std::function<void(Builder&)>& body);

 private:
  Trace* trace_;
  std::string name_;
  std::map<std::pair<int, std::vector<std::string>>, int> made_;
};

// Calls it with the callers' values called prefix.name for parameters named `name`, and with `given` for the first
// ones.
std::vector<Value> call_group(Builder& caller, int function, const ParamGroup& group, std::vector<Value> given);

// "block.0.wq.grad" under "block.0" -> "wq.grad"; the name itself if it is not under the prefix.
std::string name_under(const std::string& prefix, const std::string& name);

}  // namespace meshard
