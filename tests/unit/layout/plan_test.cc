#include "meshard/layout/plan.h"

#include <catch2/catch.hpp>

#include "meshard/base/error.h"

namespace meshard {
namespace {

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.diagnostic().place.str() + ": " + error.diagnostic().text;
  }
  return "no error";
}

std::string parse_error(std::string_view text) {
  return error_of([&] { Plan::parse(text, "gpt.plan"); });
}

// The layout as text, "none" where no line matches.
std::string found(const Plan& plan, std::string_view name, const Shape& shape, Role role) {
  const Mesh mesh = plan.bind(std::nullopt);
  const std::optional<Layout> layout = plan.find(name, shape, role, mesh);
  return layout ? layout->str(mesh) : "none";
}

constexpr std::string_view kPlan = R"(# a plan with everything
mesh data=2, model=4
tokens, targets     [data, -]
block.*.wq          use [-, model, -]    store [data, model, -]   # ZeRO-3
block.*.up          use [-, model]       state [data, model]      // ZeRO-1
block.*.wo          use [model, ...]  grad [model, ...] + sum(data)   # reduced once
block.*.down        [model, -]

block.*.residual    [data, model, -]
block.*.act         use [data, -]  grad [-, data]
router.* optional   [-, -]
)";

}  // namespace

TEST_CASE("patterns match part by part") {
  CHECK(matches("block.*.wq", "block.0.wq"));
  CHECK(matches("block.*.wq", "block.11.wq"));
  CHECK(!matches("block.*.wq", "block.0.attention.wq"));
  CHECK(!matches("block.*.wq", "block.0.wq1"));
  CHECK(!matches("block.*.wq", "block.0"));
  CHECK(matches("block.*.w*", "block.0.wq"));
  CHECK(matches("block.*.w*", "block.0.w"));
  CHECK(!matches("block.*.w*", "block.0.up"));
  CHECK(matches("*.*.*q", "block.0.wqq"));
  CHECK(matches("*", "tokens"));
  CHECK(!matches("*", "block.0"));
  CHECK(!matches("block.*", "block.0.wq"));
  CHECK(matches("a*b*c", "aXbYbc"));
  CHECK(!matches("a*b*c", "aXbY"));
  CHECK(!matches("", "a"));
  CHECK(matches("", ""));
}

TEST_CASE("a plan as written") {
  const Plan plan = Plan::parse(kPlan, "gpt.plan");
  CHECK(plan.file() == "gpt.plan");
  CHECK(plan.text() == kPlan);
  REQUIRE(plan.mesh());
  CHECK(plan.mesh()->str() == "data=2, model=4");
  REQUIRE(plan.lines().size() == 8);
  CHECK(plan.lines()[0].patterns == std::vector<std::string>{"tokens", "targets"});
  CHECK(plan.lines()[0].place == Place{"gpt.plan", 3, 1});
  CHECK(!plan.lines()[0].optional);
  CHECK(plan.lines()[7].optional);
  const PlanLine& wo = plan.lines()[3];
  CHECK(wo.roles[static_cast<size_t>(Role::use)].text == "[model, ...]");
  CHECK(wo.roles[static_cast<size_t>(Role::grad)].text == "[model, ...] + sum(data)");
  CHECK(wo.roles[static_cast<size_t>(Role::grad)].place == Place{"gpt.plan", 6, 44});
  CHECK(!wo.roles[static_cast<size_t>(Role::store)].given);
  CHECK(Plan::parse("", "p").lines().empty());
  CHECK(Plan::parse("# nothing\r\n\r\n", "p").lines().empty());
}

