// An op whose `lower` factors are split is rebuilt from other ops, which give the same: whole, and on every mesh.
#include <catch2/catch.hpp>

#include "interpret.h"
#include "meshard/ir/trace.h"
#include "meshard/ops/table.h"

namespace meshard::test {

namespace {

// Lowers the op for operands in the layouts that `atoms` say, and runs what it becomes: whole, and on the mesh.
void check(const Case& c, const std::vector<Tensor>& operands, const std::vector<Tensor>& expected, const Mesh& mesh,
           const FactorAtoms& atoms) {
  const BoundRule rule = c.rule();
  Trace trace(op_table());
  trace.building().mesh = mesh;
  std::vector<Value> params;
  std::vector<Layout> layouts;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    params.push_back(trace.main().param("x" + std::to_string(i), c.operands[i], {}, c.below));
    layouts.push_back(layout_from_factors(rule.operands[i], atoms));
    trace.main().function().value(params[i].id()).layout = layouts[i];
  }
  Lowering lowering(trace.main(), c.attributes, params, "y");
  c.def->lower(lowering);
  REQUIRE(static_cast<int>(lowering.results().size()) == c.def->results);
  std::vector<ValueId> wanted;
  for (size_t r = 0; r < lowering.results().size(); ++r) {
    const Value result = lowering.results()[r];
    REQUIRE(result.type() == c.results()[r]);
    const std::string part(c.def->result_names.empty() ? "" : c.def->result_names[r]);
    REQUIRE(result.name() == (part.empty() ? "y" : "y." + part));
    wanted.push_back(result.id());
  }
  const Function& f = trace.main().function();
  const std::vector<Tensor> whole = interpret(f, operands, wanted);
  const std::vector<Tensor> sharded = interpret_sharded(f, mesh, operands, layouts, wanted);
  for (size_t r = 0; r < expected.size(); ++r) {
    const std::string in_one = difference(whole[r], expected[r], c.tolerance());
    const std::string in_parts = difference(sharded[r], expected[r], c.tolerance());
    if (!in_one.empty()) FAIL_CHECK("whole: result " << r << ": " << in_one);
    if (!in_parts.empty()) FAIL_CHECK(assignment_text(mesh, rule, atoms) << ": result " << r << ": " << in_parts);
  }
}

}  // namespace

TEST_CASE("lowered ops equal the op") {
  for (const OpDef* def : computing_ops()) {
    if (!def->lower) continue;
    DYNAMIC_SECTION(def->name) {
      Random random(7);
      for (const Case& as_written : cases(*def)) {
        const Case c = as_written.with(Dtype::f64);
        if (!c.small()) continue;
        INFO(c.text);
        const BoundRule rule = c.rule();
        const std::vector<Tensor> operands = draw_operands(c, random);
        const std::vector<Tensor> expected = run_whole(c, operands);
        check(c, operands, expected, Mesh(), FactorAtoms(rule.factors.size()));
        int split = 0;
        for (const Mesh& mesh : meshes()) {
          for_each_assignment(mesh, rule, [&](const FactorAtoms& atoms) {
            if (!splits_lowered(rule, atoms)) return;
            ++split;
            check(c, operands, expected, mesh, atoms);
          });
        }
        CHECK(split > 0);
      }
    }
  }
}

}  // namespace meshard::test
