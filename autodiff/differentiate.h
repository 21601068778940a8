// Reverse differentiation of a program while it is traced. It works on the global program: it never sees a mesh or a
// layout, so no collective is ever differentiated.
//
//   Value loss = mean(cross_entropy(logits, targets));
//   std::vector<Value> g = gradients(trace, loss, {w, b});     // g[0] has the type of w
//
// Names: the cotangent of X is X.d, its partial sums X.d.1, X.d.2; the gradient of a parameter, summed over all its
// uses, is X.grad. A function f on the way gets a function f_vjp beside it, one for all its calls: it takes the
// arguments of f again, what it needs of the values made inside f (f returns these too from then on), and the
// cotangents of the results. What is cheap to make is made again instead (OpDef::remake), and so is each parameter's
// `use`: where it is gathered, forward and backward gather apart.
#pragma once

#include <vector>

#include "meshard/ir/trace.h"

namespace meshard {

// Appends the reverse pass to the function in which `loss` is being traced, main or another, and gives one gradient for
// each of `wrt`, float values of the same function, made anywhere before the loss; for a use of a parameter, the
// parameter's. Zeros where there is no path. A loop on the path is unrolled into calls, and a call on the path no
// longer overwrites its arguments. Errors (UserError): a loss that is no float scalar; a value of another function, or
// of integers; an op on the path that has no gradient. All gradients are multiplied by `scale`.
std::vector<Value> gradients(Trace& trace, Value loss, const std::vector<Value>& wrt, double scale = 1);

}  // namespace meshard
