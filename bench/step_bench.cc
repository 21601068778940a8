// One training step of a model on this machine against the machine's own bounds, with the time by op:
//
//   step_bench [--model gpt-124m] [--batch 4] [--seq 64] [--threads 2] [--steps 8] [--plan replicated] [--mesh "data=2"]
//              [--dtype f32|bf16|f16] [--clock wall|cpu] [--by op|shape|place] [--without REWRITE]
//              [--json FILE]
//   mpirun -n 2 step_bench --threads 1 --plan zero1 --mesh data=2
//
// GEMM peak is the best of five products of 2048 x 2048 x 2048 by our own kernel, stream bandwidth that of a plain copy
// larger than the caches (bytes read and written), all ranks and threads at it, both before the steps. The bound of a step: its matrix
// flops (6 N + 12 L T d a token) at GEMM peak, plus 28 bytes for each parameter that a rank's optimizer updates (reads w,
// m, v, g; writes w, m, v) and the bytes of the bill (read and written) at stream bandwidth. Tokens are drawn uniformly.
// A step's time is the median over the steps; the time by op is taken in steps of their own. live: the largest sum of
// bytes alive at once, below which no arena can be.
#include <fmt/format.h>
#include <mpi.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "meshard/collectives/mpi.h"
#include "meshard/kernels/machine.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"
#include "meshard/runtime/executor.h"

using namespace meshard;

namespace {

// Wall time, or the processor time of all threads: that is what other work on the machine disturbs least, with one thread.
double now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
}

// The sum over all ranks of what each reaches while all are at it.
double over_ranks(double mine) {
  double all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return all;
}

double resident_bytes() {
  int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE));
}

struct Spent {
  double seconds = 0, flops = 0;
  int64_t calls = 0;
};

// Of a product of two operands without a batch, whose factors each stand in two of its three blocks; else 0.
double flops_of(const Flat& flat, const FlatStep& step) {
  if (step.operands.size() != 2 || step.op->attributes.text("rule").empty()) return 0;
  double product = 1;
  for (int v : {step.operands[0], step.operands[1], step.results[0]}) {
    product *= static_cast<double>(flat.values[static_cast<size_t>(v)].local.elements());
  }
  return 2 * std::sqrt(product);
}

struct Options {
  std::string model = "gpt-124m", plan = "replicated", mesh, json, dtype = "f32", by = "op", clock = "wall", without;
  int64_t batch = 4, seq = 64, steps = 8;
  int threads = 2;
};

int usage(const std::string& what) {
  fmt::print(stderr, "step_bench: {}\n", what);
  return 2;
}

