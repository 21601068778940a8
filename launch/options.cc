#include "meshard/launch/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "meshard/models/plans.h"

namespace meshard {

std::vector<Flag> model_flags() {
  return {
      {Flag::text, "model", "NAME", "a preset, with overrides: gpt-124m:layers=2,d=256"},
      {Flag::text, "mesh", "MESH", "\"data=2, model=2\"; overrides the plan's"},
      {Flag::text, "plan", "FILE|NAME", "layouts: a file, or one of the library's plans"},
      {Flag::integer, "batch", "B", "sequences a step, over all devices", 1, 1e9},
      {Flag::integer, "seq", "T", "tokens of a sequence", 1, 1e9},
      {Flag::integer, "accumulate", "K", "micro-batches a step", 1, 1e6},
      {Flag::text, "dtype", "f32|f64|bf16|f16", "of parameters and activations; bf16, f16: activations, with parameters in f32", 0, 0, {"f32", "f64", "bf16", "f16"}},
      {Flag::text, "keep-f32", "NAMES", "with --dtype bf16 or f16: values that stay f32, with commas between: logits,block.*.y"},
      {Flag::number, "loss-scale", "X", "with --dtype f16: the loss's first scale, a power of two; default 65536", 0x1p-20, 0x1p40},
      {Flag::integer, "scale-steps", "N", "with --dtype f16: good steps in a row after which the scale doubles; default 2000", 1, 1e9},
      {Flag::integer, "threads", "N", "of each kernel; default: the cores, shared by the ranks of the host", 1, 4096},
  };
}

std::vector<Flag> with_optimize_flags(std::vector<Flag> flags) {
  constexpr double kMost = 1e15;
  for (Flag f : std::vector<Flag>{
           {Flag::text, "without", "NAMES", "rewrites to leave out: fold, share, shorten, drop, regather, ring, onto, epilogue, bucket, overlap, or all"},
           {Flag::integer, "bucket", "BYTES", "the largest message put together of several; default 1 MiB", 0, kMost},
           {Flag::integer, "memory", "BYTES", "of a device: what is over it is gathered again instead of kept", 1, kMost},
           {Flag::text, "ring", "USE", "gathers and scatters next to products in steps round a ring: where it pays on GPUs that compute while blocks travel (auto), wherever it can be, or never (default)", 0, 0, {"auto", "always", "never"}},
           {Flag::boolean, "overlap", "", "start collectives early and wait for them late"}}) {
    flags.push_back(std::move(f));
  }
  return flags;
}

void set_optimize(const Args& args, CompileOptions& options) {
  OptimizeOptions& optimize = options.optimize;
  options.memory_bytes = args.integer("memory", 0);
  optimize.bucket_bytes = args.integer("bucket", optimize.bucket_bytes);
  optimize.overlap = args.has("overlap");
  const std::string rings = args.text("ring", "never");
  optimize.ring.use = rings == "always" ? RingOptions::always : rings == "auto" ? RingOptions::where_it_pays : RingOptions::never;
  const std::string list = args.text("without");
  if (list == "all") optimize.on = false;
  if (!args.has("without") || list == "all") return;
  const std::vector<std::string> names = optimize_names();
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    const std::string name = list.substr(at, end - at);
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw UserError(fmt::format("--without: no rewrite \"{}\"; there are {}, and all{}", name, fmt::join(names, ", "), did_you_mean(name, names)));
    }
    options.passes.skip.push_back(name);
    at = end + 1;
  }
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

namespace {

int default_threads(const Job& job) {
  const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, cores / job.size_here());
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

}  // namespace

int threads_of(const Args& args, const Job& job) {
  const auto threads = static_cast<int>(args.integer("threads", default_threads(job)));
  if (const int64_t cores = sysconf(_SC_NPROCESSORS_ONLN); cores > 0 && threads > cores) {
    throw UserError(fmt::format("--threads {}, but this host has {} core{}; give at most {}", threads, cores, cores == 1 ? "" : "s", cores));
  }
  return threads;
}

std::optional<MixedOptions> mixed_options(const Args& args) {
  Dtype dtype = Dtype::f32;
  parse_dtype(args.text("dtype", "f32"), dtype);
  if (!is_narrow(dtype)) {
    if (args.has("keep-f32")) throw UserError("--keep-f32 says what stays f32 with --dtype bf16 or f16; add it, or leave out --keep-f32");
    return std::nullopt;
  }
  MixedOptions mixed{.narrow = dtype, .keep_f32 = {}};
  const std::string list = args.text("keep-f32");
  for (size_t at = 0; args.has("keep-f32") && at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    if (end == at) throw UserError(fmt::format("--keep-f32 {}: a name is missing; write names with single commas between", list));
    mixed.keep_f32.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return mixed;
}

std::optional<LossScaleConfig> loss_scale_options(const Args& args) {
  if (args.text("dtype") != "f16") {
    for (const char* flag : {"loss-scale", "scale-steps"}) {
      if (args.has(flag)) throw UserError(fmt::format("--{} is of --dtype f16; add it, or leave out --{}", flag, flag));
    }
    return std::nullopt;
  }
  LossScaleConfig scale;
  scale.first = args.number("loss-scale", scale.first);
  scale.double_after = args.integer("scale-steps", scale.double_after);
  int exponent = 0;
  if (std::frexp(scale.first, &exponent) != 0.5) {
    throw UserError(fmt::format("--loss-scale {}: it must be a power of two, so that nothing is rounded; take {}", scale.first, std::ldexp(1.0, exponent - 1)));
  }
  return scale;
}

TrainOptions model_options(const Args& args, const Job& job) {
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
  o.threads = threads_of(args, job);
  o.compile.mixed = mixed_options(args);
  o.optimizer.loss_scale = loss_scale_options(args);
  set_optimize(args, o.compile);
  o.compile.threads = o.threads;
  if (o.batch % o.accumulate != 0) throw UserError(fmt::format("--batch {} does not divide into --accumulate {} micro-batches", o.batch, o.accumulate));
  return o;
}

void no_positional(const Args& args) {
  if (!args.positional().empty()) throw UserError(fmt::format("unexpected word \"{}\"; flags begin with --", args.positional()[0]));
}

void only_one_process(const Job& job, const char* command) {
  if (job.size() > 1) throw UserError(fmt::format("meshard {} starts no ranks: run it without {}", command, job.starter()));
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

}  // namespace meshard
