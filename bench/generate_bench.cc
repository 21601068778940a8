// Generation token by token with a cache of keys and values:
//
//   generate_bench [--model gpt-124m] [--prompt 16] [--tokens 64] [--batch 1] [--length 256] [--threads 2]
//                  [--plan replicated] [--mesh "model=2"] [--json FILE]
//
// Under mpirun with a mesh as well. Prints one JSON line: milliseconds for the prompt and a token (median), tokens/s, the
// bytes of weights that a token reads, and their rate as a share of what a plain copy moves in the same process.
// bench/peers/torch_generate.py is the peer.
#include <fmt/format.h>
#include <mpi.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "meshard/base/error.h"
#include "meshard/collectives/mpi.h"
#include "meshard/kernels/machine.h"
#include "meshard/launch/generate.h"
#include "meshard/models/plans.h"

using namespace meshard;

namespace {

struct Options {
  std::string model = "gpt-124m", plan = "replicated", mesh, json;
  int64_t prompt = 16, tokens = 64, batch = 1, length = 256, threads = 2;
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

// Weights that one token reads on this device: all but tables of which it takes a row.
int64_t weight_bytes(const State& state, const ModelConfig& model) {
  int64_t bytes = 0;
  for (const StateEntry& e : state.entries()) {
    if (e.name.find(".cache_") != std::string::npos || e.name == "positions" || (e.name == "embedding" && !model.tied)) continue;
    bytes += state.view(e.name, 0).bytes();
  }
  return bytes;
}

void bench(const Options& o, int rank) {
  ModelConfig model = model_config(o.model);
  if (model.family == ModelConfig::gpt) model.context = std::max(model.context, o.length);
  const auto text = builtin_plan(o.plan);
  if (!text) throw UserError(fmt::format("there is no plan {}", o.plan));
  const double begin = now();
  GeneratorOptions options{.batch = o.batch, .length = o.length};
  options.compile.threads = static_cast<int>(o.threads);
  const GeneratorPrograms programs = compile_generator(model, Plan::parse(*text, o.plan), Mesh::parse(o.mesh.empty() ? "data=1" : o.mesh), options);
  const double compiled = now() - begin;
  const std::unique_ptr<Communicator> comm = mpi_communicator(nullptr);
  Communicator* const device = comm.get();
  State state(programs.local(), {comm->rank()});
  state.init(1, options.compile.threads);
  Generator g(programs, state, std::span(&device, 1), {.threads = options.compile.threads});
  const MachineBounds machine = measure_machine({.threads = options.compile.threads});

  std::vector<int32_t> tokens(static_cast<size_t>(o.batch * o.prompt));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7919 % static_cast<size_t>(model.vocab));
  std::vector<double> prompts, times;
  for (int round = 0; round < 3; ++round) {
    g.reset();
    MPI_Barrier(MPI_COMM_WORLD);
    double start = now();
    std::vector<double> scores = g.feed(tokens);
    prompts.push_back(now() - start);
    for (int64_t i = 0; i < o.tokens && g.room() > 0; ++i) {
      std::vector<int32_t> next;
      for (int64_t b = 0; b < o.batch; ++b) {
        const auto row = scores.begin() + b * model.vocab;
        next.push_back(static_cast<int32_t>(std::max_element(row, row + model.vocab) - row));
      }
      start = now();
      scores = g.feed(next);
      if (round > 0) times.push_back(now() - start);
    }
  }
  const double seconds = median(times), bytes = static_cast<double>(weight_bytes(state, model));
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  nlohmann::ordered_json line = {{"model", o.model},
                                 {"batch", o.batch},
                                 {"length", o.length},
                                 {"threads", o.threads},
                                 {"ranks", comm->size()},
                                 {"plan", o.plan},
                                 {"compile_ms", 1e3 * compiled},
                                 {"prompt_tokens", o.prompt},
                                 {"prompt_ms", 1e3 * median(prompts)},
                                 {"token_ms", 1e3 * seconds},
                                 {"tokens_per_second", static_cast<double>(o.batch) / seconds},
                                 {"weight_mib", bytes / (1 << 20)},
                                 {"weights_gb_per_second", bytes / seconds / 1e9},
                                 {"copy_gb_per_second", machine.copy_bytes / 1e9},
                                 {"share_of_copy", bytes / seconds / machine.copy_bytes},
                                 {"peak_rss_mib", used.ru_maxrss >> 10}};
  if (rank != 0) return;
  fmt::print("{}\n", line.dump());
  if (!o.json.empty()) std::ofstream(o.json) << line.dump() << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, status = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  Options o;
  std::map<std::string_view, std::string*> texts = {{"--model", &o.model}, {"--plan", &o.plan}, {"--mesh", &o.mesh}, {"--json", &o.json}};
  std::map<std::string_view, int64_t*> numbers = {
      {"--prompt", &o.prompt}, {"--tokens", &o.tokens}, {"--batch", &o.batch}, {"--length", &o.length}, {"--threads", &o.threads}};
  for (int i = 1; i < argc && status == 0; i += 2) {
    const std::string_view flag = argv[i];
    if (i + 1 < argc && texts.contains(flag)) {
      *texts[flag] = argv[i + 1];
    } else if (i + 1 < argc && numbers.contains(flag)) {
      *numbers[flag] = std::atoll(argv[i + 1]);
    } else {
      fmt::print(stderr, "generate_bench: unknown flag or no value: {}\n", flag);
      status = 2;
    }
  }
  try {
    if (status == 0) bench(o, rank);
  } catch (const UserError& e) {
    fmt::print(stderr, "generate_bench: {}\n", e.what());
    status = 2;
  }
  MPI_Finalize();
  return status;
}
