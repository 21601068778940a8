// Training in bf16 and f16 with parameters in f32: the losses of f32 within a percent, on every plan and mesh those of one device
// within bf16's rounding.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

#include "meshard/backend/backend.h"
#include "meshard/models/plans.h"
#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

Job in_f16(Job job) {
  job.dtype = Dtype::f32;
  job.mixed = true;
  job.narrow = Dtype::f16;
  job.loss_scale.emplace();
  return job;
}

TEST_CASE("bf16 learns as f32 does") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    INFO(model);
    const Outcome wide = train_job({.model = model, .dtype = Dtype::f32, .steps = 40});
    const Outcome narrow = train_job({.model = model, .dtype = Dtype::f32, .steps = 40, .mixed = true});
    CHECK(largest_difference(narrow.losses, wide.losses) < 0.01);
    CHECK(largest_difference(narrow.losses, wide.losses) > 1e-7);  // they are not the same program
    CHECK(narrow.losses.back() < 4);
    CHECK(narrow.first == wide.first);  // the parameters are f32
    // f16 has three bits more.
    const Outcome half = train_job(in_f16({.model = model, .steps = 40}));
    CHECK(largest_difference(half.losses, wide.losses) < 0.002);
    CHECK(largest_difference(half.losses, wide.losses) > 1e-8);
    CHECK(half.scales.back() == 65536);
    CHECK(half.last.at("loss_scale.good") == std::vector<double>{40});
  }
}

// The scale halves where the gradient's norm is not finite, and nowhere else.
void check_scales(const Outcome& run, double scale) {
  int64_t skipped = 0;
  for (size_t step = 0; step < run.scales.size(); ++step) {
    INFO("step " << step);
    CHECK(std::isfinite(run.losses[step]));
    if (!std::isfinite(run.grad_norms[step])) {
      scale /= 2;
      ++skipped;
    }
    CHECK(run.scales[step] == scale);
  }
  CHECK(run.last.at("loss_scale.skipped") == std::vector<double>{static_cast<double>(skipped)});
}

// The first step that changes a parameter.
int64_t first_good(const Outcome& run) {
  const auto at = std::find_if(run.grad_norms.begin(), run.grad_norms.end(), [](double x) { return std::isfinite(x); });
  return at - run.grad_norms.begin();
}

// Gradients of a scale of 2^40 do not fit: it halves step by step, parameters stay as they are, and then all goes on.
TEST_CASE("a loss scale that is too large falls until the gradients fit") {
  for (int64_t accumulate : {1, 2}) {
    Job job = in_f16({.batch = 4, .steps = 28, .accumulate = accumulate});
    job.loss_scale->first = 0x1p40;
    const Outcome one = train_job(job);
    check_scales(one, 0x1p40);
    const int64_t good = first_good(one);
    CHECK(good >= 8);
    REQUIRE(good < 24);
    CHECK(one.losses.back() < one.losses[static_cast<size_t>(good)]);
    // Nothing moves in a step that is skipped.
    Job short_job = job;
    short_job.steps = good;
    const Outcome before = train_job(short_job);
    for (const auto& [name, values] : before.first) {
      INFO(name);
      const bool same = before.last.at(name) == values;
      if (name != "loss_scale.good") CHECK(same != name.starts_with("loss_scale"));
    }
    for (const auto& [plan, mesh] : {std::pair{"zero3", "data=2"}, {"data_tensor", "data=2, model=2"}}) {
      Job split = job;
      split.plan = plan;
      split.mesh = mesh;
      INFO(split.name());
      const Outcome run = train_job(split);
      check_scales(run, 0x1p40);
      // The last bit of a gradient may decide on one step more.
      CHECK(std::abs(first_good(run) - good) <= 1);
      const auto steps = static_cast<std::ptrdiff_t>(good);
      CHECK(largest_difference({run.losses.begin(), run.losses.begin() + steps}, {one.losses.begin(), one.losses.begin() + steps}) <= 5e-4);
    }
  }
}

