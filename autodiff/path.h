// Which ops of a function stand between some of its values and others.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

class Dependence {
 public:
  explicit Dependence(const Program& program) : program_(&program) {}

  // For each value of the function, whether it is one of `on` or a float made from one; through a call result by
  // result.
  std::vector<bool> on(int function, const std::vector<ValueId>& on);

 private:
  std::vector<bool> propagate(int function, std::vector<bool> depends);
  // For each result of the callee, whether it depends on the marked ones of its parameters.
  const std::vector<bool>& results(int callee, const std::vector<bool>& parameters);

  const Program* program_;
  std::map<std::pair<int, std::vector<bool>>, std::vector<bool>> memo_;
};

// For each value of f, whether an op makes one of `of` from it.
std::vector<bool> reaches(const Function& f, const std::vector<ValueId>& of);

// The function's name, and if that is taken in `a` or `b`, the name with .1, .2 ... appended. `b` may be null.
std::string free_name(const Builder& a, const Builder* b, const std::string& wanted);

}  // namespace meshard
