#include "meshard/kernels/kernel.h"

#include <fmt/format.h>

#include "meshard/base/error.h"

namespace meshard {

const KernelFactor& KernelSpec::factor(std::string_view name) const {
  for (const KernelFactor& f : factors) {
    if (f.name == name) return f;
  }
  throw InternalError(fmt::format("a kernel asked for factor \"{}\", which its rule does not have", name));
}

}  // namespace meshard
