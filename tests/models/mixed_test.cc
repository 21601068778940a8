// Training in bf16 with parameters in f32: the losses of f32 within a percent, on every plan and mesh those of one device
// within bf16's rounding.
#include <catch2/catch.hpp>

#include "meshard/backend/backend.h"
#include "meshard/models/plans.h"
#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

TEST_CASE("bf16 learns as f32 does") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    INFO(model);
    const Outcome wide = train_job({.model = model, .dtype = Dtype::f32, .steps = 40});
    const Outcome narrow = train_job({.model = model, .dtype = Dtype::f32, .steps = 40, .mixed = true});
    CHECK(largest_difference(narrow.losses, wide.losses) < 0.01);
    CHECK(largest_difference(narrow.losses, wide.losses) > 1e-7);  // they are not the same program
    CHECK(narrow.losses.back() < 4);
    CHECK(narrow.first == wide.first);  // the parameters are f32
  }
}

TEST_CASE("every plan gives the losses of one device, bf16") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    for (int64_t accumulate : {1, 2}) {
      const Job alone{.model = model, .dtype = Dtype::f32, .batch = 4, .steps = 3, .accumulate = accumulate, .mixed = true};
      const Outcome one = train_job(alone);
      for (const std::string& plan : builtin_plan_names()) {
        for (int64_t devices : {2, 3}) {
          for (const std::string& mesh : meshes(plan, devices)) {
            Job job = alone;
            job.plan = plan;
            job.mesh = mesh;
            INFO(job.name());
            const Outcome run = train_job(job);
            CHECK(largest_difference(run.losses, one.losses) <= 2e-3);
            CHECK(largest_difference(run.grad_norms, one.grad_norms) <= 2e-2);
            CHECK(disagreement(job, run, one) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("ZeRO-3 gathers half the bytes in bf16") {
  // Long enough a batch that weights travel and not tokens.
  const Job wide{.plan = "zero3", .mesh = "data=2", .dtype = Dtype::f32, .batch = 64, .seq = 32, .steps = 1};
  Job narrow = wide;
  narrow.mixed = true;
  const auto gathered = [](const Compiled& c) {
    int64_t bytes = 0;
    for (const BillLine& line : c.bill.lines) bytes += line.kind == Collective::all_gather ? line.bytes : 0;
    return static_cast<double>(bytes);
  };
  const double ratio = gathered(compile_job(narrow)) / gathered(compile_job(wide));
  CHECK(ratio > 0.49);
  CHECK(ratio < 0.53);  // the norms' weights stay f32
}

TEST_CASE("bf16 on an emulated device gives the losses of the host") {
  const auto device = emulated_backend();
  const Job host{.plan = "data_tensor", .mesh = "data=2, model=2", .dtype = Dtype::f32, .batch = 4, .steps = 2, .mixed = true};
  Job on_device = host;
  on_device.backend = device.get();
  CHECK(largest_difference(train_job(on_device).losses, train_job(host).losses) <= 2e-3);
}

}  // namespace
}  // namespace meshard
