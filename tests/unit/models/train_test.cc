#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "meshard/autodiff/differentiate.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/tests/unit/autodiff/interpreter.h"

namespace meshard {
namespace {

using test::Data;
using test::DataMap;

// Small enough for central differences, with heads, hidden units and layers that differ in number.
ModelConfig tiny(const std::string& family) {
  return model_config(family + "-tiny:d=6,heads=2,d_head=4,f=5,vocab=7,layers=2" +
                      (family == "llama" ? ",kv_heads=1" : ""));
}

TEST_CASE("the gradients of both families are right") {
  for (const char* family : {"gpt", "llama"}) {
    ModelConfig c = tiny(family);
    c.context = 3;
    Trace trace(op_table(), Dtype::f64);
    Value tokens = trace.scope().input("tokens", Dtype::i32, {2, 3}, c.vocab);
    Value loss = model_loss(trace.scope(), c, tokens, trace.scope().input("targets", Dtype::i32, {2, 3}, c.vocab));
    const std::vector<Value> params = trace.params(), found = gradients(trace, loss, params);
    trace.result(loss);
    for (const Value& g : found) trace.result(g);
    const Program program = trace.program();
    const DataMap inputs = test::draw_inputs(program);
    for (size_t i = 0; i < params.size(); ++i) {
      CHECK(found[i].name() == params[i].name() + ".grad");
      test::check_gradient(program, inputs, "loss", params[i].name(), found[i].name(), 3);
    }
  }
}

Program train_program(const ModelConfig& c, int64_t accumulate, const AdamWConfig& optimizer) {
  Trace trace(op_table(), Dtype::f64);
  const TrainStep step = trace_train_step(trace, c, 4, 3, optimizer, accumulate);
  CHECK(step.loss.name() == "loss");
  CHECK(step.grad_norm.name() == "grad_norm");
  return trace.program();
}

TEST_CASE("accumulating over micro-batches is the same step") {
  for (const char* family : {"gpt", "llama"}) {
    const Program one = train_program(tiny(family), 1, {}), four = train_program(tiny(family), 4, {});
    DataMap inputs = test::draw_inputs(one);
    for (auto& [name, data] : inputs) {
      if (name.ends_with(".v"))
        std::transform(data.x.begin(), data.x.end(), data.x.begin(), [](double v) { return std::abs(v); });
    }
    inputs["rate"].x = {0.01};
    inputs["step"].x = {3};
    const DataMap whole = test::run_program(one, inputs);
    inputs["tokens"].type.shape = inputs["targets"].type.shape = Shape{4, 1, 3};
    const DataMap parts = test::run_program(four, inputs);
    REQUIRE(whole.size() == parts.size());
    for (const auto& [name, data] : whole) {
      INFO(name);
      for (size_t i = 0; i < data.x.size(); ++i)
        CHECK(parts.at(name).x[i] == Approx(data.x[i]).epsilon(1e-9).margin(1e-12));
    }
  }
}

TEST_CASE("one step of AdamW, by hand") {
  const AdamWConfig optimizer{0.9, 0.95, 1e-8, 0.1, 0.05};
  const ModelConfig c = tiny("gpt");
  const Program program = train_program(c, 1, optimizer);
  DataMap inputs = test::draw_inputs(program);
  for (auto& [name, data] : inputs) {
    if (name.ends_with(".m") || name.ends_with(".v")) std::fill(data.x.begin(), data.x.end(), 0.0);
  }
  inputs["rate"].x = {0.01};
  inputs["step"].x = {1};
  const DataMap out = test::run_program(program, inputs);

  Trace trace(op_table(), Dtype::f64);
  ModelConfig sized = c;
  sized.context = 3;
  Value tokens = trace.scope().input("tokens", Dtype::i32, {4, 3}, c.vocab);
  Value loss = model_loss(trace.scope(), sized, tokens, trace.scope().input("targets", Dtype::i32, {4, 3}, c.vocab));
  for (const Value& g : gradients(trace, loss, trace.params())) trace.result(g);
  const DataMap grads = test::run_program(trace.program(), inputs);
  double squares = 0;
  for (const auto& [name, g] : grads) {
    for (double x : g.x) squares += x * x;
  }
  const double norm = std::sqrt(squares);
  CHECK(out.at("grad_norm").x[0] == Approx(norm));
  REQUIRE(norm > optimizer.clip_norm);  // so that clipping is seen
  const double clip = optimizer.clip_norm / (norm + 1e-6);
  for (const std::string name :
       {"embedding", "positions", "norm_b", "block.0.wq", "block.1.bq", "block.1.down", "block.0.norm1"}) {
    const bool decayed = name == "embedding" || name == "positions" || name == "block.0.wq" || name == "block.1.down";
    INFO(name);
    for (size_t i = 0; i < out.at(name + ".new").x.size(); ++i) {
      const double g = grads.at(name + ".grad").x[i] * clip, w = inputs.at(name).x[i];
      // The first step: m and v without bias are g and g^2.
      const double expected = w - 0.01 * (g / (std::abs(g) + 1e-8) + (decayed ? 0.1 * w : 0));
      CHECK(out.at(name + ".new").x[i] == Approx(expected));
      CHECK(out.at(name + ".m.new").x[i] == Approx(0.1 * g));
      CHECK(out.at(name + ".v.new").x[i] == Approx(0.05 * g * g));
    }
  }
}

TEST_CASE("training programs for logits and evaluation") {
  Trace trace(op_table(), Dtype::f64);
  trace_logits(trace, tiny("llama"), 1, 5);
  const Program p = trace.program();
  DataMap inputs = test::draw_inputs(p);
  const Data before = test::run_program(p, inputs).at("logits");
  CHECK(before.type == Type::parse("f64[1,5,7]"));
  inputs["tokens"].x[4] = std::fmod(inputs["tokens"].x[4] + 1, 7);  // later tokens do not change earlier scores
  const Data after = test::run_program(p, inputs).at("logits");
  for (size_t i = 0; i < 35; ++i) CHECK((i >= 28 || before.x[i] == after.x[i]));

  Trace eval(op_table(), Dtype::f64);
  trace_eval_step(eval, tiny("gpt"), 2, 3);
  CHECK(test::run_program(eval.program(), test::draw_inputs(eval.program())).count("loss") == 1);
}

TEST_CASE("the learning rate warms up, then follows a cosine down to the floor") {
  const ScheduleConfig c{1.0, 0.1, 10, 110};
  CHECK(learning_rate(0, c) == Approx(0.1));
  CHECK(learning_rate(9, c) == Approx(1.0));
  CHECK(learning_rate(10, c) == Approx(1.0));
  CHECK(learning_rate(60, c) == Approx(0.55));
  CHECK(learning_rate(110, c) == Approx(0.1));
  CHECK(learning_rate(1000, c) == Approx(0.1));
  CHECK(learning_rate(0, {1.0, 0.1, 0, 0}) == Approx(0.1));
  CHECK(learning_rate(3, {1.0, 0.1, 10, 5}) == Approx(0.4));
}

}  // namespace
}  // namespace meshard
