#include "meshard/models/model.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "meshard/ir/parse.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/tests/unit/autodiff/interpreter.h"

namespace meshard {
namespace {

std::string message(const std::function<void()>& run) {
  try {
    run();
  } catch (const UserError& e) {
    return e.diagnostic().place.str() + (e.diagnostic().place.known() ? ": " : "") + e.diagnostic().text;
  }
  return "nothing was thrown";
}

int64_t traced_count(ModelConfig config, int64_t seq) {
  Trace trace(op_table());
  trace_eval_step(trace, config, 1, seq);
  int64_t n = 0;
  for (const Value& p : trace.params()) n += p.shape().elements();
  return n;
}

TEST_CASE("model names, overrides and what follows from them") {
  const ModelConfig c = model_config("gpt-124m:layers=2,d=256,heads=8,vocab=2048");
  CHECK(c.layers == 2);
  CHECK(c.d == 256);
  CHECK(c.d_head == 32);
  CHECK(c.kv_heads == 8);
  CHECK(c.f == 1024);
  CHECK(c.vocab == 2048);
  CHECK(c.context == 1024);
  CHECK(model_config("llama-tiny: tied=true, theta=5e5, d_head=32").tied);
  CHECK(model_config("llama-tiny:d_head=32").d_head == 32);
  CHECK(model_config("gpt-1.5b").layers == 48);
}

TEST_CASE("parameter counts") {
  CHECK(param_count(model_config("gpt-124m")) == 124475904);
  CHECK(param_count(model_config("llama-1b")) == 1235814400);
  CHECK(param_count(model_config("llama-8b")) == 8030261248);
  CHECK(param_count(model_config("llama-70b")) == 70553706496);
  for (const char* name : {"gpt-tiny:context=9", "llama-tiny", "llama-tiny:tied=true,kv_heads=4",
                           "gpt-tiny:tied=false,d_head=10,context=9"}) {
    CHECK(traced_count(model_config(name), 9) == param_count(model_config(name)));
  }
}

TEST_CASE("what model_config() refuses") {
  CHECK(message([] { model_config("gpt-124n"); }) == "model:1:1: no model \"gpt-124n\"; did you mean \"gpt-124m\"?");
  CHECK(message([] { model_config("resnet"); }).find("no model \"resnet\"; there are gpt-tiny, ") != std::string::npos);
  CHECK(message([] { model_config("gpt-tiny:lyers=2"); }) ==
        "model:1:10: a model has no \"lyers\"; did you mean \"layers\"?");
  CHECK(message([] { model_config("gpt-tiny:layers=0"); }) == "model:1:17: layers is 0; it must be 1 or more");
  CHECK(message([] { model_config("gpt-tiny:d=64,d=32"); }) == "model:1:15: d is given twice");
  CHECK(message([] { model_config("gpt-tiny:eps=-1"); }) == "model:1:14: eps is -1; it must be above 0");
  CHECK(message([] { model_config("gpt-tiny:tied=2x"); }).starts_with("model:1:15: "));
  CHECK(message([] { model_config("gpt-tiny:heads=5"); }) ==
        "gpt-tiny: heads=5 does not divide d=64; give heads that do, or d_head");
  CHECK(message([] { model_config("llama-tiny:kv_heads=3"); }) == "llama-tiny: kv_heads=3 does not divide heads=4");
  CHECK(message([] { model_config("gpt-tiny:kv_heads=2"); }) ==
        "gpt-tiny: kv_heads=2 but heads=4; only Llama models group their heads");
  CHECK(message([] { model_config("llama-tiny:d_head=15"); }) ==
        "llama-tiny: d_head=15 is odd; rotary positions turn pairs");
}

TEST_CASE("sizes that a training program can't have") {
  Trace trace(op_table());
  const ModelConfig c = model_config("gpt-tiny");
  CHECK(message([&] { trace_train_step(trace, c, 6, 8, {}, 4); }) ==
        "accumulate=4 does not divide batch=6; each round takes as many sequences");
  CHECK(message([&] { trace_train_step(trace, c, 0, 8, {}); }) ==
        "gpt-tiny: batch=0 and seq=8; both must be 1 or more");
  Value tokens = trace.scope().input("tokens", Dtype::i32, {2, 5}, 257);
  CHECK(message([&] { model_logits(trace.scope(), c, tokens); }) ==
        "gpt-tiny: tokens are i32[2,5], but the model has context=128 learned positions; set context=5");
}

int lines(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

std::string train_text(const std::string& model, int64_t accumulate) {
  Trace trace(op_table());
  trace_train_step(trace, model_config(model), 4, 8, {}, accumulate);
  return print(trace.program());
}

TEST_CASE("the text of a model has as many lines for 12 layers as for 100") {
  for (const std::string family : {"gpt", "llama"}) {
    const std::string base = family + "-tiny:d=8,heads=4,layers=";
    CHECK(lines(train_text(base + "12", 1)) == lines(train_text(base + "100", 1)));
    CHECK(lines(train_text(base + "12", 2)) == lines(train_text(base + "100", 2)));
  }
}

TEST_CASE("training programs print and parse back") {
  for (const char* model : {"gpt-tiny", "llama-tiny"}) {
    for (int64_t accumulate : {1, 2}) {
      const std::string text = train_text(model, accumulate);
      CHECK(print(parse_program(text, "again", op_table())) == text);
    }
  }
}

TEST_CASE("plans read, and each of their lines matches something in one of the families") {
  CHECK(builtin_plan_names() == std::vector<std::string>{"data", "data_tensor", "replicated", "tensor",
                                                         "tensor_sequence", "tensor_zero3", "zero1", "zero2", "zero3"});
  CHECK_FALSE(builtin_plan("zero4"));
  const Mesh mesh = Mesh::parse("data=2, model=3, other=2");
  for (const std::string& name : builtin_plan_names()) {
    INFO(name);
    const Plan plan = Plan::parse(*builtin_plan(name), name);
    const Mesh bound = plan.bind(mesh);
    for (const char* model : {"gpt-tiny:context=8", "llama-tiny"}) {
      Trace trace(op_table());
      trace_train_step(trace, model_config(model), 4, 8, {}, 2);
      std::vector<std::string> names{"x", "logits", "block.0.r", "block.0.y", "block.1.r", "block.1.y"};
      const Function& main = trace.main().function();
      for (size_t p = 0; p < main.params.size(); ++p) {
        if (main.param_info[p].kind == ParamInfo::state) continue;
        const ValueInfo& v = main.value(main.params[p]);
        names.push_back(v.name);
        const bool is_param = main.param_info[p].kind == ParamInfo::param;
        for (Role role : {Role::use, Role::grad, Role::state, Role::store}) {
          if (is_param) plan.find(v.name, v.type.shape, role, bound);
        }
        if (!is_param) plan.find(v.name, v.type.shape, Role::none, bound);
      }
      plan.check_all_match(names);
    }
  }
}

// ZeRO: where each plan keeps a large weight.
TEST_CASE("plans lay out the roles of a weight") {
  const Mesh mesh = Mesh::parse("data=2, model=2");
  const auto layout = [&](const std::string& plan, Role role) {
    const Plan p = Plan::parse(*builtin_plan(plan), plan);
    const std::optional<Layout> found = p.find("block.0.up", {64, 256}, role, p.bind(mesh));
    return found ? found->str(mesh) : "none";
  };
  CHECK(layout("zero1", Role::store) == "[-, -]");
  CHECK(layout("zero1", Role::grad) == "[-, -] + sum(data)");
  CHECK(layout("zero1", Role::state) == "[data, -]");
  CHECK(layout("zero2", Role::store) == "[-, -]");
  CHECK(layout("zero2", Role::grad) == "[data, -]");
  CHECK(layout("zero3", Role::use) == "[-, -]");
  CHECK(layout("zero3", Role::store) == "[data, -]");
  CHECK(layout("zero3", Role::grad) == "[data, -]");
  CHECK(layout("tensor", Role::use) == "[-, model]");
  CHECK(layout("data_tensor", Role::grad) == "[-, model] + sum(data)");
  CHECK(layout("data_tensor", Role::state) == "[-, model]");
  CHECK(layout("tensor_zero3", Role::use) == "[-, model]");
  CHECK(layout("tensor_zero3", Role::state) == "[data, model]");
}

}  // namespace
}  // namespace meshard
