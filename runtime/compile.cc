#include "meshard/runtime/compile.h"

#include <algorithm>
#include <chrono>

#include "meshard/ir/parse.h"
#include "meshard/runtime/executor.h"
#include "meshard/sharding/lower.h"
#include "meshard/sharding/pin.h"
#include "meshard/sharding/propagate.h"
#include "meshard/sharding/strict.h"

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
  passes.push_back({"partition", Level::local, [&](const Program& p) {
                      if (options.keep_closed) out.closed = p;
                      return partition(p, {}, &origins);
                    }});
  out.global = program;
  out.local = run_passes(std::move(program), passes, options.passes, &out.times);
  finish(out, options);
  if (options.keep_closed) out.origins = std::move(origins);
  return out;
}

Compiled run(const Program& program, const Plan* plan, const Mesh& mesh, const CompileOptions& options) {
  if (plan == nullptr) return run_pipeline(program, {}, options);
  return run_pipeline(program, {{"pin", Level::traced, [&](const Program& p) { return pin(p, *plan, mesh); }}}, options);
}

// The pipeline, and what the mode says of its result. What a stricter mode refuses is planned again with other layouts, for the
// error to say what each would cost.
Compiled compile_in_mode(const Program& program, const Plan* plan, const std::optional<Mesh>& given, const CompileOptions& options) {
  constexpr int64_t kWarnBytes = 1 << 20;
  const auto bound = [&](const Plan* p) { return p == nullptr ? Mesh() : p->bind(given); };
  if (options.partition.mode == Mode::automatic) {
    Compiled out = run(program, plan, bound(plan), options);
    const auto large = [](const BillLine& line) { return line.bytes >= kWarnBytes; };
    if (!options.account || std::none_of(out.bill.lines.begin(), out.bill.lines.end(), large)) return out;
    out.warnings = reshard_warnings(explain({.local = &out.local, .bill = &out.bill, .cost = {}, .least_bytes = kWarnBytes}));
    return out;
  }
  CompileOptions keeping = options;
  keeping.keep_closed = true;
  keeping.account = true;
  Compiled out = run(program, plan, bound(plan), keeping);
  CompileOptions again;
  again.threads = options.threads;
  const Replan replan = [&](const Program& p, const Plan* with) { return run(p, with, bound(with), again).bill; };
  const Explanations all = explain({&out.closed, &out.origins, &out.local, &out.bill, {}, 0});
  enforce(options.partition, all, out.closed, program, plan, replan);
  return out;
}

}  // namespace

Compiled compile(const Program& program, const Plan& plan, const std::optional<Mesh>& mesh, const CompileOptions& options) {
  return compile_in_mode(program, &plan, mesh, options);
}

Compiled compile(const Program& program, const CompileOptions& options) { return compile_in_mode(program, nullptr, {}, options); }

Compiled compile_local(const Program& local, const CompileOptions& options) {
  verify(local, Level::local);
  Compiled out;
  out.global = local;
  out.local = local;
  finish(out, options);
  return out;
}

}  // namespace meshard
