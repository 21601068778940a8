// Memory plan: where every value lives on one device, known before the run. Bases: `state` (parameters and optimizer states,
// owned by State), `input`, `arena` (everything else: activations, results, workspaces, staging of collectives). The peak is
// state + input + arena, to the byte what the run allocates.
#pragma once

#include "meshard/runtime/flat.h"

namespace meshard {

class Backend;

struct Slot {
  enum Base : uint8_t { state, input, arena } base = arena;
  int64_t offset = 0;  // bytes, a multiple of kAlignment; of `state`: unused, State knows its buffers by name
  int64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<Slot> values;         // of each FlatValue; aliases repeat their target's slot
  std::vector<Slot> scratch;        // of each FlatStep: workspace or staging, in the arena
  int64_t state_bytes = 0, input_bytes = 0, arena_bytes = 0;
  int64_t live_bytes = 0;           // the largest sum of live values and scratch: no plan's arena is smaller
  int64_t peak_bytes() const { return state_bytes + input_bytes + arena_bytes; }
};

// scratch_bytes[i]: what step i needs beside its operands and results.
MemoryPlan plan_memory(const Flat& flat, const std::vector<int64_t>& scratch_bytes);

// The largest peak of a device. Devices whose blocks have equal sizes have equal plans: one of each kind is planned where
// there are at most 64 kinds, which is exact; else those first or last on every axis along which sizes differ.
int64_t largest_peak_bytes(const Program& local, int threads, Backend* backend = nullptr);

}  // namespace meshard
