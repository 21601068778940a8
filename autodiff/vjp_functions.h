// The vjp functions of called functions: f_vjp beside f.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "meshard/autodiff/unroll.h"
#include "meshard/ir/trace.h"

namespace meshard {

// How the call of a vjp function gives the cotangents of a call's operands.
struct VjpFunction {
  struct Out {
    enum Kind {
      none,
      result,
      passed
    } kind = none;  // no path; result `index` of it; the cotangent of the call's result `index`
    int index = 0;
    bool summed = false;  // went through the op that marks a parameter's gradient
  };
  int function = -1;
  std::vector<Out> outs;  // for each parameter of the function
};

// What a parameter of f_vjp stands for.
struct VjpParameter {
  enum Kind { argument, result, cotangent } kind = argument;
  size_t index = 0;  // of a parameter, a result, the result whose cotangent it is
};
// By its name, in f; nullopt: nothing of f is called so.
std::optional<VjpParameter> vjp_parameter(const Function& f, std::string_view name);

class VjpFunctions {
 public:
  explicit VjpFunctions(Trace& trace) : trace_(&trace), straightened_(trace) {}

  // For calls of `callee` where the parameters in `needed` want cotangents and the results in `given` have them. A
  // function that stands there already under the name f_vjp, with the right names, is used as it is
  // (autodiff/custom.h).
  const VjpFunction& get(int callee, const std::vector<bool>& needed, const std::vector<bool>& given);
  Straightened& straightened() { return straightened_; }

 private:
  std::optional<VjpFunction> custom(int callee, const std::vector<bool>& needed, const std::vector<bool>& given) const;
  VjpFunction make(int callee, const std::vector<bool>& needed, const std::vector<bool>& given);
  void return_also(int function, const std::vector<ValueId>& values);

  Trace* trace_;
  Straightened straightened_;
  std::map<std::tuple<int, std::vector<bool>, std::vector<bool>>, VjpFunction> made_;
  std::set<int> own_;  // functions made here
};

}  // namespace meshard
