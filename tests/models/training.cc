#include "meshard/tests/models/training.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <memory>

#include "meshard/collectives/lockstep.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/executor.h"
#include "meshard/runtime/simulate.h"

namespace meshard {
namespace {

// Words drawn from a few, so that there is something to learn; now and then any token, so that every row of the
// vocabulary is met.
std::vector<int32_t> made_up_text(int64_t step, int64_t count, int64_t vocab) {
  std::vector<int32_t> out;
  uint64_t s = 0x9E3779B97F4A7C15u * static_cast<uint64_t>(step + 1);
  const auto draw = [&](uint64_t below) {
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return (s >> 11) % below;
  };
  const std::string_view words[] = {"mesh ", "axis ", "layout ", "device ", "the ", "of a ", "rank. "};
  while (static_cast<int64_t>(out.size()) < count) {
    for (char c : words[draw(std::size(words))]) out.push_back(c);
    if (draw(4) == 0) out.push_back(static_cast<int32_t>(draw(static_cast<uint64_t>(vocab))));
  }
  out.resize(static_cast<size_t>(count));
  return out;
}

Program trace_job(const Job& job) {
  Trace trace(op_table(), job.dtype);
  trace_train_step(trace, model_config(job.model), job.batch, job.seq, {.loss_scale = job.loss_scale}, job.accumulate);
  return trace.program();
}

// Row r of the targets is row r of the tokens, one token later.
void feed(Executor& e, const Job& job, const Program& program, int64_t step) {
  const int64_t vocab = model_config(job.model).vocab;
  const std::vector<int32_t> text = made_up_text(step, job.batch * (job.seq + 1), vocab);
  std::vector<int32_t> tokens, targets;
  for (int64_t b = 0; b < job.batch; ++b) {
    const auto row = text.begin() + b * (job.seq + 1);
    tokens.insert(tokens.end(), row, row + job.seq);
    targets.insert(targets.end(), row + 1, row + 1 + job.seq);
  }
  const Function& main = program.main();
  e.set_input("tokens", View{tokens.data(), Dtype::i32, main.value(main.find("tokens")).type.shape});
  e.set_input("targets", View{targets.data(), Dtype::i32, main.value(main.find("targets")).type.shape});
  e.set_scalar("rate", 1e-3);
  e.set_scalar("step", static_cast<double>(step + 1));
}

// On one device, which has all of every value.
void set_states(State& state, const std::map<std::string, std::vector<double>>& values) {
  for (const auto& [name, numbers] : values) {
    Buffer bytes(state.find(name)->type.bytes());
    write_doubles(numbers.data(), View{bytes.data(), state.find(name)->type.dtype, state.find(name)->type.shape});
    state.write(name, 0, bytes.data());
  }
}

}  // namespace

std::string Job::name() const {
  return fmt::format("{}, plan {}, mesh {}, {}, batch {}, seq {}, accumulate {}", model, plan.empty() ? "none" : plan,
                     plan.empty() ? "none" : mesh, meshard::name(mixed ? narrow : dtype), batch, seq, accumulate);
}

Compiled compile_job(const Job& job) {
  const Program program = trace_job(job);
  CompileOptions options;
  options.backend = job.backend;
  if (job.mixed) options.mixed = MixedOptions{.narrow = job.narrow, .keep_f32 = job.keep_f32};
  if (job.plan.empty()) return compile(without_layouts(program), options);
  return compile(program, Plan::parse(*builtin_plan(job.plan), job.plan + ".plan"), Mesh::parse(job.mesh), options);
}

Outcome train_job(const Job& job) {
  const Compiled compiled = compile_job(job);
  const auto devices = static_cast<int>(compiled.bill.mesh.size());
  const auto owned = lockstep_communicators(devices, job.backend);
  std::vector<Communicator*> comms;
  std::vector<Rank> ranks;
  for (const auto& c : owned) {
    comms.push_back(c.get());
    ranks.push_back(c->rank());
  }
  State state(compiled.local, ranks, job.backend);
  state.init(/*seed=*/7);
  if (job.start_from != nullptr) set_states(state, *job.start_from);
  Outcome out;
  for (const StateEntry& e : state.entries()) out.first[e.name] = state.gather(e.name);
  Executor executor(compiled, &state, comms, {.backend = job.backend, .graph = job.graph});
  for (int64_t step = job.begin; step < job.steps; ++step) {
    feed(executor, job, compiled.global, step);
    executor.run();
    out.losses.push_back(executor.scalar("loss"));
    out.grad_norms.push_back(executor.scalar("grad_norm"));
    if (job.loss_scale) out.scales.push_back(state.gather("loss_scale")[0]);
  }
  for (const StateEntry& e : state.entries()) out.last[e.name] = state.gather(e.name);
  for (int d = 0; d < devices; ++d) {
    out.received.push_back(comms[static_cast<size_t>(d)]->received_bytes());
    out.allocated.push_back(executor.allocated_bytes(d));
    out.planned.push_back(executor.memory(d).peak_bytes());
  }
  out.bill = compiled.bill;
  return out;
}

double largest_difference(const std::vector<double>& losses, const std::vector<double>& expected) {
  if (losses.size() != expected.size() || losses.empty()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    const double difference = std::abs(losses[i] - expected[i]) / std::abs(expected[i]);
    if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

std::string disagreement(const Job& job, const Outcome& run, const Outcome& one) {
  std::string out;
  if (run.first.size() != one.first.size())
    out += fmt::format("{} parameters and states, one device has {}\n", run.first.size(), one.first.size());
  for (const auto& [name, values] : run.first) {
    const auto it = one.first.find(name);
    if (it == one.first.end()) {
      out += fmt::format("one device has no %{}\n", name);
    } else if (values != it->second) {
      out += fmt::format("%{} begins with other values than on one device\n", name);
    }
  }
  int64_t largest_peak = 0;
  for (size_t d = 0; d < run.received.size(); ++d) {
    if (const int64_t billed = job.steps * run.bill.device_bytes[d]; run.received[d] != billed) {
      out += fmt::format("device {} received {} bytes, billed are {}\n", d, run.received[d], billed);
    }
    if (run.allocated[d] != run.planned[d])
      out += fmt::format("device {} allocated {} bytes, planned are {}\n", d, run.allocated[d], run.planned[d]);
    largest_peak = std::max(largest_peak, run.allocated[d]);
  }
  if (largest_peak != run.bill.peak_bytes)
    out += fmt::format("the largest device allocated {} bytes, the bill says {}\n", largest_peak, run.bill.peak_bytes);
  return out;
}

std::vector<std::string> meshes(std::string_view plan, int64_t devices) {
  if (plan == "tensor" || plan == "tensor_sequence") return {fmt::format("model={}", devices)};
  if (plan != "data_tensor" && plan != "tensor_zero3") return {fmt::format("data={}", devices)};
  std::vector<std::string> out;
  for (int64_t data = 1; data <= devices; ++data) {
    const int64_t model = devices / data;
    if (data * model != devices) continue;
    // 1 x n and n x 1 for the small ones only: those of one axis are like the plans of one axis.
    if (devices > 3 && (data == 1 || model == 1)) continue;
    out.push_back(fmt::format("data={}, model={}", data, model));
  }
  return out;
}

}  // namespace meshard
