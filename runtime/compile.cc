#include "meshard/runtime/compile.h"

#include <chrono>

#include "meshard/ir/parse.h"
#include "meshard/runtime/executor.h"
#include "meshard/sharding/lower.h"
#include "meshard/sharding/pin.h"
#include "meshard/sharding/propagate.h"

namespace meshard {
namespace {

bool talks(const Program& local) {
  for (const Function& f : local.functions) {
    for (const Op& op : f.ops) {
      if (op.kind == Op::apply && op.def->collective && *op.def->collective != Collective::slice) return true;
    }
  }
  return false;
}

// What follows from the local program: bill, memory, text.
void finish(Compiled& out, const CompileOptions& options) {
  const auto timed = [&](const char* name, auto body) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    out.times.push_back({name, seconds.count()});
  };
  if (!options.account && !talks(out.local)) return;
  timed("bill", [&] { out.bill = make_bill(out.local); });
  if (options.account) {
    timed("plan memory", [&] { out.bill.peak_bytes = largest_peak_bytes(out.local, options.threads); });
  }
  timed("print local", [&] { out.digest_text = print(out.local); });
}

// The passes behind `pin`, the same for models with a plan and for program texts.
Compiled run_pipeline(Program program, std::vector<Pass> passes, const CompileOptions& options) {
  Compiled out;
  Origins origins;
  passes.push_back({"propagate", Level::closed, [&](const Program& p) { return propagate(p, &origins); }});
  passes.push_back({"lower", Level::closed, [&](const Program& p) {
                      bool changed = false;
                      Program lowered = lower(p, &changed);
                      if (!changed) return lowered;
                      origins = Origins();
                      return propagate(lowered, &origins);
                    }});
  passes.push_back({"partition", Level::local, [&](const Program& p) { return partition(p, options.partition, &origins); }});
  out.global = program;
  out.local = run_passes(std::move(program), passes, options.passes, &out.times);
  finish(out, options);
  return out;
}

}  // namespace

Compiled compile(const Program& program, const Plan& plan, const std::optional<Mesh>& mesh, const CompileOptions& options) {
  const Mesh bound = plan.bind(mesh);
  return run_pipeline(program, {{"pin", Level::traced, [&](const Program& p) { return pin(p, plan, bound); }}}, options);
}

Compiled compile(const Program& program, const CompileOptions& options) { return run_pipeline(program, {}, options); }

Compiled compile_local(const Program& local, const CompileOptions& options) {
  verify(local, Level::local);
  Compiled out;
  out.global = local;
  out.local = local;
  finish(out, options);
  return out;
}

}  // namespace meshard
