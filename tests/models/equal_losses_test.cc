// Law 1 for whole models: on every plan and mesh the losses of one device. The full table is equal_losses_table.
#include <catch2/catch.hpp>

#include "meshard/models/plans.h"
#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

void check(const Job& job, const Outcome& one) {
  INFO(job.name());
  const Outcome run = train_job(job);
  CHECK(largest_difference(run.losses, one.losses) <= (job.dtype == Dtype::f64 ? 1e-9 : 1e-4));
  CHECK(largest_difference(run.grad_norms, one.grad_norms) <= (job.dtype == Dtype::f64 ? 1e-9 : 1e-3));
  CHECK(disagreement(job, run, one) == "");
}

TEST_CASE("a model learns on one device") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    const Outcome one = train_job({.model = model, .steps = 30});
    CHECK(one.losses.front() == Approx(5.55).margin(0.1));  // ln 257
    CHECK(one.losses.back() < 4);
  }
}

TEST_CASE("every plan on 3, 4 and 8 devices gives the losses of one, f64") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    const Outcome one = train_job({.model = model});
    for (const std::string& plan : builtin_plan_names()) {
      for (int64_t devices : {3, 4, 8}) {
        for (const std::string& mesh : meshes(plan, devices)) check({.model = model, .plan = plan, .mesh = mesh}, one);
      }
    }
  }
}

TEST_CASE("every plan on 2 and 6 devices gives the losses of one, f32") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    const Outcome one = train_job({.model = model, .dtype = Dtype::f32});
    for (const std::string& plan : builtin_plan_names()) {
      for (int64_t devices : {2, 6}) {
        for (const std::string& mesh : meshes(plan, devices))
          check({.model = model, .plan = plan, .mesh = mesh, .dtype = Dtype::f32}, one);
      }
    }
  }
}

TEST_CASE("fifty steps drift no further") {
  const Outcome f64 = train_job({.steps = 50}), f32 = train_job({.dtype = Dtype::f32, .steps = 50});
  check({.plan = "tensor_zero3", .mesh = "data=2, model=2", .steps = 50}, f64);
  check({.plan = "tensor", .mesh = "model=3", .dtype = Dtype::f32, .steps = 50}, f32);
}

TEST_CASE("a difference would be seen") {
  const Outcome one = train_job({.steps = 2});
  Outcome other = one;
  other.losses[1] *= 1 + 3e-9;
  CHECK(largest_difference(other.losses, one.losses) > 1e-9);
  other.losses[1] = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isinf(largest_difference(other.losses, one.losses)));
  other.first.at("norm")[0] = std::nextafter(other.first.at("norm")[0], 2.0);
  other.received[0] += 1;
  const std::string text = disagreement({.steps = 2}, other, one);
  CHECK(text == "%norm begins with other values than on one device\ndevice 0 received 1 bytes, billed are 0\n");
}

}  // namespace
}  // namespace meshard
