// An op whose `lower` factors are split is rebuilt from other ops, which give the same: whole, and on every mesh.
#include <catch2/catch.hpp>

#include "interpret.h"
#include "meshard/ir/trace.h"
#include "meshard/ops/table.h"

namespace meshard::test {

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
        Trace trace(op_table());
        std::vector<Value> params;
        for (size_t i = 0; i < c.operands.size(); ++i)
          params.push_back(trace.main().param("x" + std::to_string(i), c.operands[i], {}, c.below));
        Lowering lowering(trace.main(), c.attributes, params, "y");
        def->lower(lowering);
        REQUIRE(static_cast<int>(lowering.results().size()) == def->results);
        std::vector<ValueId> wanted;
        for (size_t r = 0; r < lowering.results().size(); ++r) {
          const Value result = lowering.results()[r];
          CHECK(result.type() == c.results()[r]);
          const std::string part(def->result_names.empty() ? "" : def->result_names[r]);
          CHECK(result.name() == (part.empty() ? "y" : "y." + part));
          wanted.push_back(result.id());
        }
        const std::vector<Tensor> operands = draw_operands(c, random);
        const std::vector<Tensor> expected = run_whole(c, operands);
        const Function& f = trace.main().function();
        const std::vector<Tensor> whole = interpret(f, operands, wanted);
        for (size_t r = 0; r < expected.size(); ++r) CHECK(difference(whole[r], expected[r], c.tolerance()) == "");
        int split = 0;
        for (const Mesh& mesh : meshes()) {
          for_each_assignment(mesh, rule, [&](const FactorAtoms& atoms) {
            if (!splits_lowered(rule, atoms)) return;
            ++split;
            std::vector<Layout> layouts;
            for (const auto& dims : rule.operands) layouts.push_back(layout_from_factors(dims, atoms));
            const std::vector<Tensor> sharded = interpret_sharded(f, mesh, operands, layouts, wanted);
            for (size_t r = 0; r < expected.size(); ++r) {
              const std::string different = difference(sharded[r], expected[r], c.tolerance());
              if (!different.empty())
                FAIL_CHECK(assignment_text(mesh, rule, atoms) << ": result " << r << ": " << different);
            }
          });
        }
        CHECK(split > 0);
      }
    }
  }
}

}  // namespace meshard::test
