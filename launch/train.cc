#include "meshard/launch/train.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "meshard/collectives/lockstep.h"
#include "meshard/launch/device.h"
#include "meshard/launch/draw.h"
#include "meshard/launch/generate.h"
#include "meshard/launch/not_finite.h"
#include "meshard/launch/progress.h"
#include "meshard/launch/report.h"
#include "meshard/launch/text_data.h"
#include "meshard/launch/trace_file.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/executor.h"
#include "meshard/runtime/profile.h"
#include "meshard/runtime/simulate.h"

namespace meshard {
namespace {

using Json = nlohmann::ordered_json;

// Sums of bytes end here: more than any machine has, and far from an overflow.
constexpr int64_t kMostBytes = int64_t{1} << 60;

// The programs of a run, which share one State, and the whole model's step on one device, to compare with.
struct Programs {
  Compiled step, validate, alone;
  GeneratorPrograms sample;
};

// The batch's tokens under one input's shape: [batch, seq], or [micro, batch / micro, seq].
void feed(Executor& e, const Program& p, const Batch& batch) {
  for (const auto& [name, data] : {std::pair{"tokens", &batch.tokens}, {"targets", &batch.targets}}) {
    const ValueId v = p.main().find(name);
    if (v == ValueId::none) continue;
    e.set_input(name, View{const_cast<int32_t*>(data->data()), Dtype::i32, p.main().value(v).type.shape});
  }
}

Program trace_validation(const TrainOptions& o) {
  Trace trace(op_table(), o.dtype);
  trace_eval_step(trace, o.model, o.batch, o.seq);
  return trace.program();
}

Program trace_step(const TrainOptions& o) {
  Trace trace(op_table(), o.dtype);
  trace_train_step(trace, o.model, o.batch, o.seq, o.optimizer, o.accumulate);
  return trace.program();
}

// Every line of a plan has to match something in the training step; validation and sampling have fewer names.
Plan with_optional_lines(const Plan& plan) { return plan.all_optional(); }

Programs compile_all(const TrainOptions& o, bool first) {
  const CompileOptions& options = o.compile;
  Programs p;
  p.step = compile(trace_step(o), o.plan, o.mesh, options);
  const Plan lenient = with_optional_lines(o.plan);
  CompileOptions parts = options;
  if (parts.mixed) parts.mixed->optional = true;
  if (o.validate > 0) p.validate = compile(trace_validation(o), lenient, o.mesh, parts);
  if (o.sample > 0) {
    ModelConfig model = o.model;
    if (model.family == ModelConfig::gpt) model.context = o.seq;  // as many learned positions as it was trained with
    CompileOptions whole = options;  // reads parameters and caches as they are kept, once for each byte: a cast would be a pass more
    whole.mixed.reset();
    p.sample = compile_generator(model, o.plan, o.mesh, {.length = o.seq, .dtype = o.dtype, .compile = whole});
  }
  if (o.compare > 0 && first) p.alone = compile(without_layouts(trace_step(o)), {.mixed = options.mixed, .threads = o.threads});
  return p;
}

// What else all ranks must have been started with: other values would train on different data, or wait for one another.
std::string settings(const TrainOptions& o, const TextData& text) {
  return fmt::format("--model {}\n--batch {}\n--seq {}\n--steps {}\n--accumulate {}\n--seed {}\n--rate {}\n--warmup {}\n--validate {}\n"
                     "--sample {}\n--compare {}\n--dtype {}\n{}--text of {} bytes, digest {:016x}\n",
                     o.model.name, o.batch, o.seq, o.steps, o.accumulate, o.seed, o.schedule.rate, o.schedule.warmup_steps, o.validate,
                     o.sample, o.compare, name(o.compile.mixed ? o.compile.mixed->narrow : o.dtype), o.tf32 ? "--tf32\n" : "", text.train_bytes() + text.held_out_bytes(), text.digest());
}

ExecutorOptions executor_options(const TrainOptions& o) {
  return {.threads = o.threads, .backend = o.compile.backend, .graph = o.graph};
}

// Refuses a run that this host's memory, or its device's, can't hold, before anything is allocated.
void check_memory(Job& job, const TrainOptions& o, const Programs& programs) {
  if (o.compile.backend != nullptr) {
    return check_device_memory(job, *o.compile.backend, programs.step, o.lockstep ? programs.step.bill.mesh.size() : 1);
  }
  const Compiled& step = programs.step;
  const int64_t devices = o.lockstep ? step.bill.mesh.size() : 1;
  int64_t mine = 0;
  if (__builtin_mul_overflow(step.bill.peak_bytes, devices, &mine)) mine = kMostBytes;
  // What is compared with runs last, when the shards are given back.
  mine = std::min(kMostBytes, std::max(mine, programs.alone.bill.peak_bytes));
  int64_t wanted = 0;
  int ranks = 0;
  for (const std::string& line : job.gather(fmt::format("{} {}", Job::host(), mine))) {
    const size_t space = line.rfind(' ');
    if (line.substr(0, space) != Job::host()) continue;
    wanted = std::min<int64_t>(kMostBytes, wanted + std::stoll(line.substr(space + 1)));
    ++ranks;
  }
  const int64_t free = Job::available_bytes();
  std::string error;
  if (wanted > free) {
    const bool alone = programs.alone.bill.peak_bytes == mine;
    error = fmt::format("the run needs {} on host {} ({} x {} a device{}), but {} are free; take a smaller --batch, --seq or model, {}",
                        bytes_text(wanted), Job::host(), ranks * devices, bytes_text(step.bill.peak_bytes),
                        alone ? fmt::format("; --compare runs the whole model in {}", bytes_text(programs.alone.bill.peak_bytes)) : "",
                        bytes_text(free), alone ? "or leave out --compare" : "or a mesh and plan that split more");
  }
  job.agree(error);
}

double held_out_loss(Executor& e, const Program& p, const TextData& text, const TrainOptions& o) {
  double sum = 0;
  for (int64_t i = 0; i < o.validate; ++i) {
    feed(e, p, text.held_out_batch(i, o.validate, o.batch, o.seq));
    e.run();
    sum += e.scalar("loss");
  }
  return sum / static_cast<double>(o.validate);
}

// Bytes drawn one after another from softmax(logits / temperature), the same on all ranks.
std::string generate(Generator& g, const TrainOptions& o) {
  constexpr double kTemperature = 0.8;
  std::vector<int32_t> seen{'\n'};
  std::vector<double> logits = g.feed(seen);
  std::string out;
  for (int64_t i = 0; i < o.sample; ++i) {
    logits.resize(256);  // of a larger vocabulary only the bytes are drawn
    double largest = -INFINITY, sum = 0;
    for (double x : logits) largest = std::max(largest, x);
    for (double& x : logits) sum += x = std::exp((x - largest) / kTemperature);
    double u = random_unit(o.seed, Stream::sample, static_cast<uint64_t>(i)) * sum;
    int32_t token = 0;
    while (token < 255 && (u -= logits[static_cast<size_t>(token)]) > 0) ++token;
    out.push_back(static_cast<char>(token));
    seen.push_back(token);
    if (i + 1 == o.sample) break;
    if (g.room() > 0) {
      logits = g.feed({&token, 1});
    } else {  // the model sees no further back than it was trained to: it goes on from half of that
      g.reset();
      logits = g.feed(std::span(seen).last(static_cast<size_t>((o.seq + 1) / 2)));
    }
  }
  return out;
}

// The first losses of the same training on one device, run by this process alone.
std::vector<double> one_device_losses(const TrainOptions& o, const Compiled& step, const TextData& text, int64_t steps) {
  auto comms = lockstep_communicators(1);
  Communicator* const comm = comms[0].get();
  State state(step.local, {Rank{0}});
  state.init(o.seed, o.threads);
  Executor e(step, &state, std::span(&comm, 1), {.threads = o.threads});
  std::vector<double> losses;
  for (int64_t i = 0; i < steps; ++i) {
    feed(e, step.global, text.train_batch(o.seed, i, o.batch, o.seq));
    e.set_scalar("rate", learning_rate(i, o.schedule));
    e.set_scalar("step", static_cast<double>(i + 1));
    e.run();
    losses.push_back(e.scalar("loss"));
  }
  return losses;
}

bool print_comparison(const std::vector<double>& ours, const std::vector<double>& one, double tolerance) {
  fmt::print("\nlosses of the first {} steps, this run and one device alone:\n", one.size());
  double worst = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    worst = std::max(worst, std::abs(ours[i] - one[i]) / std::abs(one[i]));
    fmt::print("  {:>3}  {:.6f}  {:.6f}{}", i + 1, ours[i], one[i], i % 2 == 1 ? "\n" : "   |");
  }
  if (one.size() % 2 == 1) fmt::print("\n");
  fmt::print("largest relative difference {:.2e}: {}\n", worst, worst <= tolerance ? "equal" : "NOT EQUAL");
  return worst <= tolerance;
}

}  // namespace

