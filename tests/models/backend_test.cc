// Training on a device beside the host: the emulated one always, a GPU where there is one.
#include <catch2/catch.hpp>
#include <cstdio>

#include "meshard/backend/backend.h"
#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

void check_training(Backend* backend, double tolerance) {
  for (const char* model : {"gpt-tiny:layers=2,d=32,heads=2,vocab=256", "llama-tiny:layers=1,d=32,heads=4,kv_heads=2,vocab=256"}) {
    Job one{.model = model, .dtype = Dtype::f32, .batch = 4, .seq = 12, .steps = 4};
    const Outcome expected = train_job(one);
    for (const auto& [plan, mesh] : {std::pair{"", ""}, {"data_tensor", "data=2, model=2"}, {"tensor_zero3", "data=2, model=2"}, {"zero3", "data=3"}}) {
      // Step by step; captured in the second step and replayed; and with a loop over micro-batches.
      for (const bool graph : {false, true}) {
        for (const int64_t accumulate : {1, 2}) {
          if (accumulate == 2 && !graph) continue;
          Job job = one;
          job.plan = plan;
          job.mesh = mesh;
          job.backend = backend;
          job.graph = graph;
          job.accumulate = accumulate;
          INFO(job.name() << (graph ? ", graph" : ""));
          const Outcome run = train_job(job);
          CHECK(largest_difference(run.losses, expected.losses) < tolerance);
          CHECK(disagreement(job, run, expected) == "");
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("training on an emulated device gives the host's losses") {
  const auto device = emulated_backend();
  check_training(device.get(), 1e-4);
}

}  // namespace meshard
