#include "meshard/runtime/compile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

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
    timed("plan memory", [&] { out.bill.peak_bytes = largest_peak_bytes(out.local, options.threads, options.backend); });
  }
  timed("print local", [&] { out.digest_text = print(out.local); });
}

// A rewrite that is not on need not be left out.
PassOptions without_absent(PassOptions options, const std::vector<Pass>& passes) {
  if (options.skip.empty()) return options;
  const std::vector<std::string> rewrites = optimize_names();
  std::erase_if(options.skip, [&](const std::string& name) {
    const auto is_it = [&](const Pass& pass) { return pass.name == name; };
    return std::find(rewrites.begin(), rewrites.end(), name) != rewrites.end() && std::none_of(passes.begin(), passes.end(), is_it);
  });
  return options;
}

// The passes behind `pin`, the same for models with a plan and for program texts.
Compiled run_once(Program program, std::vector<Pass> passes, const CompileOptions& options) {
  Compiled out;
  Origins origins;
  passes.push_back({"propagate", Level::closed, [&](Program p) { return propagate(std::move(p), &origins); }});
  passes.push_back({"lower", Level::closed, [&](Program p) {
                      bool changed = false;
                      const Program closed = options.keep_closed ? p : Program();
                      Program lowered = lower(std::move(p), &changed);
                      if (!changed) return lowered;
                      const Origins before = std::exchange(origins, Origins());
                      Program again = propagate(std::move(lowered), &origins);
                      if (options.keep_closed) origins.fill_in(before, closed, again);
                      return again;
                    }});
  passes.push_back({"partition", Level::local, [&](const Program& p) {
                      if (options.keep_closed) out.closed = p;
                      return partition(p, &origins);
                    }});
  for (Pass& pass : optimize_passes(options.optimize)) passes.push_back(std::move(pass));
  out.global = program;
  out.local = run_passes(std::move(program), passes, without_absent(options.passes, passes), &out.times);
  finish(out, options);
  if (options.keep_closed) out.origins = std::move(origins);
  return out;
}

// The step in the memory that a device has: with as few gathers repeated as do it.
Compiled run_pipeline(const Program& program, const std::vector<Pass>& passes, const CompileOptions& options) {
  Compiled best = run_once(program, passes, options);
  const int64_t kept = best.bill.peak_bytes;
  if (options.memory_bytes == 0 || kept <= options.memory_bytes) return best;
  // Gaps are counted where nothing is put together yet, as regather sees them.
  CompileOptions apart = options;
  apart.optimize.bucket_bytes = 0;
  apart.optimize.overlap = false;
  const bool may = options.optimize.on && std::find(options.passes.skip.begin(), options.passes.skip.end(), "regather") == options.passes.skip.end();
  int64_t low = 0, high = may ? gaps_to_regather(run_once(program, passes, apart).local) : 0;  // low is too few
  const auto attempt = [&](int64_t count) {
    CompileOptions again = options;
    again.optimize.regather = count;
    return run_once(program, passes, again);
  };
  if (high > 0) best = attempt(high);
  if (best.bill.peak_bytes > options.memory_bytes) {
    throw UserError(fmt::format("the step needs {} bytes on a device and has {}{}; split more values, or take a smaller batch", best.bill.peak_bytes,
                                options.memory_bytes, high > 0 ? fmt::format(", although {} gathers are repeated ({} bytes without)", high, kept) : ""));
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    Compiled step = attempt(middle);
    if (step.bill.peak_bytes <= options.memory_bytes) {
      best = std::move(step);
      high = middle;
    } else {
      low = middle;
    }
  }
  return best;
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
  // What is written is asked of each collective by itself, before some of them go together or become others.
  const bool each = options.partition.mode == Mode::explicit_only;
  CompileOptions keeping = options;
  keeping.keep_closed = true;
  keeping.account = true;
  if (each) keeping.optimize.on = false, keeping.memory_bytes = 0;
  Compiled out = run(program, plan, bound(plan), keeping);
  CompileOptions again;
  again.threads = options.threads;
  again.optimize = keeping.optimize;
  again.passes.skip = options.passes.skip;
  again.backend = options.backend;
  const Replan replan = [&](const Program& p, const Plan* with) { return run(p, with, bound(with), again).bill; };
  const Explanations all = explain({&out.closed, &out.origins, &out.local, &out.bill, {}, 0});
  enforce(options.partition, all, out.closed, program, plan, replan);
  if (each && options.optimize.on) return run(program, plan, bound(plan), options);
  return out;
}

Program mix(const Program& program, const MixedOptions& options) {
  Program out = mixed(program, options);
  verify(out, Level::traced);
  return out;
}

}  // namespace

Compiled compile(const Program& program, const Plan& plan, const std::optional<Mesh>& mesh, const CompileOptions& options) {
  return options.mixed ? compile_in_mode(mix(program, *options.mixed), &plan, mesh, options) : compile_in_mode(program, &plan, mesh, options);
}

Compiled compile(const Program& program, const CompileOptions& options) {
  return options.mixed ? compile_in_mode(mix(program, *options.mixed), nullptr, {}, options) : compile_in_mode(program, nullptr, {}, options);
}

Compiled compile_local(const Program& local, const CompileOptions& options) {
  verify(local, Level::local);
  Compiled out;
  out.global = local;
  out.local = local;
  finish(out, options);
  return out;
}

}  // namespace meshard
