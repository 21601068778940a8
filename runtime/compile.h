// compile: the pipeline on one page. From the global program and a plan to what each rank runs:
//
//   pin -> propagate -> lower -> partition -> optimize (fold, share, shorten, drop, onto, epilogue, bucket) -> flatten -> plan memory
//
//   Compiled step = compile(trace.program(), plan, Mesh::parse("data=2, model=2"));
//   fmt::print("{}", step.bill.table(false));
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meshard/ir/mixed.h"
#include "meshard/ir/pass.h"
#include "meshard/layout/plan.h"
#include "meshard/sharding/bill.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/partition.h"
#include "meshard/sharding/propagate.h"

namespace meshard {

class Backend;  // backend/backend.h

struct CompileOptions {
  PartitionOptions partition;
  OptimizeOptions optimize;
  // Narrow values and f32 beside them (ir/mixed.h), before all other passes; nullopt: as traced.
  std::optional<MixedOptions> mixed;
  PassOptions passes;  // passes.skip: also a single rewrite of optimize, by its name
  // What a device has; 0: no limit. A step that needs more gathers values again instead of keeping them, as few as do it;
  // if that is not enough, it is an error that names both numbers.
  int64_t memory_bytes = 0;
  int threads = 1;  // of each kernel: workspaces depend on it
  Backend* backend = nullptr;  // whose kernels run it; null: the host's
  bool account = true;  // false: bill and digest_text only where it talks, and no peak
  bool keep_closed = false;  // keep what explain reads: Compiled::closed and origins
};

struct Compiled {
  Program global;    // as traced, pinned; of mixed precision with its casts
  Program local;     // what every rank runs
  Bill bill;         // peak_bytes is set
  std::vector<Diagnostic> warnings;  // in Mode::automatic: large changes of layout that cost more than they need
  Program closed;    // with every layout, before partition, and whence each axis came; only with keep_closed
  Origins origins;
  std::string digest_text;  // compared across ranks before the first collective
  std::vector<PassTime> times;  // of the passes, then bill, memory plan and text
};

// `mesh` overrides the plan's. Errors are UserErrors naming the plan's or the program's line.
Compiled compile(const Program& program, const Plan& plan, const std::optional<Mesh>& mesh = {}, const CompileOptions& options = {});
// For a program text with layouts of its own and a mesh line.
Compiled compile(const Program& program, const CompileOptions& options = {});
// A local program as it stands (already partitioned).
Compiled compile_local(const Program& local, const CompileOptions& options = {});

}  // namespace meshard
