// A pending sum may pass through what `linear` names: f(a + b) = f(a) + f(b) in each group of operands, the others
// held.
#include <algorithm>
#include <catch2/catch.hpp>

#include "split_run.h"

namespace meshard::test {
namespace {

Tensor sum(const Tensor& a, const Tensor& b) {
  Tensor t(a.type());
  for (int64_t i = 0; i < t.elements(); ++i) t.set(i, a.get(i) + b.get(i));
  return t;
}

}  // namespace

TEST_CASE("linear operands") {
  for (const OpDef* def : computing_ops()) {
    if (def->linear.empty()) continue;
    DYNAMIC_SECTION(def->name) {
      Random random(3);
      for (const Case& as_written : cases(*def)) {
        const Case c = as_written.with(Dtype::f64);
        if (!c.small()) continue;
        INFO(c.text);
        const std::vector<Tensor> operands = draw_operands(c, random);
        for (const std::vector<int>& group : def->linear) {
          std::vector<Tensor> a, b, both;
          for (size_t i = 0; i < operands.size(); ++i) {
            const bool varies = std::find(group.begin(), group.end(), static_cast<int>(i)) != group.end();
            a.push_back(operands[i].clone());
            b.push_back(varies ? draw(c.operands[i], c.below, false, random) : operands[i].clone());
            both.push_back(varies ? sum(a[i], b[i]) : operands[i].clone());
          }
          const auto fa = run_whole(c, a), fb = run_whole(c, b), fboth = run_whole(c, both);
          for (size_t r = 0; r < fa.size(); ++r) CHECK(difference(sum(fa[r], fb[r]), fboth[r], c.tolerance()) == "");
        }
      }
    }
  }
}

}  // namespace meshard::test
