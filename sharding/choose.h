// choose: under which split of its factors each op runs, and in which layout each value that nobody pinned is made, handed to a
// function and returned, so that the whole program moves the least bytes, summed over all devices, forward, backward and all
// uses together.
//
//   Choices choices = choose(closed);
//   choices.functions[f].ops[i].split        // of op i
//   choices.bytes, choices.bound, choices.proved()
//
// The search (docs/ARCHITECTURE.md has its complexity). Every op has labels: the legal assignments of axes to its factors, each with
// or without a pending sum passing through linear operands. A value costs the least bytes for making all the copies that its
// readers need from what its maker gives; a function counts as often as it is called, and is one set of labels for all its calls.
// For one axis at a time, all others held, the least sum over all labels is found exactly, by elimination (min_sum.h); axis after
// axis, then prime factor after prime factor, until nothing falls, from several orders. Where the program is small, all axes are
// then searched jointly, which also proves the least: `bound` says how far from it the answer can be.
//
// What binds: pinned layouts; a parameter's `use` (consumed as it is or sliced, never gathered further); no option may leave a device
// more of an op's work than the propagated layouts do (adding up pending sums aside), or make a value with a larger block than the
// largest under propagation. Ties go to fewer messages, then to less work and memory together, then to what propagation said.
#pragma once

#include <string>
#include <vector>

#include "meshard/ir/program.h"
#include "meshard/layout/reshard.h"

namespace meshard {

struct OpChoice {
  OpSplit split;
  int linear_group = -1;   // through which pending sums pass
  bool parts = false;      // an operand of that group that is whole is taken in parts: all on the first device, zeros elsewhere
  std::vector<Layout> operands, results;
};

// How the copies of a value are made: each from an earlier one, or (-1) from the value as it is made.
struct CopyChoice {
  Layout layout;
  int parent = -1;
};

struct FunctionChoice {
  std::vector<OpChoice> ops;                     // by op; empty for calls, roles and ops without operands
  std::vector<Layout> params, returns;
  std::vector<std::vector<CopyChoice>> copies;   // by value
};

struct Choices {
  std::vector<FunctionChoice> functions;
  int64_t bytes = 0;        // received in one run of main, over all devices
  int64_t bound = 0;        // no choice of labels moves less
  int64_t propagated = 0;   // what the propagated layouts would move
  bool proved() const { return bytes <= bound; }
};

struct ChooseOptions {
  bool joint = true;             // search all axes jointly where tables have at most joint_cells cells
  int64_t joint_cells = 1 << 22;
};

// Requires closed layouts (propagate).
Choices choose(const Program& program, const ChooseOptions& options = {});

// Another way to run one op, everything else then chosen anew.
struct Alternative {
  OpChoice choice;
  std::string text;         // "b over data, i over model": the factors that are split; "whole"
  int64_t bytes = 0;        // of the whole program, over all devices
};
// The ways of op `op` of function `function`, the cheapest first.
std::vector<Alternative> alternatives(const Program& program, int function, int op, const ChooseOptions& options = {});

}  // namespace meshard
