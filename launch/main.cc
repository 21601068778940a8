// The meshard command: train | plan | partition | reshard. Exit status: 0 done, 1 a check failed, 2 the caller's error, 3 our bug.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "meshard/ir/parse.h"
#include "meshard/launch/args.h"
#include "meshard/launch/report.h"
#include "meshard/launch/reshard.h"
#include "meshard/launch/train.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/simulate.h"

namespace meshard {
namespace {

constexpr double kMost = 1e15;

const std::vector<Flag>& model_flags() {
  static const std::vector<Flag> flags{
      {Flag::text, "model", "NAME", "a preset, with overrides: gpt-124m:layers=2,d=256"},
      {Flag::text, "mesh", "MESH", "\"data=2, model=2\"; overrides the plan's"},
      {Flag::text, "plan", "FILE|NAME", "layouts: a file, or one of the library's plans"},
      {Flag::integer, "batch", "B", "sequences a step, over all devices", 1, 1e9},
      {Flag::integer, "seq", "T", "tokens of a sequence", 1, 1e9},
      {Flag::integer, "accumulate", "K", "micro-batches a step", 1, 1e6},
      {Flag::text, "dtype", "f32|f64", "of parameters and activations", 0, 0, {"f32", "f64", "bf16"}},
      {Flag::integer, "threads", "N", "of each kernel; default: the cores, shared by the ranks of the host", 1, 4096},
  };
  return flags;
}

std::vector<Flag> train_flags() {
  std::vector<Flag> flags = model_flags();
  for (Flag f : std::vector<Flag>{{Flag::text, "text", "FILE|DIR", "the text to train on, byte by byte"},
                                  {Flag::integer, "steps", "N", "training steps", 1, 1e12},
                                  {Flag::number, "rate", "X", "peak learning rate", 0, 1e3},
                                  {Flag::integer, "warmup", "N", "steps of linear warm-up", 0, 1e12},
                                  {Flag::integer, "seed", "N", "of initial values and data", 0, kMost},
                                  {Flag::boolean, "lockstep", "", "all devices of the mesh in this process"},
                                  {Flag::text, "log", "FILE", "one JSON object a step"},
                                  {Flag::integer, "sample", "N", "bytes to generate at the end", 0, 1e6},
                                  {Flag::integer, "compare", "N", "losses of a run on one device to print beside this run's", 0, 1e6},
                                  {Flag::integer, "validate", "N", "held-out batches at the end", 0, 1e6}}) {
    flags.push_back(std::move(f));
  }
  return flags;
}

std::vector<Flag> plan_flags() {
  std::vector<Flag> flags = model_flags();
  flags.push_back({Flag::boolean, "explain", "", "say for each collective why it is there"});
  flags.push_back({Flag::text, "json", "FILE", "write the bill as JSON"});
  return flags;
}

std::vector<Flag> partition_flags() {
  return {{Flag::text, "plan", "FILE|NAME", "layouts by name, besides those in the text"},
          {Flag::text, "mesh", "MESH", "overrides the plan's mesh"},
          {Flag::boolean, "explain", "", "say for each collective why it is there"},
          {Flag::text, "mode", "MODE", "auto, explicit or budget=BYTES"},
          {Flag::boolean, "check", "", "run the program whole and in lockstep on random input and compare"},
          {Flag::text, "json", "FILE", "write the bill as JSON"},
          {Flag::text, "dump", "FOLDER", "write the program after each pass"}};
}

std::vector<Flag> reshard_flags() {
  return {{Flag::text, "mesh", "MESH", "\"data=2, model=4\""}, {Flag::text, "json", "FILE", "write the steps as JSON"},
          {Flag::integer, "ranks-per-host", "N", "consecutive ranks that share a host, for the time; all of them otherwise", 1, 1 << 24}};
}

std::string read_text(const std::string& path, const char* what) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  if (in) out << in.rdbuf();
  if (!in || std::filesystem::is_directory(path)) throw UserError(fmt::format("cannot read the {} {}; check the path and its permissions", what, path));
  return std::move(out).str();
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  if (!(out << text << std::flush)) throw UserError(fmt::format("cannot write {}; check the folder and its permissions", path));
}

// A name of the library's plans, or a file.
Plan load_plan(const std::string& name) {
  if (const auto text = builtin_plan(name)) return Plan::parse(*text, name + ".plan");
  if (!std::filesystem::exists(name)) {
    std::string list;
    for (const std::string& n : builtin_plan_names()) list += (list.empty() ? "" : ", ") + n;
    throw UserError(fmt::format("--plan {}: there is no such file, and no such plan among: {}{}", name, list, did_you_mean(name, builtin_plan_names())));
  }
  return Plan::parse(read_text(name, "plan"), name);
}

int default_threads(const Job& job) {
  const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, cores / job.size());
}

// Sums over a model's parameters or activations must fit in 64 bits; of one tensor the trace says so itself.
void check_size(const ModelConfig& m) {
  constexpr double kMostParams = 0x1p50;
  constexpr int64_t kMostLayers = 1000;
  if (m.layers > kMostLayers) throw UserError(fmt::format("{}: {} layers; at most {} are planned", m.name, m.layers, kMostLayers));
  const double width = static_cast<double>(m.heads) * static_cast<double>(m.d_head) + static_cast<double>(m.f);
  const double params = static_cast<double>(m.d) * (4 * width * static_cast<double>(m.layers) + 2 * static_cast<double>(m.vocab));
  if (!(params < kMostParams)) throw UserError(fmt::format("{}: about {:.1e} parameters; at most 2^50 = {:.1e} are planned", m.name, params, kMostParams));
}

