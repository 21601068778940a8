#include "meshard/runtime/explained.h"

#include "meshard/sharding/edits.h"

namespace meshard {

Explained explain_plan(const Program& program, const std::optional<Plan>& plan, const std::optional<Mesh>& mesh,
                       const CompileOptions& options, const ExplainOptions& explaining) {
  const auto compiled = [&](const Program& p, const Plan* with, const CompileOptions& how) {
    return with == nullptr ? compile(p, how) : compile(p, *with, mesh, how);
  };
  CompileOptions keeping = options;
  keeping.keep_closed = true;
  const Plan* given = plan ? &*plan : nullptr;
  Explained out{compiled(program, given, keeping), {}};
  out.why = explain({&out.step.closed, &out.step.origins, &out.step.local, &out.step.bill, explaining.cost, 0});
  find_alternatives(out.why, out.step.closed, explaining.most_alternatives);
  if (explaining.most_edits == 0) return out;
  CompileOptions again = options;
  again.partition = {};
  again.passes = {.skip = options.passes.skip};
  const Replan replan = [&](const Program& p, const Plan* with) { return compiled(p, with, again).bill; };
  find_edits(out.why, out.step.closed, program, given, replan, explaining.most_edits);
  return out;
}

}  // namespace meshard
