// texts [--allocate BYTES] [--threads N]: the local programs and bills of both families of models on every plan of the
// library, and of random programs. determinism.sh compares what several processes print.
#include <fmt/format.h>

#include <cstring>
#include <iostream>

#include "generate.h"
#include "meshard/base/error.h"
#include "meshard/ir/parse.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"

namespace meshard::fuzz {
namespace {

void show(const std::string& what, const Compiled& c) {
  std::cout << fmt::format("# {}\n{}{}", what, c.digest_text, c.bill.table(true));
}

void models(const CompileOptions& options) {
  for (const char* model : {"gpt-tiny:layers=2", "llama-tiny:layers=2"}) {
    Trace trace(op_table());
    trace_train_step(trace, model_config(model), 5, 6, AdamWConfig{}, 1);
    const Program program = trace.program();
    for (const std::string& name : builtin_plan_names()) {
      const Plan plan = Plan::parse(*builtin_plan(name), name + ".plan");
      try {
        show(fmt::format("{} {}", model, name), compile(program, plan, Mesh::parse("data=2, model=3"), options));
      } catch (const UserError& e) {
        std::cout << fmt::format("# {} {}: {}\n", model, name, e.what());
      }
    }
  }
}

int run(int argc, char** argv) {
  CompileOptions options;
  // Memory taken first moves all that is taken later.
  std::vector<std::vector<char>> taken;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--threads") == 0) options.threads = std::stoi(argv[i + 1]);
    for (int64_t left = std::strcmp(argv[i], "--allocate") == 0 ? std::stoll(argv[i + 1]) : 0; left > 0; left -= 4096 + 24 * left % 977)
      taken.emplace_back(static_cast<size_t>(64 + left % 4001));
  }
  models(options);
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    const Generated g = generate(op_table(), seed * 0x9e3779b97f4a7c15, seed % 2 == 0);
    try {
      show(fmt::format("random {}", seed), compile(g.program, options));
    } catch (const std::exception& e) {
      std::cout << fmt::format("# random {}: {}\n", seed, e.what());
    }
  }
  return 0;
}

}  // namespace
}  // namespace meshard::fuzz

int main(int argc, char** argv) { return meshard::fuzz::run(argc, argv); }
