#include "meshard/runtime/compile.h"

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
  if (!options.account && !talks(out.local)) return out;
  out.bill = make_bill(out.local);
  if (!options.account) {
    out.digest_text = print(out.local);
    return out;
  }
  out.bill.peak_bytes = largest_peak_bytes(out.local, options.threads);
  out.digest_text = print(out.local);
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
  out.bill = make_bill(out.local);
  out.bill.peak_bytes = largest_peak_bytes(out.local, options.threads);
  out.digest_text = print(out.local);
  return out;
}

}  // namespace meshard
