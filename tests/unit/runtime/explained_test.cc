// Explanations of a traced program, and the modes that judge by them.
#include "meshard/runtime/explained.h"

#include <catch2/catch.hpp>

#include "meshard/autodiff/differentiate.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/sharding/strict.h"

namespace meshard {
namespace {

// y is x in another layout, and the gradient goes the way back.
Program there_and_back() {
  Trace t(op_table());
  Scope s = t.scope();
  const Value in = s.input("in", Dtype::f32, {64, 8});
  const Value w = s.param("w", {8, 8}, Init{Init::normal, 1});
  const Value x = einsum("b i, i j -> b j", in, w).named("x");
  const Value y = reshard(x).named("y");
  const Value loss = mean(gelu(y)).named("loss");
  t.result(loss);
  t.result(gradients(t, loss, t.params())[0]);
  return t.program();
}

constexpr const char* kPlan = "in, x [data, -]\ny [-, data]\nloss []\n";

TEST_CASE("explicit mode takes the transpose of a written change of layout") {
  const Program program = there_and_back();
  const Plan plan = Plan::parse(kPlan, "there.plan");
  const Explained e = explain_plan(program, plan, Mesh::parse("data=2"));
  const std::vector<bool> good = written(e.why);
  REQUIRE(good.size() == e.why.list.size());
  int ways = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    INFO(e.why.text());
    CHECK(good[i]);
    ways += e.why.lines[e.why.list[i].line].kind == Collective::all_to_all;
  }
  CHECK(ways == 2);
  CompileOptions options;
  options.partition = parse_mode("explicit");
  CHECK_NOTHROW(compile(program, plan, Mesh::parse("data=2"), options));
  // Without the line for y the change is not asked for, nor is there one.
  CHECK_NOTHROW(compile(program, Plan::parse("in, x [data, -]\nloss []\n", "there.plan"), Mesh::parse("data=2"), options));
  // Without the line for the loss its sum is done unasked.
  CHECK_THROWS_WITH(compile(program, Plan::parse("in, x [data, -]\ny [-, data]\n", "there.plan"), Mesh::parse("data=2"), options),
                    Catch::StartsWith("explicit mode: 1 collective is neither written nor the transpose of a written one; write a line for each") &&
                        Catch::Contains("add the line \"loss []\""));
}

TEST_CASE("an explanation names the plan's lines, and the change of one that removes the collective") {
  const Explained e = explain_plan(there_and_back(), Plan::parse(kPlan, "there.plan"), Mesh::parse("data=2"));
  const auto found = std::find_if(e.why.list.begin(), e.why.list.end(), [](const Explanation& x) { return x.value == "%y"; });
  REQUIRE(found != e.why.list.end());
  CHECK(found->from == "[data, -]");
  CHECK(found->to == "[-, data]");
  REQUIRE(found->from_asked.size() == 1);
  CHECK(found->from_asked[0].place == Place{"there.plan", 1, 7});
  REQUIRE(found->to_asked.size() == 1);
  CHECK(found->to_asked[0].place == Place{"there.plan", 2, 3});
  CHECK(found->reshard_bytes == found->reshard_lower_bound);
  CHECK(found->messages == 1);
  CHECK(found->nanoseconds > 0);
  REQUIRE(!found->edits.empty());
  CHECK(found->edits[0].bytes_all_devices < 0);
  CHECK(found->edits[0].flops <= 0);
  // Every edit that is offered is one of a line of the plan or a new line.
  for (const RemovingEdit& edit : found->edits) CHECK((edit.place.line == 0 || edit.place.file == "there.plan"));
}

TEST_CASE("a budget that is too small names the least that is known") {
  CompileOptions options;
  options.partition = parse_mode("budget=10");
  const Program program = there_and_back();
  const Plan plan = Plan::parse(kPlan, "there.plan");
  const int64_t least = compile(program, plan, Mesh::parse("data=2")).bill.bytes;
  CHECK_THROWS_WITH(compile(program, plan, Mesh::parse("data=2"), options),
                    Catch::StartsWith("the program moves " + std::to_string(least) + " bytes on its busiest device, over the budget of 10; " +
                                      std::to_string(least) + " is the least known for these layouts"));
  options.partition.budget_bytes = least;
  CHECK_NOTHROW(compile(program, plan, Mesh::parse("data=2"), options));
}

TEST_CASE("a change of layout far above its lower bound is a warning") {
  Explanations all;
  all.mesh = Mesh::parse("data=4");
  all.lines.resize(2);
  all.lines[0].source = {"a.mesh", 3, 1};
  Explanation e;
  e.value = "%x";
  e.type = "f32[1048576]";
  e.from = "[data]";
  e.to = "[-]";
  e.made = "an input";
  e.read = "the program returns it";
  e.step = e.steps = 1;
  e.reshard_bytes = 3 << 20;
  e.reshard_lower_bound = 1 << 20;
  all.list = {e};
  REQUIRE(reshard_warnings(all).size() == 1);
  CHECK(reshard_warnings(all)[0].str() ==
        "a.mesh:3:1: %x f32[1048576] from [data] to [-] receives 3.00 MiB where 1.00 MiB would do: an input, the program returns it");
  all.list[0].reshard_lower_bound = 3 << 19;  // twice is allowed
  CHECK(reshard_warnings(all).empty());
  all.list[0].reshard_lower_bound = 0;
  all.list[0].reshard_bytes = 1 << 20;  // and so is 1 MiB
  CHECK(reshard_warnings(all).empty());
}

TEST_CASE("no search, no edits") {
  ExplainOptions options;
  options.most_edits = 0;
  options.most_alternatives = 0;
  const Explained e = explain_plan(there_and_back(), Plan::parse(kPlan, "there.plan"), Mesh::parse("data=2"), {}, options);
  for (const Explanation& x : e.why.list) {
    CHECK(x.edits.empty());
    CHECK(x.not_taken.empty());
    CHECK_FALSE(x.edits_searched);
  }
  CHECK(e.why.text().find("without it") == std::string::npos);
}

}  // namespace
}  // namespace meshard