TEST_CASE("a loss scale doubles after good steps in a row") {
  Job job = in_f16({.batch = 2, .steps = 7});
  job.loss_scale = LossScaleConfig{.first = 8, .double_after = 3};
  const Outcome run = train_job(job);
  CHECK(run.scales == std::vector<double>{8, 8, 16, 16, 16, 32, 32});
  // Another scale does not change what is learned, but for numbers that are too small for f16.
  Job other = job;
  other.loss_scale = LossScaleConfig{.first = 4096, .double_after = 1000};
  CHECK(largest_difference(train_job(other).losses, run.losses) < 1e-3);
  job.loss_scale->first = 0x1p40;
  job.loss_scale->double_after = 1;
  job.mixed = false;  // in f32 nothing overflows
  CHECK(train_job(job).scales.back() == 0x1p40);
}

// Skipped steps in f32 arithmetic, where a scale changes nothing else: the losses are those of a run without one.
TEST_CASE("a loss scale changes no loss in f32") {
  for (int64_t accumulate : {1, 2}) {
    Job job{.dtype = Dtype::f32, .batch = 4, .steps = 4, .accumulate = accumulate};
    const Outcome plain = train_job(job);
    job.loss_scale.emplace();
    const Outcome scaled = train_job(job);
    CHECK(largest_difference(scaled.losses, plain.losses) < 1e-6);
    CHECK(largest_difference(scaled.grad_norms, plain.grad_norms) < 1e-5);
  }
}

// State is all that a run goes on from: what another State with the same values gives is the same to the bit.
TEST_CASE("f16 goes on where it was stopped, bit for bit, the scale too") {
  Job job = in_f16({.batch = 2, .steps = 20});
  job.loss_scale = LossScaleConfig{.first = 0x1p36, .double_after = 4};
  const Outcome whole = train_job(job);
  Job first = job, second = job;
  first.steps = 9;
  second.begin = 9;
  const Outcome half = train_job(first);
  second.start_from = &half.last;
  const Outcome rest = train_job(second);
  CHECK(std::vector(whole.losses.begin() + 9, whole.losses.end()) == rest.losses);
  CHECK(std::vector(whole.scales.begin() + 9, whole.scales.end()) == rest.scales);
  CHECK(whole.last == rest.last);
}

// Every plan on 2 and 3 devices gives what one device gives: losses and norms within the bounds, the scales exactly.
void check_plans(const Job& alone, const Outcome& one, double losses, double norms) {
  for (const std::string& plan : builtin_plan_names()) {
    for (int64_t devices : {2, 3}) {
      for (const std::string& mesh : meshes(plan, devices)) {
        Job job = alone;
        job.plan = plan;
        job.mesh = mesh;
        INFO(job.name());
        const Outcome run = train_job(job);
        CHECK(largest_difference(run.losses, one.losses) <= losses);
        CHECK(largest_difference(run.grad_norms, one.grad_norms) <= norms);
        CHECK(run.scales == one.scales);
        CHECK(disagreement(job, run, one) == "");
      }
    }
  }
}

TEST_CASE("every plan gives the losses of one device, bf16") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    for (int64_t accumulate : {1, 2}) {
      const Job alone{.model = model, .dtype = Dtype::f32, .batch = 4, .steps = 3, .accumulate = accumulate, .mixed = true};
      const Outcome one = train_job(alone);
      check_plans(alone, one, 2e-3, 2e-2);
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

TEST_CASE("every plan gives the losses of one device, f16") {
  const Job alone = in_f16({.batch = 4, .steps = 3});
  const Outcome one = train_job(alone);
  check_plans(alone, one, 5e-4, 5e-3);
}

// The scale falls inside of a captured graph as it does without one.
TEST_CASE("f16 on an emulated device gives the losses of the host") {
  const auto device = emulated_backend();
  for (const bool graph : {true, false}) {
    Job host = in_f16({.plan = "data_tensor", .mesh = "data=2, model=2", .batch = 4, .steps = 16});
    host.loss_scale->first = 0x1p36;
    Job on_device = host;
    on_device.backend = device.get();
    on_device.graph = graph;
    const Outcome here = train_job(host), there = train_job(on_device);
    check_scales(there, 0x1p36);
    CHECK(std::abs(first_good(there) - first_good(here)) <= 1);
    CHECK(largest_difference(there.losses, here.losses) <= 2e-2);
    CHECK(there.last.at("loss_scale.skipped")[0] > 3);
  }
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
