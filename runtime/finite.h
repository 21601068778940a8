// Where NaN and infinity come from: for a run whose loss or gradient was not finite.
//
//   if (!std::isfinite(run.scalar("loss"))) {
//     if (const auto found = first_not_finite(run)) fmt::print("{}\n", found->text);
//   }
#pragma once

#include <optional>
#include <string>

#include "meshard/runtime/executor.h"

namespace meshard {

struct NotFinite {
  int step = 0;      // of the program, alike on all ranks; -1: a parameter or an input
  std::string text;  // "block.3: %h = einsum gives inf in %h[0,7] on rank 1; the largest of its operands is %x with 3.1e+38"
};

// Runs the program again on the inputs it has and looks at what each step gives, on the devices of this process; nullopt where
// all is finite. Collective over all ranks, as run() is. The parameters must be those the bad run began with: adamw leaves
// them as they are where the gradient's norm is not finite. Ops without operands may give infinity: a constant is meant.
std::optional<NotFinite> first_not_finite(Executor& run);

}  // namespace meshard
