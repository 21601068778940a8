// What training on a backend must be equal to: the host's on one device.
#pragma once

#include <catch2/catch.hpp>

#include "meshard/backend/backend.h"
#include "meshard/tests/models/training.h"

namespace meshard {

inline void check_training(Backend* backend, double tolerance) {
  for (const char* model : {"gpt-tiny:layers=2,d=32,heads=2,vocab=256", "llama-tiny:layers=1,d=32,heads=4,kv_heads=2,vocab=256"}) {
    const Job one{.model = model, .dtype = Dtype::f32, .batch = 4, .seq = 12, .steps = 4};
    const Outcome expected = train_job(one);
    for (const auto& [plan, mesh] : {std::pair{"", ""}, {"data_tensor", "data=2, model=2"}, {"tensor_zero3", "data=2, model=2"}, {"zero3", "data=3"}}) {
      // Step by step; captured in the second step and replayed; and with a loop over micro-batches.
      for (const auto& [graph, accumulate] : {std::pair{false, 1}, {true, 1}, {true, 2}}) {
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

}  // namespace meshard
