// A cache gives the scores that the whole sequence gives, on every plan and however the tokens are cut.
#include <catch2/catch.hpp>

#include "meshard/base/error.h"
#include "meshard/collectives/lockstep.h"
#include "meshard/launch/generate.h"
#include "meshard/models/plans.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/simulate.h"
#include "meshard/tests/models/training.h"

namespace meshard {
namespace {

constexpr int64_t kBatch = 2, kLength = 13;

ModelConfig small(const std::string& name) {
  ModelConfig c = model_config(name);
  if (c.family == ModelConfig::gpt) c.context = kLength + 2;  // more positions than the cache has
  return c;
}

std::vector<int32_t> text() {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < kBatch * kLength; ++i) tokens.push_back(static_cast<int32_t>((i * 37 + i * i) % 251));
  return tokens;
}

struct Devices {
  std::vector<std::unique_ptr<Communicator>> owned;
  std::vector<Communicator*> comms;
  std::vector<Rank> ranks;
  explicit Devices(int64_t n) : owned(lockstep_communicators(static_cast<int>(n))) {
    for (const auto& c : owned) {
      comms.push_back(c.get());
      ranks.push_back(c->rank());
    }
  }
};

// Scores [b, t, v] of the whole text on one device, without a cache.
std::vector<double> whole_scores(ModelConfig c, Dtype dtype) {
  const int64_t width = c.family == ModelConfig::gpt ? c.context : kLength;
  Trace trace(op_table(), dtype);
  const Value tokens = trace.scope().input("tokens", Dtype::i32, {kBatch, width}, c.vocab);
  trace.result(model_logits(trace.scope(), c, tokens));
  const Compiled compiled = compile(without_layouts(trace.program()));
  const Devices one(1);
  State state(compiled.local, one.ranks);
  state.init(7);
  Executor e(compiled, &state, one.comms);
  std::vector<int32_t> padded(static_cast<size_t>(kBatch * width), 0);
  const std::vector<int32_t> seen = text();
  for (int64_t b = 0; b < kBatch; ++b) std::copy_n(seen.begin() + b * kLength, kLength, padded.begin() + b * width);
  e.set_input("tokens", View{padded.data(), Dtype::i32, {kBatch, width}});
  e.run();
  const std::vector<double> all = e.whole("logits");
  std::vector<double> out;
  for (int64_t b = 0; b < kBatch; ++b) {
    const auto begin = all.begin() + b * width * c.vocab;
    out.insert(out.end(), begin, begin + kLength * c.vocab);
  }
  return out;
}

// The largest difference from `whole` of scores behind each piece of the text.
double difference(const ModelConfig& c, Dtype dtype, const Plan& plan, const std::optional<Mesh>& mesh, std::vector<int64_t> widths,
                  const std::vector<int64_t>& pieces, const std::vector<double>& whole) {
  const GeneratorPrograms programs =
      compile_generator(c, plan, mesh, {.batch = kBatch, .length = kLength, .widths = std::move(widths), .dtype = dtype});
  const Devices devices(programs.programs[0].bill.mesh.size());
  State state(programs.local(), devices.ranks);
  state.init(7);
  Generator g(programs, state, devices.comms);
  const std::vector<int32_t> seen = text();
  double largest = 0;
  for (int round = 0; round < 2; ++round) {  // what was there before a reset does not matter
    int64_t at = 0;
    for (const int64_t n : pieces) {
      std::vector<int32_t> tokens;
      for (int64_t b = 0; b < kBatch; ++b) {
        const auto begin = seen.begin() + b * kLength + at;
        tokens.insert(tokens.end(), begin, begin + n);
      }
      at += n;
      const std::vector<double> scores = g.feed(tokens);
      REQUIRE(static_cast<int64_t>(scores.size()) == kBatch * c.vocab);
      for (int64_t b = 0; b < kBatch; ++b) {
        for (int64_t v = 0; v < c.vocab; ++v) {
          const double expected = whole[static_cast<size_t>((b * kLength + at - 1) * c.vocab + v)];
          largest = std::max(largest, std::abs(scores[static_cast<size_t>(b * c.vocab + v)] - expected));
        }
      }
    }
    CHECK(g.room() == kLength - at);
    g.reset();
  }
  return largest;
}

TEST_CASE("scores with a cache are those of the whole sequence") {
  for (const std::string name : {"gpt-tiny", "llama-tiny", "llama-tiny:kv_heads=2,heads=4"}) {
    const ModelConfig c = small(name);
    const std::vector<double> f64 = whole_scores(c, Dtype::f64), f32 = whole_scores(c, Dtype::f32);
    const Plan alone = Plan::parse(*builtin_plan("replicated"), "replicated.plan");
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>(kLength, 1), {5, 1, 1, 6}, {12, 1}, {3, 3, 3, 3, 1}}) {
      INFO(name << ", first piece of " << pieces[0]);
      CHECK(difference(c, Dtype::f64, alone, Mesh::parse("x=1"), {1, 4}, pieces, f64) < 1e-10);
      CHECK(difference(c, Dtype::f32, alone, Mesh::parse("x=1"), {1, 4}, pieces, f32) < 1e-4);
      CHECK(difference(c, Dtype::f32, alone, Mesh::parse("x=1"), {1, 2, 10}, pieces, f32) < 1e-4);
    }
  }
}

