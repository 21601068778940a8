// Layouts change cost, never values: every assignment of mesh axes to factors, run shard by shard, equals the whole.
// And every `whole` is needed.
#include <catch2/catch.hpp>

#include "meshard/base/error.h"
#include "split_run.h"

namespace meshard::test {

TEST_CASE("split runs equal whole runs") {
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(1);
      for (const Case& as_written : cases(*def)) {
        const Case c = as_written.with(Dtype::f64);
        if (!c.small()) continue;
        INFO(c.text);
        const BoundRule rule = c.rule();
        const std::vector<Tensor> operands = draw_operands(c, random);
        const std::vector<Tensor> whole = run_whole(c, operands);
        for (const Mesh& mesh : meshes()) {
          for_each_assignment(mesh, rule, [&](const FactorAtoms& atoms) {
            if (splits_lowered(rule, atoms)) return;  // lowering_test.cc
            // The layouts that the assignment gives are those that a program's verifier takes.
            const LocalSpec local = local_spec(c, rule, mesh, atoms, Rank{0});
            std::string why;
            if (!find_split(mesh, *def, rule, local.operands, local.results, &why))
              FAIL_CHECK(assignment_text(mesh, rule, atoms) << ": refused: " << why);
            const std::vector<Tensor> split = run_split(c, mesh, atoms, operands);
            for (size_t r = 0; r < whole.size(); ++r) {
              const std::string different = difference(split[r], whole[r], c.tolerance());
              if (!different.empty())
                FAIL_CHECK(assignment_text(mesh, rule, atoms) << ": result " << r << ": " << different);
            }
          });
        }
      }
    }
  }
}

namespace {

// Whether the op gives something else, or refuses, when factor f is split over two devices.
bool breaks_when_split(const Case& c, size_t f, Random& random) {
  const Mesh mesh = Mesh::parse("a=2");
  const BoundRule rule = c.rule();
  FactorAtoms atoms(rule.factors.size());
  atoms[f] = mesh.axes()[0].atoms;
  const std::vector<Tensor> operands = draw_operands(c, random);
  const std::vector<Tensor> whole = run_whole(c, operands);
  try {
    const std::vector<Tensor> split = run_split(c, mesh, atoms, operands);
    for (size_t r = 0; r < whole.size(); ++r)
      if (!difference(split[r], whole[r], c.tolerance()).empty()) return true;
  } catch (const InternalError&) {
    return true;
  }
  return false;
}

}  // namespace

TEST_CASE("factors marked whole or lower must be") {
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(2);
      std::vector<std::pair<std::string, bool>> needed;  // by name of the factor
      for (const Case& as_written : cases(*def)) {
        const Case c = as_written.with(Dtype::f64);
        if (!c.small()) continue;
        const BoundRule rule = c.rule();
        for (size_t f = 0; f < rule.factors.size(); ++f) {
          const Factor& factor = rule.factors[f];
          if (!factor.whole && !factor.lower) continue;
          auto entry = needed.begin();
          while (entry != needed.end() && entry->first != factor.name) ++entry;
          if (entry == needed.end()) entry = needed.insert(entry, {factor.name, false});
          entry->second = entry->second || breaks_when_split(c, f, random);
        }
      }
      for (const auto& [name, breaks] : needed) {
        INFO("factor " << name << " may be split: the rule is too strict");
        CHECK(breaks);
      }
    }
  }
}

}  // namespace meshard::test