void check_tokens(const TrainOptions& o) {
  constexpr double kMostBytes = 0x1p58;
  const ModelConfig& m = o.model;
  const auto layer = static_cast<double>(8 * m.d + 4 * m.heads * m.d_head + 4 * m.f);
  const double each = 8 * (static_cast<double>(m.layers) * layer + 4 * static_cast<double>(m.vocab));
  const double bytes = each * static_cast<double>(o.batch) * static_cast<double>(o.seq);
  if (bytes > kMostBytes) {
    throw UserError(fmt::format("--batch {} --seq {}: about {:.1e} bytes of activations; at most 2^58 = {:.1e} are planned; take a smaller --batch or --seq",
                                o.batch, o.seq, bytes, kMostBytes));
  }
}

TrainOptions model_options(const Args& args, const Job& job) {
  if (args.text("dtype") == "bf16") throw UserError("--dtype bf16 is not built yet; use f32 or f64");
  TrainOptions o;
  o.model = model_config(args.text("model", "gpt-tiny"));
  o.plan = load_plan(args.text("plan", "replicated"));
  if (args.has("mesh")) o.mesh = Mesh::parse(args.text("mesh"), "--mesh");
  else if (!o.plan.mesh() && !args.has("plan")) o.mesh = Mesh();
  check_size(o.model);
  o.batch = args.integer("batch", 8);
  o.seq = args.integer("seq", 128);
  check_tokens(o);
  o.accumulate = args.integer("accumulate", 1);
  o.dtype = args.text("dtype", "f32") == "f64" ? Dtype::f64 : Dtype::f32;
  o.threads = static_cast<int>(args.integer("threads", default_threads(job)));
  if (o.batch % o.accumulate != 0) throw UserError(fmt::format("--batch {} does not divide into --accumulate {} micro-batches", o.batch, o.accumulate));
  return o;
}

void no_positional(const Args& args) {
  if (!args.positional().empty()) throw UserError(fmt::format("unexpected word \"{}\"; flags begin with --", args.positional()[0]));
}

int run_train(Job& job, std::span<const std::string> words) {
  TrainOptions o;
  std::string error;
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
    o.sample = args.integer("sample", 0);
    o.compare = args.integer("compare", 0);
    o.validate = args.integer("validate", 8);
    o.schedule.rate = args.number("rate", 1e-3);
    o.schedule.floor = o.schedule.rate / 10;
    o.schedule.warmup_steps = args.integer("warmup", std::min<int64_t>(100, o.steps / 10));
    o.schedule.steps = o.steps;
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  return train(job, o);
}

void only_one_process(const Job& job, const char* command) {
  if (job.size() > 1) throw UserError(fmt::format("meshard {} starts no ranks: run it without mpirun", command));
}

int run_plan(Job& job, std::span<const std::string> words) {
  only_one_process(job, "plan");
  const Args args = Args::parse(words, plan_flags());
  no_positional(args);
  const TrainOptions o = model_options(args, job);
  Trace trace(op_table(), o.dtype);
  trace_train_step(trace, o.model, o.batch, o.seq, o.optimizer, o.accumulate);
  CompileOptions options;
  options.threads = o.threads;
  const Compiled step = compile(trace.program(), o.plan, o.mesh, options);
  print_plan(o.model, o.plan.file(), step, o.batch, o.seq, train_flops_per_token(o.model, o.seq));
  if (args.has("explain")) fmt::print("{}", step.bill.table(true));
  if (args.has("json")) write_text(args.text("json"), step.bill.json());
  return 0;
}

// The program text with its mesh line replaced, line for line, or with one put in front.
std::string with_mesh(const std::string& text, const Mesh& mesh) {
  const std::string line = "mesh " + mesh.str();
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    if (text.compare(at, 5, "mesh ") == 0) return text.substr(0, at) + line + text.substr(std::min(text.find('\n', at), text.size()));
    if (text.find('\n', at) == text.npos) break;
  }
  return line + "\n" + text;
}

int run_partition(Job& job, std::span<const std::string> words) {
  const Args args = Args::parse(words, partition_flags());
  if (args.positional().size() != 1) throw UserError(fmt::format("partition takes one program file, not {}", args.positional().size()));
  const std::string& path = args.positional()[0];
  CompileOptions options;
  std::string error;
  Compiled compiled;
  Program program;
  try {
    std::string text = read_text(path, "program");
    if (args.has("mesh")) text = with_mesh(text, Mesh::parse(args.text("mesh"), "--mesh"));
    program = parse_program(text, path, op_table());
    options.partition = parse_mode(args.text("mode", "auto"));
    options.passes.dump = args.text("dump");
    compiled = args.has("plan") ? compile(program, load_plan(args.text("plan")), program.mesh, options) : compile(program, options);
  } catch (const UserError& e) {
    error = e.what();
  }
  job.agree(error);
  if (job.size() > 1) agree_on_text(*job.devices(job.size(), false, "")[0], "program", compiled.digest_text);
  if (job.first()) {
    fmt::print("{}", print(compiled.local));
    if (args.has("explain")) fmt::print("\n{}", compiled.bill.table(true));
    if (args.has("json")) write_text(args.text("json"), compiled.bill.json());
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
          {"reshard", "TYPE FROM TO: the steps between two layouts", run_reshard, reshard_flags()}};
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
  if (words.empty()) throw UserError("which command? train, plan, partition or reshard; see meshard --help");
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

}  // namespace
}  // namespace meshard

int main(int argc, char** argv) { return meshard::run_job(argc, argv, meshard::run); }