int bench(const Options& o, int rank, int ranks) {
  const clockid_t clock = o.clock == "wall" ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID;
  const MachineBounds machine =
      measure_machine({.threads = o.threads, .seconds = [&] { return now(clock); }, .together = [] { MPI_Barrier(MPI_COMM_WORLD); }});
  // What libraries hold, the process's code among it, before there is a plan.
  const double libraries = resident_bytes();
  const double gemm = over_ranks(machine.matmul_flops), stream = over_ranks(machine.copy_bytes);
  const ModelConfig model = model_config(o.model);
  const double begin = now();
  Trace trace(op_table());
  const auto text = builtin_plan(o.plan);
  if (!text) throw UserError(fmt::format("there is no plan {}", o.plan));
  const Plan plan = Plan::parse(*text, o.plan);
  trace_train_step(trace, model, o.batch, o.seq, {});
  CompileOptions options;
  options.threads = o.threads;
  if (Dtype narrow; parse_dtype(o.dtype, narrow) && is_narrow(narrow)) options.mixed = MixedOptions{.narrow = narrow, .keep_f32 = {}};
  if (!o.without.empty()) options.passes.skip = {o.without};
  const Mesh mesh = Mesh::parse(o.mesh.empty() ? "data=1" : o.mesh);
  const Compiled step = compile(trace.program(), plan, mesh, options);
  const std::unique_ptr<Communicator> comm = mpi_communicator(nullptr);
  Communicator* const device = comm.get();
  State state(step.local, {comm->rank()});
  const double first = now();
  state.init(1, o.threads);
  const double values = now() - first;
  Executor run(step, &state, std::span(&device, 1), {.threads = o.threads});
  const double ready = now() - begin - values;

  std::mt19937_64 random(7);
  std::vector<int32_t> ids(static_cast<size_t>(2 * o.batch * o.seq));
  double loss = 0;
  int64_t number = 0;
  const auto one = [&] {
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(model.vocab));
    run.set_input("tokens", View{ids.data(), Dtype::i32, {o.batch, o.seq}});
    run.set_input("targets", View{ids.data() + o.batch * o.seq, Dtype::i32, {o.batch, o.seq}});
    run.set_scalar("rate", 3e-4);
    run.set_scalar("step", static_cast<double>(++number));
    MPI_Barrier(MPI_COMM_WORLD);
    const double start = now(clock);
    run.run();
    loss = run.scalar("loss");
    return now(clock) - start;
  };
  for (int i = 0; i < 2; ++i) one();
  std::vector<double> times;
  for (int64_t i = 0; i < o.steps; ++i) times.push_back(one());
  const double seconds = median(times);

  std::map<std::string, Spent> by_op;
  double mark = 0;
  run.set_observer([&](int, const Flat& flat, int i) {
    const FlatStep& s = flat.steps[static_cast<size_t>(i)];
    std::string what(s.op == nullptr || s.op->def == nullptr ? "other" : s.op->def->name);
    if (o.by == "place") what = s.place.empty() ? what : s.place;
    if (o.by == "shape") {
      const char* separator = " ";
      for (int v : s.operands) {
        what += separator + Type{flat.values[static_cast<size_t>(v)].type.dtype, flat.values[static_cast<size_t>(v)].local}.str();
        separator = ", ";
      }
      if (s.op != nullptr) what += fmt::format(" {}", s.op->attributes.text("rule"));
    }
    const double t = now(clock);
    Spent& spent = by_op[what];
    spent.seconds += t - mark;
    spent.calls += 1;
    if (s.kind == FlatStep::kernel) spent.flops += flops_of(flat, s);
    mark = now(clock);
  });
  constexpr int kProfiled = 2;
  for (int i = 0; i < kProfiled; ++i) {
    mark = now(clock);
    one();
  }

  const MemoryPlan& memory = run.memory(0);
  const double d = static_cast<double>(model.heads * model.d_head), tokens = static_cast<double>(o.batch * o.seq);
  double weights = 0;  // of matrix products: a tied embedding once, one that is only looked up not at all
  double updated = 0;  // elements that this rank's optimizer updates, by the first moments it holds
  for (const StateEntry& e : state.entries()) {
    const bool moment = e.kind == ParamInfo::state && e.name.ends_with(".m");
    if (moment) updated += static_cast<double>(state.view(e.name, 0).elements());
    if (e.kind != ParamInfo::param || e.init.kind != Init::normal || e.type.shape.rank() < 2) continue;
    if (e.name == "positions" || (e.name == "embedding" && !model.tied)) continue;
    weights += static_cast<double>(e.type.shape.elements());
  }
  const double flops = tokens * (6 * weights + 12 * static_cast<double>(model.layers * o.seq) * d);
  const double optimizer = 28 * over_ranks(updated);
  const double billed = 2 * static_cast<double>(step.bill.bytes_all_devices);
  const double bound = flops / gemm + (optimizer + billed) / stream;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  if (rank != 0) return 0;
  const nlohmann::ordered_json row = {
      {"model", o.model}, {"batch", o.batch}, {"seq", o.seq}, {"plan", o.plan}, {"ranks", ranks}, {"dtype", o.dtype}, {"threads", o.threads}, {"clock", o.clock},
      {"step_s", seconds}, {"min_s", *std::min_element(times.begin(), times.end())}, {"tokens_s", tokens / seconds},
      {"model_gflops", flops / seconds / 1e9}, {"gemm_gflops", gemm / 1e9}, {"ratio", flops / seconds / gemm},
      {"stream_gb_s", stream / 1e9}, {"bound_s", bound}, {"of_bound", bound / seconds}, {"ready_s", ready},
      {"peak_mib", static_cast<double>(memory.peak_bytes()) / 1048576}, {"arena_mib", static_cast<double>(memory.arena_bytes) / 1048576},
      {"arena_to_live", static_cast<double>(memory.arena_bytes) / static_cast<double>(std::max<int64_t>(memory.live_bytes, 1))},
      {"libraries_mib", libraries / 1048576}, {"peak_rss_mib", usage.ru_maxrss / 1024},
      {"of_plan_and_libraries", 1024 * static_cast<double>(usage.ru_maxrss) / (static_cast<double>(memory.peak_bytes()) + libraries)}, {"loss", loss}};
  fmt::print("{}\n", row.dump());
  std::vector<std::pair<std::string, Spent>> sorted(by_op.begin(), by_op.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  if (sorted.size() > 40) sorted.resize(40);
  fmt::print("{:>9} {:>7} {:>6} {:>8}  {}\n", "ms/step", "share", "calls", "of peak", "op");
  for (const auto& [name, spent] : sorted) {
    const double mine = spent.seconds / kProfiled;
    const double share = spent.flops / kProfiled / mine / gemm * ranks;
    fmt::print("{:>9.2f} {:>6.1f}% {:>6} {:>8}  {}\n", mine * 1e3, mine / seconds * 100, spent.calls / kProfiled,
               spent.flops > 0 ? fmt::format("{:.2f}", share) : "", name);
  }
  if (!o.json.empty()) std::ofstream(o.json) << row.dump() << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  Options o;
  int status = 0;
  const std::map<std::string_view, std::string*> texts = {
      {"--model", &o.model}, {"--plan", &o.plan}, {"--mesh", &o.mesh}, {"--json", &o.json}, {"--dtype", &o.dtype}, {"--by", &o.by}, {"--clock", &o.clock}, {"--without", &o.without}};
  const std::map<std::string_view, int64_t*> numbers = {{"--batch", &o.batch}, {"--seq", &o.seq}, {"--steps", &o.steps}};
  for (int i = 1; i < argc && status == 0; i += 2) {
    const std::string_view flag = argv[i];
    if (i + 1 == argc) {
      status = usage(fmt::format("{} needs a value", flag));
    } else if (const auto text = texts.find(flag); text != texts.end()) {
      *text->second = argv[i + 1];
    } else if (const auto number = numbers.find(flag); number != numbers.end()) {
      *number->second = std::stoll(argv[i + 1]);
    } else if (flag == "--threads") {
      o.threads = std::stoi(argv[i + 1]);
    } else {
      status = usage(fmt::format("unknown flag {}", flag));
    }
  }
  try {
    if (status == 0) status = bench(o, rank, ranks);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  MPI_Finalize();
  return status;
}
