#include "meshard/ir/verify_local.h"

#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/signature.h"
#include "meshard/layout/reshard.h"

namespace meshard {
namespace {

// Why the collective does not turn one layout into the other, "" if it does.
std::string collective_obstacle(const Mesh& mesh, const Op& op, const Layout& from, const Layout& to) {
  if (op.over.empty() && from == to) return "";  // over an axis of size 1
  if (step_fits(mesh, step_of(*op.def->collective, op.over, from, to))) return "";
  return fmt::format("{} over {} does not turn {} into {}", op.def->name,
                     op.over.empty() ? "nothing" : mesh.atoms_text(op.over), from.str(mesh), to.str(mesh));
}

std::string rule_obstacle(const Program& program, const Function& function, const Op& op,
                          std::span<const Layout> operands, std::span<const Layout> results) {
  const BoundRule& rule = bound_rule(program, function, op);
  std::string why;
  if (find_split(*program.mesh, *op.def, rule, operands, results, &why)) return "";
  return fmt::format("{}: {}", op.def->name, why);
}

}  // namespace

void verify_local(const Program& program, const Function& function, const Op& op) {
  if (op.kind != Op::apply) return;
  const Mesh& mesh = *program.mesh;
  std::vector<Layout> operands, results;
  for (ValueId v : op.operands) operands.push_back(*function.value(v).layout);
  for (ValueId v : op.results) results.push_back(*function.value(v).layout);
  std::string why;
  if (op.def->collective) {
    why = collective_obstacle(mesh, op, operands[0], results[0]);
  } else if (!op.def->identity) {
    why = rule_obstacle(program, function, op, operands, results);
  } else if (operands[0] != results[0]) {
    why = fmt::format("{} changes the layout {} to {}: that takes a collective", op.def->name, operands[0].str(mesh),
                      results[0].str(mesh));
  }
  if (!why.empty()) throw UserError(op.source, why, {print_op(program, function, op)});
}

}  // namespace meshard