TEST_CASE("roles that are left out follow") {
  const Plan plan = Plan::parse(kPlan, "gpt.plan");
  const auto all = [&](std::string_view name, const Shape& shape) {
    std::vector<std::string> out;
    for (Role role : {Role::use, Role::grad, Role::state, Role::store}) out.push_back(found(plan, name, shape, role));
    return out;
  };
  using Texts = std::vector<std::string>;
  CHECK(all("block.0.wq", {8, 4, 2}) ==
        Texts{"[-, model, -]", "[data, model, -]", "[data, model, -]", "[data, model, -]"});
  CHECK(all("block.1.up", {8, 4}) == Texts{"[-, model]", "[data, model]", "[data, model]", "[-, model]"});
  CHECK(all("block.0.wo", {4, 2, 8}) ==
        Texts{"[model, -, -]", "[model, -, -] + sum(data)", "[model, -, -]", "[model, -, -]"});
  CHECK(all("block.0.down", {4, 2}) == Texts{"[model, -]", "[model, -]", "[model, -]", "[model, -]"});
  CHECK(all("block.0.norm", {4}) == Texts{"none", "none", "none", "none"});
  CHECK(found(plan, "tokens", {3, 5}, Role::none) == "[data, -]");
  CHECK(found(plan, "block.0.residual", {3, 5, 8}, Role::none) == "[data, model, -]");
  CHECK(found(plan, "block.0.act", {3, 5}, Role::none) == "[data, -]");
  CHECK(found(plan, "block.0.act", {3, 5}, Role::grad) == "[-, data]");
  CHECK(found(plan, "mask", {3, 5}, Role::none) == "none");
}

TEST_CASE("for each role the first line that gives it decides") {
  const Plan plan = Plan::parse(
      "mesh data=2, model=4\n"
      "a.wq  use [-, model]\n"
      "a.*   state [data, -]\n"
      "a.*   [model, -]\n",
      "p");
  CHECK(found(plan, "a.wq", {4, 4}, Role::use) == "[-, model]");
  CHECK(found(plan, "a.wq", {4, 4}, Role::state) == "[data, -]");
  CHECK(found(plan, "a.wq", {4, 4}, Role::store) == "[model, -]");
  CHECK(found(plan, "a.wk", {4, 4}, Role::use) == "[model, -]");
  CHECK(found(plan, "a.wk", {4, 4}, Role::state) == "[data, -]");
  const Plan state = Plan::parse("mesh data=2\nw state [data]", "p");
  CHECK(found(state, "w", {4}, Role::use) == "none");
  CHECK(found(state, "w", {4}, Role::store) == "none");
  CHECK(found(state, "w", {4}, Role::grad) == "[data]");
  Place where;
  CHECK(plan.find("a.wk", {4, 4}, Role::use, *plan.mesh(), &where));
  CHECK(where == Place{"p", 4, 7});
}

TEST_CASE("errors of a layout name the tensor and show the line") {
  const Plan plan = Plan::parse("mesh data=2, model=4\n\n\nblock.*.up   [data, model, -]\n", "gpt.plan");
  const Mesh mesh = plan.bind(std::nullopt);
  const std::string place =
      "gpt.plan:4:14: layout [data, model, -] has 3 entries, but block.0.up [64,256] has 2 dimensions";
  CHECK(error_of([&] { plan.find("block.0.up", {64, 256}, Role::use, mesh); }) == place);
  try {
    plan.find("block.0.up", {64, 256}, Role::use, mesh);
  } catch (const UserError& error) {
    CHECK(std::string(error.what()) == place + "\n  block.*.up   [data, model, -]\n               ^");
  }
}

TEST_CASE("the mesh of a plan") {
  const Plan plan = Plan::parse("mesh data=2, model=4, spare=3\nw [data, model:2]\n", "p");
  CHECK(plan.bind(std::nullopt).str() == "data=2, model=4, spare=3");
  CHECK(plan.bind(Mesh::parse("model=6, data=1")).str() == "model=6, data=1");
  CHECK(plan.bind(Mesh::parse("model=1, data=1")).size() == 1);
  CHECK(error_of([&] { plan.bind(Mesh::parse("model=3, data=1")); }) ==
        "p:2:10: model:2 is no part of model=3: 2 does not divide 3");
  CHECK(error_of([&] { plan.bind(Mesh::parse("model=2")); }) == "p:2:4: no axis \"data\" in mesh model=2");
  CHECK(error_of([] { Plan::parse("w [-]", "p").bind(std::nullopt); }) ==
        "p: the plan has no mesh line and none is given; give one, as in --mesh \"data=2, model=4\"");
  const Plan cut = Plan::parse("v [model:3]\nw [model:(3)2]", "p");
  const Mesh mesh = cut.bind(Mesh::parse("model=6"));
  CHECK(mesh.atom_size(0) == 3);
  CHECK(error_of([] { Plan::parse("v [model:3]\nw [model:2]", "p").bind(Mesh::parse("model=6")); }) ==
        "p:1:4: model=6 is cut at 3 here and at 2 at p:2:4; the factors of an axis have one order, so one cut must "
        "divide the other");
}