int train(Job& job, const TrainOptions& o) {
  const auto begin = std::chrono::steady_clock::now();
  Programs programs;
  TextData text;
  std::string error;
  try {
    text = TextData::read(o.text);
    text.check(o.batch, o.seq);
    if (o.model.vocab < 256) throw UserError(fmt::format("the vocabulary has {} tokens, a text of bytes needs 256; write vocab=256 or more", o.model.vocab));
    programs = compile_all(o, job.first());
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  const Compiled& step = programs.step;
  std::span<Communicator* const> devices;
  try {
    devices = job.devices(step.bill.mesh.size(), o.lockstep, step.bill.mesh.str(), o.compile.backend);
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  agree_on_text(*devices[0], "run", settings(o, text));
  agree_on_text(*devices[0], "program", step.digest_text);
  check_memory(job, o, programs);

  std::ofstream log;
  if (!o.log.empty() && job.first()) {
    log.open(o.log, std::ios::trunc);
    if (!log) error = fmt::format("cannot write the log {}; check the folder and its permissions", o.log);
  }
  std::ofstream trace;
  if (!o.trace.empty() && job.first()) {
    trace.open(o.trace, std::ios::trunc);
    if (!trace) error = fmt::format("cannot write the trace {}; check the folder and its permissions", o.trace);
  }
  job.agree(error);
  if (job.first()) print_warnings(step);
  const double flops_per_token = train_flops_per_token(o.model, o.seq);
  if (job.first()) {
    print_plan(o.model, o.plan.file(), step, o.batch, o.seq, flops_per_token);
    if (log.is_open()) log << log_header(o.model, o.plan, step, o.batch, o.seq, o.seed, flops_per_token) << std::flush;
  }

  std::vector<Rank> ranks;
  for (Communicator* c : devices) ranks.push_back(c->rank());
  std::optional<State> state(std::in_place, step.local, ranks, o.compile.backend);
  const auto init_begin = std::chrono::steady_clock::now();
  state->init(o.seed, o.threads);
  const double initial_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - init_begin).count();
  std::optional<Executor> e(std::in_place, step, &*state, devices, executor_options(o));
  if (job.first()) {
    const auto since = [&](auto from) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count(); };
    if (o.compile.backend != nullptr) fmt::print("on {}\n", o.compile.backend->text());
    fmt::print("ready after {:.2f} s, {:.2f} s of them for the first values; {} bytes of text, {} held out\n\n", since(begin), initial_seconds,
               text.train_bytes(), text.held_out_bytes());
    std::fflush(stdout);
  }

  // The first steps touch memory for the first time. A step that is captured as a graph has no ops to time: some are made op
  // by op before.
  const int64_t warm = o.steps > 4 ? 2 : 0, traced = o.trace.empty() ? 0 : o.trace_steps;
  const bool graphs = o.compile.backend != nullptr && o.graph;
  const int64_t profiled = graphs ? std::min(o.steps, warm + std::max<int64_t>(traced, warm > 0 ? 2 : 1)) : o.steps;
  Profile profile(*e, {.events_from = warm, .events_until = warm + traced, .sums_from = warm});
  e->set_profile(&profile);
  const int64_t tokens_per_step = o.batch * o.seq;
  Progress progress(o.steps, tokens_per_step, job.first());
  std::vector<double> losses;
  const int64_t received_before = devices[0]->received_bytes();
  bool stopped = false;
  int64_t done = 0, runs_again = 0;
  std::vector<double> captured;  // seconds of the steps that were replayed
  auto batch = text.train_batch(o.seed, 0, o.batch, o.seq);
  job.stop_on_signals();
  for (; done < o.steps && !stopped; ++done) {
    if (done == profiled) e->set_profile(nullptr);
    feed(*e, step.global, batch);
    const double rate = learning_rate(done, o.schedule);
    e->set_scalar("rate", rate);
    e->set_scalar("step", static_cast<double>(done + 1));
    const int64_t before = devices[0]->received_bytes();
    e->run();
    // A backend works while the host makes the next batch.
    if (done + 1 < o.steps) batch = text.train_batch(o.seed, done + 1, o.batch, o.seq);
    const int64_t received_in_step = devices[0]->received_bytes() - before;
    const auto scalar = [&](const char* name) {
      const double value = e->scalar(name);
      return std::isnan(value) ? NAN : value;  // without its sign
    };
    const double loss = scalar("loss"), grad_norm = scalar("grad_norm");
    const bool skipped = !std::isfinite(loss) || !std::isfinite(grad_norm);
    if (skipped && !o.optimizer.loss_scale) end_not_finite(job, *e, done, loss, grad_norm);
    if (skipped) {
      e->set_profile(nullptr);
      report_skipped(job, *e, *state, done, loss, grad_norm);
      if (done < profiled) e->set_profile(&profile);
      ++runs_again;
    }
    losses.push_back(loss);
    const double seconds = progress.step(done, loss, grad_norm, rate);
    if (done > profiled + 1) captured.push_back(seconds);  // the one before was captured, and the one before that began without
    if (log.is_open()) {
      Json line{{"step", done + 1}, {"loss", loss}, {"grad_norm", grad_norm}, {"learning_rate", rate}, {"step_seconds", seconds},
                {"tokens_per_second", static_cast<double>(tokens_per_step) / seconds},
                {"communication_bytes", received_in_step}, {"peak_bytes", e->allocated_bytes(0)}};
      if (o.optimizer.loss_scale) {
        line["skipped"] = skipped;
        line["next_loss_scale"] = state_number(*state, "loss_scale");
      }
      log << line.dump() << "\n" << std::flush;
    }
    // A rank that was told to stop takes the others with it, all after the same step.
    stopped = job.any_stop();
  }
  progress.finish();
  if (!o.trace.empty()) write_trace(job, profile, devices, step.bill.mesh.str(), trace);
  // Who was told to stop has little time: launchers kill soon after they ask.
  if (!stopped) report_steps(job, profile, *e, captured, o.threads, flops_per_token * static_cast<double>(tokens_per_step), o.compile.backend,
               o.compile.mixed ? o.compile.mixed->narrow : o.dtype);
  e.reset();  // validation, sample and comparison each take its memory in turn
  if (o.optimizer.loss_scale && job.first()) {
    fmt::print("loss scale {:.6g} at the end, {:.0f} of {} steps skipped\n", state_number(*state, "loss_scale"), state_number(*state, "loss_scale.skipped"), done);
  }
  if (stopped && job.first()) fmt::print("stopped after step {} by a signal\n", done);

  bool good = true;
  const int64_t received = devices[0]->received_bytes() - received_before;
  good &= report_communication(job, devices, step.bill, done + runs_again, received);
  if (stopped) return good ? 0 : 1;

  if (o.validate > 0) {
    Executor v(programs.validate, &*state, devices, executor_options(o));
    const double loss = held_out_loss(v, programs.validate.global, text, o);
    const double entropy = text.held_out_bigram_entropy();
    if (job.first()) {
      fmt::print("held-out loss {:.4f} nats a byte; byte-bigram entropy of the held-out text {:.4f}: {}\n", loss, entropy,
                 loss < entropy ? "the model has learned more than pairs of bytes" : "not below it yet");
    }
    if (log.is_open()) log << Json{{"held_out_loss", loss}, {"held_out_bigram_entropy", entropy}}.dump() << "\n" << std::flush;
  }
  if (o.sample > 0) {
    state->add(programs.sample.local());
    Generator g(programs.sample, *state, devices, executor_options(o));
    const std::string sample = generate(g, o);
    if (job.first()) fmt::print("\nsample:\n{}\n", printable(sample));
  }
  state.reset();
  if (o.compare > 0) {
    const auto count = std::min<int64_t>(o.compare, static_cast<int64_t>(losses.size()));
    std::string differs;
    if (job.first() && !print_comparison(losses, one_device_losses(o, programs.alone, text, count), o.compile.mixed || o.tf32 ? 1e-2 : o.dtype == Dtype::f64 ? 1e-9 : 1e-4)) differs = "differs";
    for (const std::string& s : job.gather(differs)) good &= s.empty();
  }
  std::fflush(stdout);
  return good ? 0 : 1;
}

}  // namespace meshard
