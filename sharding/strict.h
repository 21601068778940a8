// strict: how much a program may communicate without having been asked to.
//
//   auto            anything; a reshard above 1 MiB and above twice its lower bound is a warning
//   budget=BYTES    at most so much on the busiest device
//   explicit        only what is written: a reshard op, a layout of the plan or the text, a parameter's role, an in-place
//                   return; and in the gradient the transpose of one of these
//
// The transpose: a written change of x from A to B answers for one of x.d from B to A: a gather of x for the scatter of its
// cotangent's sum, a slice for the gather, an all-to-all for the way back.
#pragma once

#include <string>
#include <vector>

#include "meshard/sharding/edits.h"
#include "meshard/sharding/explain.h"
#include "meshard/sharding/partition.h"

namespace meshard {

// For each collective of all.list, in that order, whether it is written or the transpose of one that is.
std::vector<bool> written(const Explanations& all);

// Mode::automatic: "block: %x f32[4096,1024] from [data, -] to [-, -] receives 12.00 MiB where 3.00 MiB would do: read by ...".
std::vector<Diagnostic> reshard_warnings(const Explanations& all);

// Throws what a mode does not allow. Explicit: each collective that is not written, with the lines that could be, cheapest first,
// and the bytes of the whole program under each. Budget: what the least known is, and which change of one layout would fit.
void enforce(const PartitionOptions& mode, const Explanations& all, const Program& closed, const Program& program, const Plan* plan,
             const Replan& replan);

}  // namespace meshard