TEST_CASE("an axis that is not there is found by bind") {
  const Plan plan = Plan::parse("mesh data=2, model=4\nw   use [data, -]  state [-, modle]", "gpt.plan");
  CHECK(error_of([&] { plan.bind(std::nullopt); }) ==
        "gpt.plan:2:30: no axis \"modle\" in mesh data=2, model=4; did you mean \"model\"?");
}

TEST_CASE("syntax errors of a plan") {
  CHECK(parse_error("tokens") == "gpt.plan:1:7: no layout for tokens; write one, such as [-, ...]");
  CHECK(parse_error("tokens,") == "gpt.plan:1:8: expected a name, which may hold \"*\", but found the end of the text");
  CHECK(parse_error("\n[data]") == "gpt.plan:2:1: expected a name, which may hold \"*\", or \"mesh\" but found \"[\"");
  CHECK(parse_error("w used [data]") ==
        "gpt.plan:1:3: no role \"used\"; there are use, grad, state and store; did you mean \"use\"?");
  CHECK(parse_error("w use [data] use [-]") == "gpt.plan:1:14: use has a layout on this line already, [data]");
  CHECK(parse_error("w [data] state [-]") ==
        "gpt.plan:1:10: a line has one layout for all roles, or each layout behind its role: use, grad, state, store");
  CHECK(parse_error("w [data] [-]") == "gpt.plan:1:10: the layout ends here, but text follows");
  CHECK(parse_error("w [data, ,]") == "gpt.plan:1:10: expected an axis, \"-\" (whole), \"?\" (open) or \"...\"");
  CHECK(parse_error("w [data, data]") == "gpt.plan:1:10: axis data is used twice; an axis splits one dimension, once");
  CHECK(parse_error("w [data") == "gpt.plan:1:8: expected \",\" but found the end of the text");
  CHECK(parse_error("w [data] + prod(model)") == "gpt.plan:1:12: no reduction \"prod\"; there are sum, max and min");
  CHECK(parse_error("w store [-] + sum(data)") ==
        "gpt.plan:1:9: store [-] + sum(data) leaves a reduction to be done; of a parameter only the gradient may be "
        "pending");
  CHECK(parse_error("mesh data=2\nmesh data=4") == "gpt.plan:2:1: a plan has one mesh, and gpt.plan:1:1 gives it");
  CHECK(parse_error("mesh data=0") == "gpt.plan:1:11: axis data has size 0; a size is 1 or more");
}

TEST_CASE("a line that matches nothing lists the names beside it") {
  const std::vector<std::string> names = {"tokens",        "block.0.norm1", "block.0.wq", "block.0.wk", "block.0.up",
                                          "block.1.norm1", "block.1.wq",    "block.1.wk", "block.1.up", "final"};
  const auto error = [&](std::string_view text) {
    return error_of([&] { Plan::parse(text, "gpt.plan").check_all_match(names); });
  };
  CHECK(error("tokens [-]\nblock.*.w* [-]\nno.such optional [-]") == "no error");
  CHECK(error("\nblock.*.gate [-]") ==
        "gpt.plan:2: \"block.*.gate\" matches nothing; names under block.0: norm1 wq wk up");
  CHECK(error("block.7.wq [-]") == "gpt.plan:1: \"block.7.wq\" matches nothing; names under block: 0 1");
  CHECK(error("blocks.*.wq [-]") == "gpt.plan:1: \"blocks.*.wq\" matches nothing; names: tokens block final");
  CHECK(error("block.* [-]") == "gpt.plan:1: \"block.*\" matches nothing; names under block.0: norm1 wq wk up");
  CHECK(error("x, y [-]") == "gpt.plan:1: \"x\", \"y\" match nothing; names: tokens block final");
  CHECK(error("x, tokens [-]") == "no error");
  CHECK(error_of([] { Plan::parse("x [-]", "p").check_all_match({}); }) ==
        "p:1: \"x\" matches nothing; the program has no names");
  std::vector<std::string> many;
  for (int i = 0; i < 30; ++i) many.push_back("n" + std::to_string(i));
  CHECK(error_of([&] { Plan::parse("x [-]", "p").check_all_match(many); }) ==
        "p:1: \"x\" matches nothing; names: n0 n1 n2 n3 n4 n5 n6 n7 n8 n9 n10 n11 n12 n13 n14 n15 n16 n17 n18 n19 ...");
}

}  // namespace meshard
