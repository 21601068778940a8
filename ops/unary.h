// What ops on one value, element by element, have in common.
#pragma once

#include <string_view>

#include "meshard/ir/op.h"

namespace meshard {

// rule "... -> ...", in place, with cases.
OpDef unary(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu);
// The gradient of such an op: (x or y, dy) -> dx, linear in dy.
OpDef unary_vjp(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu);

}  // namespace meshard
