// Flat: main with its calls inlined, as one device runs it: a list of steps over slots. A slot is a piece of memory of known
// size; in-place results share their parameter's slot. A repeat stays a loop (LoopBegin .. LoopEnd).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "meshard/ir/halo.h"
#include "meshard/ir/program.h"
#include "meshard/layout/reshard.h"

namespace meshard {

struct FlatValue {
  std::string name;    // "block.0.wq@1"
  Type type;           // global
  Layout layout;
  Shape local;         // on this device
  std::vector<int64_t> begin;  // what an op fetched: where the piece begins in the value; empty: as the layout says
  int alias = -1;      // the value whose memory it takes (in place); -1: its own
  int64_t within = 0;  // bytes from the begin of that memory (windows.h); of parameters and states only
  ParamInfo::Kind kind = ParamInfo::input;
  bool is_param = false;    // of main
  bool is_result = false;   // returned by main and not in place
};

// What an op reads of an operand, on one device (ir/halo.h).
struct FlatFetch {
  AtomSet over;
  Rect held, wanted;
  HaloTransfer transfer;
};

struct FlatStep {
  enum Kind : uint8_t {
    kernel, collective, wait, copy, loop_begin, loop_end,
    skip  // guarded, and not this device's; or its result became a name of its operand
  } kind = kernel;
  const Op* op = nullptr;            // in the local program, which must outlive this
  std::vector<int> operands, results;  // indices of FlatValues
  bool start = false;                // collective: only begun here
  std::shared_ptr<const FlatFetch> fetch;  // collective that brings what `op` reads of an operand; null: any other
  int fetches = -1;                        // and of which operand
  int partner = -1;                  // a start's wait and a wait's start; loop_begin's end and loop_end's begin
  int64_t count = 1;                 // loop
  int counter = -1;                  // loop: the value that holds the round's number, or -1
  std::string place;                 // "block.3: %p = einsum ..." for messages
};

struct Flat {
  std::vector<FlatValue> values;
  std::vector<FlatStep> steps;
  std::vector<int> params, results;  // of main, in order; results without those in place
};

// Requires Level::local.
Flat flatten(const Program& local, Rank rank);

}  // namespace meshard
