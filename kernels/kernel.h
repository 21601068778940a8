// A kernel computes one op on one device's blocks. It has two halves: prepare() looks at the shapes once and says what
// workspace it needs (the memory plan counts it); the `run` it gives back only computes: no allocation, no look-up.
//
//   Prepared p = reference::softmax(spec);
//   p.run({.operands = {x}, .results = {y}, .workspace = scratch});
//
// An op's dimensions are made of factors (see ir/rule.h). A kernel is told, for each factor, its local size, its global
// size and the global index where this block begins, so that causal masks, vocabulary-split tables, iota and random
// numbers are right under any split. A kernel must give every element a value that does not depend on where in a block
// it sits.
// Accumulation is in f32 for f32, bf16 and f16, in f64 for f64.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/attributes.h"
#include "meshard/base/shape.h"

namespace meshard {

struct KernelFactor {
  std::string_view name;
  int64_t size = 1;    // local
  int64_t global = 1;  // of the whole tensor
  int64_t begin = 0;   // first global index held here
};

struct KernelOperand {
  Type type;                           // local shape
  std::vector<std::vector<int>> dims;  // each dimension's factors, major first; none: a repeated one of size 1
  // Where the block begins in each dimension, for dimensions with a size of their own ("t~" in the rule), of which it
  // holds all that is read. Empty: from 0 on.
  std::vector<int64_t> begin;
  std::vector<int64_t> global;  // the whole operand's sizes, beside `begin`; empty: as the block's

  int64_t begin_of(size_t d) const { return begin.empty() ? 0 : begin[d]; }
  int64_t global_of(size_t d) const { return global.empty() ? type.shape.dims[d] : global[d]; }
};

struct KernelSpec {
  std::deque<std::string> names;  // what the factors' names point into, where the maker of the spec keeps them here
  const Attributes* attributes = nullptr;
  std::vector<KernelFactor> factors;
  std::vector<KernelOperand> operands, results;
  int threads = 1;

  const KernelFactor& factor(std::string_view name) const;  // InternalError if the rule has no such factor
};

struct KernelCall {
  std::span<void* const> operands, results;  // row-major contiguous blocks in the spec's order, aligned to 64 bytes
  void* workspace = nullptr;                 // `workspace_bytes`, aligned to 64
  void* stream = nullptr;                    // of a device kernel: where its work is put (backend/backend.h)
};

struct Prepared;

// A call among those that are made together.
struct KernelMember {
  const Prepared* kernel = nullptr;
  KernelCall call;
};

// One `run` at a time: it may keep what the next run writes over.
struct Prepared {
  int64_t workspace_bytes = 0;
  std::function<void(const KernelCall&)> run;
  // A device's kernel without a workspace, of which many small calls are better put on a stream as one: all `members`, whose
  // kernels have the same run_many, and none of which writes what another reads or writes. Null: each is put by itself.
  void (*run_many)(std::span<const KernelMember> members, void* stream) = nullptr;
  std::shared_ptr<const void> member;  // what run_many has to know of this kernel
};

using PrepareFn = Prepared (*)(const KernelSpec&);

}  // namespace meshard
