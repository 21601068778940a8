// What holds of the partitioned text of every model and plan.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>

#include "meshard/ir/parse.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"
#include "meshard/sharding/lower.h"
#include "meshard/sharding/pin.h"
#include "meshard/sharding/propagate.h"

namespace meshard {
namespace {

Program train_step(const std::string& model, int64_t accumulate = 1) {
  Trace t(op_table());
  trace_train_step(t, model_config(model), 4, 6, AdamWConfig{}, accumulate);
  return t.program();
}

Plan plan(const std::string& name) { return Plan::parse(*builtin_plan(name), name + ".plan"); }

// Uneven for 4 heads, 2 key-value heads and a vocabulary of 257.
Mesh mesh(const std::string& plan) {
  if (plan == "tensor" || plan == "tensor_sequence") return Mesh::parse("model=3");
  if (plan == "data_tensor" || plan == "tensor_zero3") return Mesh::parse("data=2, model=3");
  return Mesh::parse("data=3");
}

int64_t lines(const Program& p) {
  const std::string text = print(p);
  return std::count(text.begin(), text.end(), '\n');
}

TEST_CASE("12 and 100 layers have partitioned texts of one length") {
  for (const std::string family : {"gpt-tiny", "llama-tiny"}) {
    for (const std::string name : {"tensor", "zero3", "data_tensor"}) {
      INFO(family << ", plan " << name);
      const auto begin = std::chrono::steady_clock::now();
      const Compiled small = compile(train_step(family + ":layers=12"), plan(name), mesh(name));
      const Compiled large = compile(train_step(family + ":layers=100"), plan(name), mesh(name));
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      CHECK(lines(small.local) == lines(large.local));
      CHECK(small.local.functions.size() == large.local.functions.size());
      CHECK(small.local.main().params.size() < large.local.main().params.size());
      // Seconds on a busy core; minutes would say that a block is planned once a call.
      CHECK(seconds < 30);
    }
  }
}

TEST_CASE("a block whose plan lines differ gets a function of its own") {
  const std::string text =
      "tokens, targets [...]\n"
      "block.1.up use [-, model] store [-, model]\nblock.1.up_b [model]\nblock.1.down [model, -]\n";
  const Compiled c =
      compile(train_step("gpt-tiny:layers=3"), Plan::parse(text, "one_block.plan"), Mesh::parse("model=2"));
  std::vector<std::string> names;
  for (const Function& f : c.local.functions) names.push_back(f.name);
  const auto count = [&](const std::string& name) { return std::count(names.begin(), names.end(), name); };
  CHECK(count("block") == 1);
  CHECK(count("block_2") == 1);
  CHECK(count("block_3") == 0);
  const std::string local = print(c.local);
  CHECK(local.find("call block as block.0 (") != std::string::npos);
  CHECK(local.find("call block_2 as block.1 (") != std::string::npos);
  CHECK(local.find("call block as block.2 (") != std::string::npos);
  // Only the split block talks.
  for (const Function& f : c.local.functions) {
    const bool talks = std::any_of(f.ops.begin(), f.ops.end(), [](const Op& op) {
      return op.kind == Op::apply && op.def->collective && *op.def->collective == Collective::all_reduce;
    });
    if (f.name == "block" || f.name == "block_vjp") CHECK_FALSE(talks);
    if (f.name == "block_2" || f.name == "block_vjp_2") CHECK(talks);
  }
}

TEST_CASE("every pass of every plan leaves a text that parses back to itself") {
  CompileOptions options;
  options.passes.reparse = true;
  options.optimize.overlap = true;
  for (const std::string family : {"gpt-tiny", "llama-tiny"}) {
    for (const std::string& name : builtin_plan_names()) {
      for (int64_t accumulate : {1, 2}) {
        INFO(family << ", plan " << name << ", accumulate " << accumulate);
        CHECK_NOTHROW(compile(train_step(family, accumulate), plan(name), mesh(name), options));
      }
    }
  }
}

TEST_CASE("partition only inserts: without layouts and collectives the global program is left") {
  for (const std::string family : {"gpt-tiny", "llama-tiny"}) {
    for (const std::string& name : builtin_plan_names()) {
      for (int64_t accumulate : {1, 2}) {
        INFO(family << ", plan " << name << ", accumulate " << accumulate);
        const Program pinned = pin(train_step(family, accumulate), plan(name), plan(name).bind(mesh(name)));
        bool lowered = false;
        Program global = lower(propagate(pinned), &lowered);
        if (lowered) global = propagate(global);
        // The loss is lowered exactly where the vocabulary is split.
        CHECK(lowered == (name.find("tensor") != std::string::npos));
        const Compiled compiled =
            compile(train_step(family, accumulate), plan(name), mesh(name), {.optimize = {.on = false}});
        CHECK(print(erase(compiled.local)) == print(erase(global)));
        if (!lowered) CHECK(print(erase(compiled.local)) == print(erase(pinned)));
      }
    }
  }
}

}  // namespace
}  // namespace meshard
