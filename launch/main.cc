// The meshard command: train | plan | partition | reshard | bench | launch. Exit status: 0 done, 1 a check failed, 2 the caller's error, 3 our bug.
#include <fmt/format.h>

#include <algorithm>

#include "meshard/ir/parse.h"
#include "meshard/launch/bench.h"
#include "meshard/launch/device.h"
#include "meshard/launch/options.h"
#include "meshard/launch/plan.h"
#include "meshard/launch/report.h"
#include "meshard/launch/reshard.h"
#include "meshard/launch/starter.h"
#include "meshard/launch/train.h"
#include "meshard/models/plans.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/explained.h"
#include "meshard/runtime/simulate.h"

namespace meshard {
namespace {

constexpr double kMost = 1e15;

std::vector<Flag> train_flags() {
  std::vector<Flag> flags = with_optimize_flags(model_flags());
  for (Flag f : std::vector<Flag>{{Flag::text, "text", "FILE|DIR", "the text to train on, byte by byte"},
                                  {Flag::integer, "steps", "N", "training steps", 1, 1e12},
                                  {Flag::number, "rate", "X", "peak learning rate", 0, 1e3},
                                  {Flag::integer, "warmup", "N", "steps of linear warm-up", 0, 1e12},
                                  {Flag::integer, "seed", "N", "of initial values and data", 0, kMost},
                                  {Flag::boolean, "lockstep", "", "all devices of the mesh in this process"},
                                  {Flag::text, "device", "cpu|cuda|emulated", "what runs the kernels; emulated: a GPU's kernels run by the host, for tests", 0, 0, {"cpu", "cuda", "emulated"}},
                                  {Flag::boolean, "tf32", "", "on a GPU: products of f32 round their operands to 10 binary digits, for its tensor cores"},
                                  {Flag::boolean, "no-graph", "", "on a GPU: each step waits, and an error names its op"},
                                  {Flag::boolean, "share-gpu", "", "several ranks may use one GPU"},
                                  {Flag::text, "log", "FILE", "one JSON object a step"},
                                  {Flag::text, "trace", "FILE", "a trace of a few steps, for chrome://tracing or ui.perfetto.dev"},
                                  {Flag::integer, "trace-steps", "N", "how many, after the first two where there are more", 1, 1000},
                                  {Flag::integer, "sample", "N", "bytes to generate at the end", 0, 1e6},
                                  {Flag::integer, "compare", "N", "losses of a run on one device to print beside this run's", 0, 1e6},
                                  {Flag::integer, "validate", "N", "held-out batches at the end", 0, 1e6}}) {
    flags.push_back(std::move(f));
  }
  return flags;
}

std::vector<Flag> partition_flags() {
  return with_optimize_flags({{Flag::text, "plan", "FILE|NAME", "layouts by name, besides those in the text"},
                              {Flag::text, "mesh", "MESH", "overrides the plan's mesh"},
                              {Flag::boolean, "explain", "", "say for each collective why it is there"},
                              {Flag::text, "mode", "MODE", "auto, explicit or budget=BYTES"},
                              {Flag::boolean, "check", "", "run the program whole and in lockstep on random input and compare"},
                              {Flag::text, "json", "FILE", "write the bill as JSON"},
                              {Flag::text, "dump", "FOLDER", "write the program after each pass"}});
}

std::vector<Flag> reshard_flags() {
  return {{Flag::text, "mesh", "MESH", "\"data=2, model=4\""}, {Flag::text, "json", "FILE", "write the steps as JSON"},
          {Flag::integer, "ranks-per-host", "N", "consecutive ranks that share a host, for the time; all of them otherwise", 1, 1 << 24}};
}

// Before a backend goes, errors or not.
struct DropDevices {
  Job& job;
  ~DropDevices() { job.drop_devices(); }
};

int run_train(Job& job, std::span<const std::string> words) {
  TrainOptions o;
  std::string error, device = "cpu";
  bool share = false;
  try {
    const Args args = Args::parse(words, train_flags());
    no_positional(args);
    if (!args.has("text")) throw UserError("train needs a text: --text FILE or --text FOLDER");
    o = model_options(args, job);
    o.text = args.text("text");
    o.steps = args.integer("steps", 100);
    o.seed = static_cast<uint64_t>(args.integer("seed", 0));
    o.lockstep = args.has("lockstep");
    o.log = args.text("log");
    o.trace = args.text("trace");
    o.trace_steps = args.integer("trace-steps", 3);
    o.sample = args.integer("sample", 0);
    o.compare = args.integer("compare", 0);
    o.validate = args.integer("validate", 8);
    o.schedule.rate = args.number("rate", 1e-3);
    o.schedule.floor = o.schedule.rate / 10;
    o.schedule.warmup_steps = args.integer("warmup", std::min<int64_t>(100, o.steps / 10));
    o.schedule.steps = o.steps;
    o.graph = !args.has("no-graph");
    device = args.text("device", "cpu");
    // Between ranks of hosts nothing travels while they compute: a ring would only cost.
    if (device == "cpu" && o.compile.optimize.ring.use == RingOptions::where_it_pays) o.compile.optimize.ring.use = RingOptions::never;
    share = args.has("share-gpu");
    o.tf32 = args.has("tf32");
    if (o.tf32 && device == "cpu") throw UserError("--tf32 goes with --device cuda: the host's products are of f32");
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  const std::unique_ptr<Backend> backend = open_device(job, device, share);
  o.compile.backend = backend.get();
  allow_tf32(o.tf32);
  const DropDevices drop{job};
  return train(job, o);
}

int run_partition(Job& job, std::span<const std::string> words) {
  const Args args = Args::parse(words, partition_flags());
  if (args.positional().size() != 1) throw UserError(fmt::format("partition takes one program file, not {}", args.positional().size()));
  const std::string& path = args.positional()[0];
  CompileOptions options;
  std::string error;
  Explained explained;
  Compiled& compiled = explained.step;
  Program program;
  try {
    std::string text = read_text(path, "program");
    if (args.has("mesh")) text = with_mesh(text, Mesh::parse(args.text("mesh"), "--mesh"));
    program = parse_program(text, path, op_table());
    options.partition = parse_mode(args.text("mode", "auto"));
    set_optimize(args, options);
    options.passes.dump = args.text("dump");
    const auto plan = args.has("plan") ? std::optional(load_plan(args.text("plan"))) : std::nullopt;
    if (args.has("explain")) explained = explain_plan(program, plan, program.mesh, options);
    else compiled = plan ? compile(program, *plan, program.mesh, options) : compile(program, options);
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  if (job.size() > 1) agree_on_text(*job.devices(job.size(), false, "")[0], "program", compiled.digest_text);
  if (job.first()) {
    fmt::print("{}", print(compiled.local));
    if (args.has("explain")) fmt::print("\n{}", explained.why.text());
    print_warnings(compiled);
    if (args.has("json")) write_text(args.text("json"), args.has("explain") ? explained.why.json() : compiled.bill.json());
  }
  if (!args.has("check") || !job.first()) return 0;
  const CheckResult check = check_partition(program, compiled, 1);
  fmt::print(stderr, "check: {}\n", check.text());
  return check.good(1e-4) ? 0 : 1;
}

int run_reshard(Job& job, std::span<const std::string> words) {
  only_one_process(job, "reshard");
  const Args args = Args::parse(words, reshard_flags());
  if (args.positional().size() != 3 || !args.has("mesh")) {
    throw UserError("usage: meshard reshard \"f32[4096,1024]\" \"[data, -]\" \"[-, data]\" --mesh \"data=4\"");
  }
  return print_reshard(args.positional()[0], args.positional()[1], args.positional()[2], args.text("mesh"), args.text("json"),
                       args.integer("ranks-per-host", 0));
}

std::vector<Flag> bench_flags() {
  return {{Flag::integer, "threads", "N", "of each kernel; default: the cores, shared by the ranks of the host", 1, 4096},
          {Flag::number, "seconds", "X", "for each figure, at least; 0.2 otherwise", 0, 1e3},
          {Flag::text, "only", "kernels|collectives|hosts", "one of the tables; hosts: what crosses between them", 0, 0, {"kernels", "collectives", "hosts"}},
          {Flag::text, "match", "TEXT", "only kernels of ops with this in their name"},
          {Flag::integer, "largest", "BYTES", "no collectives of larger values", 1, 1e15},
          {Flag::text, "device", "cpu|cuda|emulated", "whose kernels and collectives", 0, 0, {"cpu", "cuda", "emulated"}},
          {Flag::text, "sizes", "small|large", "blocks as a processor or a GPU gets them; large with --device cuda otherwise", 0, 0, {"small", "large"}},
          {Flag::boolean, "share-gpu", "", "with --device cuda: more ranks than GPUs may run on a host"},
          {Flag::text, "json", "FILE", "write the figures as JSON"}};
}

int run_bench(Job& job, std::span<const std::string> words) {
  BenchOptions o;
  std::string error, device = "cpu";
  bool share = false;
  try {
    const Args args = Args::parse(words, bench_flags());
    no_positional(args);
    o.threads = threads_of(args, job);
    o.seconds = args.number("seconds", 0.2);
    o.only = args.text("only");
    o.match = args.text("match");
    o.largest = args.integer("largest", o.largest);
    device = args.text("device", "cpu");
    o.large = args.text("sizes", device == "cuda" ? "large" : "small") == "large";
    share = args.has("share-gpu");
    o.json = args.text("json");
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  const std::unique_ptr<Backend> backend = open_device(job, device, share);
  o.backend = backend.get();
  const DropDevices drop{job};
  return bench(job, o);
}

// A process that was started as a rank starts no others; all else is done before there is a Job (main).
int run_launch(Job& job, std::span<const std::string>) {
  only_one_process(job, "launch");
  return 0;
}

struct Command {
  const char* name;
  const char* purpose;
  int (*run)(Job&, std::span<const std::string>);
  std::vector<Flag> flags;
};

std::vector<Command> commands() {
  return {{"train", "train a model on a text, on one process or many", run_train, train_flags()},
          {"plan", "the communication bill of a training step, on any virtual mesh", run_plan, plan_flags()},
          {"partition", "FILE: program text in, the local program out", run_partition, partition_flags()},
          {"reshard", "TYPE FROM TO: the steps between two layouts", run_reshard, reshard_flags()},
          {"bench", "kernels and collectives against what this machine can do", run_bench, bench_flags()},
          {"launch", "-- COMMAND...: ranks on this host without mpirun", run_launch, launch_flags()}};
}

std::string usage(std::span<const Command> list) {
  std::string out;
  for (const Command& c : list) out += fmt::format("meshard {} [flags]   {}\n{}\n", c.name, c.purpose, Args::help(c.flags));
  out += "plans: ";
  for (const std::string& n : builtin_plan_names()) out += n + " ";
  out += "\nmodels: ";
  for (const std::string& n : model_names()) out += n + " ";
  return out + "\n";
}

int run(Job& job, std::span<const std::string> words) {
  const std::vector<Command> list = commands();
  const std::string title = "meshard: training and running models too large for one device\n\n";
  if (words.empty()) throw UserError("which command? train, plan, partition, reshard, bench or launch; see meshard --help");
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    if (job.first()) fmt::print("{}{}", title, usage(list));
    return 0;
  }
  std::vector<std::string> names;
  for (const Command& c : list) {
    if (words[0] == c.name && std::find(words.begin(), words.end(), "--help") != words.end()) {
      if (job.first()) fmt::print("{}", usage(std::span(&c, 1)));
      return 0;
    }
    if (words[0] == c.name) return c.run(job, words.subspan(1));
    names.emplace_back(c.name);
  }
  throw UserError(fmt::format("unknown command \"{}\"{}; see meshard --help", words[0], did_you_mean(words[0], names)));
}

std::optional<int> launched(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || words[0] != "launch") return {};
  const auto end = std::find(words.begin(), words.end(), "--");
  if (std::find(words.begin(), end, "--help") != end) return {};
  try {
    std::vector<std::string> names;
    for (const Command& c : commands()) names.emplace_back(c.name);
    return launch_ranks(std::span(words).subspan(1), names);
  } catch (const UserError& e) {
    fmt::print(stderr, "meshard: {}\n", e.what());
    return 2;
  }
}

}  // namespace
}  // namespace meshard

int main(int argc, char** argv) {
  // Before MPI is started: a process that has done that makes no good parent.
  if (const std::optional<int> status = meshard::launched(argc, argv)) return *status;
  return meshard::run_job(argc, argv, meshard::run);
}
