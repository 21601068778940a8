// A function with a gradient of its own, for what the chain rule does badly: a clipped or reversed gradient, a
// numerically better form, values made again to save memory.
//
//   std::vector<Value> y = custom_call(s, "half_back", "half", {{"x", x}},
//       [](Scope&, const std::vector<Value>& a) { return std::vector{a[0].named("y")}; },
//       [](const VjpBody& v) { return std::vector{scale(v.cotangents[0], 0.5)}; });
//
// The rule is itself a function of the program, called name_vjp: it takes the parameters of the function, its results
// n, and their cotangents n.d, all by name, and returns p.d for each float parameter p. gradients() uses such a
// function where it finds one.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

// Values of name_vjp. In order of the function's parameters: its arguments, then what its body declared with
// Scope::param.
struct VjpBody {
  Builder* builder = nullptr;
  std::vector<Value> arguments;
  std::vector<Value> results;
  std::vector<Value> cotangents;  // of the results; none for integers. Zeros where a result is not used.
};

// As scope.call(). `vjp_body` is traced once; it gives a cotangent for each of VjpBody::arguments, none where it is
// zero or the argument has integers. Errors (UserError): as many as there are arguments, each of its argument's type.
std::vector<Value> custom_call(const Scope& scope, std::string_view name, std::string_view prefix,
                               std::vector<Scope::Argument> arguments,
                               const std::function<std::vector<Value>(Scope&, const std::vector<Value>&)>& body,
                               const std::function<std::vector<Value>(const VjpBody&)>& vjp_body);

}  // namespace meshard