TEST_CASE("every plan gives the scores of one device") {
  for (const std::string name : {"gpt-tiny", "llama-tiny"}) {
    const ModelConfig c = small(name);
    const std::vector<double> f64 = whole_scores(c, Dtype::f64);
    for (const std::string& plan : builtin_plan_names()) {
      for (int64_t n : {2, 3, 4}) {
        for (const std::string& mesh : meshes(plan, n)) {
          INFO(name << ", plan " << plan << ", mesh " << mesh);
          CHECK(difference(c, Dtype::f64, Plan::parse(*builtin_plan(plan), plan + ".plan"), Mesh::parse(mesh), {1, 4}, {6, 1, 1}, f64) < 1e-10);
        }
      }
    }
  }
}

TEST_CASE("a tensor plan splits the cache by heads, and it stays where it is") {
  constexpr int64_t kLong = 1 << 16;
  const GeneratorPrograms programs = compile_generator(small("llama-tiny"), Plan::parse(*builtin_plan("tensor"), "tensor.plan"), Mesh::parse("model=2"),
                                                       {.batch = kBatch, .length = kLong, .widths = {1, 4}});
  const State state(programs.local(), {Rank{0}});
  const StateEntry* cache = state.find("block.0.cache_k");
  REQUIRE(cache != nullptr);
  CHECK(cache->layout.str(state.mesh()) == "[-, model, -, -]");
  for (const Compiled& p : programs.programs) CHECK(p.bill.peak_bytes - state.bytes(0) < state.view("block.0.cache_k", 0).bytes() / 8);
  // Two sums over the residual stream a layer, the embedding's, and the scores to all.
  CHECK(programs.programs[0].bill.lines.size() == 4);
}

TEST_CASE("wrong lengths are refused") {
  const ModelConfig c = small("gpt-tiny");
  const Plan plan = Plan::parse(*builtin_plan("replicated"), "replicated.plan");
  CHECK_THROWS_WITH(compile_generator(c, plan, Mesh::parse("x=1"), {.length = kLength + 3}),
                    Catch::Contains("a cache of 16 positions for tokens i32[1,1]; it has at least as many as the tokens, and at most the model's context=15"));
  for (const std::vector<int64_t>& widths : {std::vector<int64_t>{}, {2, 4}, {1, 4, 4}})
    CHECK_THROWS_WITH(compile_generator(c, plan, Mesh::parse("x=1"), {.length = 4, .widths = widths}), Catch::Contains("rise from 1"));
  const GeneratorPrograms programs = compile_generator(c, plan, Mesh::parse("x=1"), {.batch = 2, .length = 4});
  CHECK(programs.programs.size() == 1);
  const Devices one(1);
  State state(programs.local(), one.ranks);
  state.init(7);
  Generator g(programs, state, one.comms);
  const std::vector<int32_t> tokens(10, 1);
  CHECK_THROWS_WITH(g.feed(std::span(tokens).first(3)), "3 tokens for 2 sequences of which 4 positions are free; give as many of each, from 1 to that number");
  CHECK_THROWS_AS(g.feed(tokens), UserError);
  CHECK_THROWS_AS(g.feed({}), UserError);
  CHECK(g.position() == 0);
}

}  // namespace
}  // namespace meshard
