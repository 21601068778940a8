// Prints a table: for each model, plan and mesh the largest relative difference of a step's loss from one device's,
// with f64 and f32. Status 1 if one is above 1e-9 or 1e-4, or if a run's first values, bytes or memory are not what
// they must be.
//
//   equal_losses_table [steps] [part of a row's name]
#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "meshard/base/error.h"
#include "meshard/models/plans.h"
#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

constexpr struct {
  Dtype dtype;
  double tolerance;
} kTypes[] = {{Dtype::f64, 1e-9}, {Dtype::f32, 1e-4}};

int table(int64_t steps, std::string_view part) {
  bool good = true;
  int rows = 0;
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    Outcome one[2];
    for (int k = 0; k < 2; ++k) one[k] = train_job({.model = model, .dtype = kTypes[k].dtype, .steps = steps});
    fmt::print("\n{}, batch 5, seq 16, {} steps: loss {:.6f} at first, {:.6f} at last\n", model, steps,
               one[0].losses.front(), one[0].losses.back());
    fmt::print("{:<16} {:<18} {:>9} {:>9} {:>14}\n", "plan", "mesh", "f64", "f32", "bytes a step");
    for (const std::string& plan : builtin_plan_names()) {
      for (int64_t devices : {1, 2, 3, 4, 6, 8}) {
        for (const std::string& mesh : meshes(plan, devices)) {
          const std::string row = fmt::format("{:<16} {:<18}", plan, mesh);
          if ((model + " " + row).find(part) == std::string::npos) continue;
          fmt::print("{}", row);
          int64_t bytes = 0;
          std::string wrong;
          for (int k = 0; k < 2; ++k) {
            const Job job{.model = model, .plan = plan, .mesh = mesh, .dtype = kTypes[k].dtype, .steps = steps};
            const Outcome run = train_job(job);
            const double difference = largest_difference(run.losses, one[k].losses);
            fmt::print(" {:9.1e}", difference);
            std::fflush(stdout);
            if (difference > kTypes[k].tolerance)
              wrong += fmt::format("  {}: above {:.0e}\n", job.name(), kTypes[k].tolerance);
            if (const std::string d = disagreement(job, run, one[k]); !d.empty())
              wrong += fmt::format("  {}:\n{}", job.name(), d);
            bytes = run.bill.bytes;
          }
          fmt::print(" {:14}\n{}", bytes, wrong);
          good = good && wrong.empty();
          ++rows;
        }
      }
    }
  }
  fmt::print("\n{} rows, {}\n", rows, good ? "all as they must be" : "NOT all as they must be");
  return good && rows > 0 ? 0 : 1;
}

}  // namespace
}  // namespace meshard

int main(int argc, char** argv) {
  try {
    return meshard::table(argc > 1 ? std::stoll(argv[1]) : 50, argc > 2 ? argv[2] : "");
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
