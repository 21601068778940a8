// One device's compiled form: its flat steps with prepared kernels and collective calls, its memory plan and its memory.
// Internal to runtime/.
#pragma once

#include <memory>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/collectives/communicator.h"
#include "meshard/kernels/kernel.h"
#include "meshard/layout/reshard.h"
#include "meshard/runtime/executor.h"
#include "meshard/runtime/flat.h"
#include "meshard/runtime/memory.h"

namespace meshard {

// A rectangle copied between a value and a staging area, or two values.
struct RectCopy {
  Rect from, to, part;
  int64_t from_offset = 0, to_offset = 0;  // elements, into the contiguous arrays
  size_t value = 0;                        // which operand or result of the step
};

// How one collective step runs on one device: pack, one call, unpack.
struct CollectiveStep {
  Group group;
  CollectiveCall call;
  std::vector<int64_t> counts, send_counts;
  std::vector<RectCopy> pack, unpack, keep;
  bool stage_send = false, stage_receive = false;
  bool zero = false;  // a slice that leaves nothing here
  int64_t send_elements = 0, receive_elements = 0;  // of the staging areas
  int64_t element_bytes = 4;
  Ticket ticket = 0;

  int64_t staging_bytes() const;
};

CollectiveStep plan_collective(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank);
// The same for a step of several values: in the staging areas stands, for each member, its part of each value in turn.
CollectiveStep plan_message(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank);
// What the step does to value `i`.
ReshardStep reshard_step(const Flat& flat, const FlatStep& step, size_t i);

// Of a kernel's step, on the device's blocks.
double step_flops(const Program& local, const Flat& flat, const FlatStep& step, Rank rank);

struct PlannedDevice {
  Rank rank{};
  Flat flat;
  std::vector<std::shared_ptr<const Prepared>> kernels;  // of each step; null: no kernel
  std::vector<std::unique_ptr<CollectiveStep>> collectives;
  std::vector<int64_t> scratch_bytes;
  MemoryPlan memory;
};

PlannedDevice plan_device(const Program& local, Rank rank, const ExecutorOptions& options);

}  // namespace meshard
