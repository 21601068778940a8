// Micro-batches: the loss of the large batch, and a gradient that a plan keeps pending is reduced once a step.
#include <catch2/catch.hpp>
#include <map>

#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

const Job kLarge{.batch = 8, .seq = 8, .steps = 4};

TEST_CASE("four micro-batches give the losses of the large batch") {
  for (const std::string model : {"gpt-tiny", "llama-tiny"}) {
    Job job = kLarge;
    job.model = model;
    const Outcome large = train_job(job);
    job.accumulate = 4;
    const Outcome one = train_job(job);
    CHECK(largest_difference(one.losses, large.losses) <= 1e-9);
    CHECK(largest_difference(one.grad_norms, large.grad_norms) <= 1e-9);
    for (const std::string plan : {"data", "zero1", "zero2", "zero3", "tensor", "data_tensor"}) {
      job.plan = plan;
      // 2 rows of a micro-batch over 3 devices leave one without work.
      for (const std::string& mesh : meshes(plan, plan == "data_tensor" ? 4 : 3)) {
        job.mesh = mesh;
        INFO(job.name());
        const Outcome run = train_job(job);
        CHECK(largest_difference(run.losses, large.losses) <= 1e-9);
        CHECK(disagreement(job, run, one) == "");
      }
    }
  }
}

// Runs in a step of the collectives whose value is the gradient of `param` on its way to the optimizer, by kind.
std::map<std::string, int64_t> reductions(const Bill& bill, const std::string& param) {
  std::map<std::string, int64_t> out;
  for (const BillLine& line : bill.lines) {
    for (const std::string& full : line.values) {
      const std::string value = full.substr(full.rfind('%') + 1);
      for (const std::string part : {".d", ".grad", ".total", ".sum", ".sum.new"}) {
        if (value == param + part || value.starts_with(param + part + "@"))
          out[std::string(name(line.kind))] += line.count;
      }
    }
  }
  return out;
}

TEST_CASE("a pending gradient is reduced once a step, whatever the number of micro-batches") {
  using Counts = std::map<std::string, int64_t>;
  const auto counts = [](const std::string& plan, int64_t accumulate, const std::string& param) {
    Job job = kLarge;
    job.plan = plan;
    job.mesh = "data=2";
    job.accumulate = accumulate;
    job.batch = 64, job.seq = 64;  // only planned: with few tokens it is cheaper to gather those than to reduce gradients
    return reductions(compile_job(job).bill, param);
  };
  for (int64_t accumulate : {1, 4}) {
    INFO("accumulate " << accumulate);
    // Of main, once; of a block, once for each of the two.
    CHECK(counts("data", accumulate, "embedding") == Counts{{"all_reduce", 1}});
    CHECK(counts("data", accumulate, "wq") == Counts{{"all_reduce", 2}});
    CHECK(counts("zero1", accumulate, "embedding") == Counts{{"reduce_scatter", 1}});
    CHECK(counts("zero1", accumulate, "down") == Counts{{"reduce_scatter", 2}});
    // ZeRO-2 keeps gradients split, so it pays for each micro-batch.
    CHECK(counts("zero2", accumulate, "embedding") == Counts{{"reduce_scatter", accumulate}});
    CHECK(counts("zero2", accumulate, "down") == Counts{{"reduce_scatter", 2 * accumulate}});
  }
}

}  // namespace
}  // namespace meshard
