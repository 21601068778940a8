// Which kernels of a device's steps are put on its stream together (Prepared::run_many): those side by side of one kind,
// of which none writes what another reads or writes. Internal to runtime/.
//
//   JoinedSteps joined = join_steps(plan, values, [&](size_t i) { return KernelCall{...}; });
//   if (!joined.calls[i].empty()) backend.run_many(joined.calls[i], stream);   // step i and those behind it
#pragma once

#include <functional>
#include <vector>

#include "meshard/runtime/device.h"

namespace meshard {

struct JoinedSteps {
  std::vector<std::vector<KernelMember>> calls;  // of the first step of several: all of them; else none
  std::vector<bool> later;                       // of each step: it is done with one before
};

// `values`: where each value of the flat program is; `call`: of a step, with spans that outlive the result.
JoinedSteps join_steps(const PlannedDevice& plan, const std::vector<std::byte*>& values, const std::function<KernelCall(size_t step)>& call);

}  // namespace meshard
