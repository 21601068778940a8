#include "meshard/ir/verify_local.h"

#include <optional>

#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/signature.h"
#include "meshard/layout/reshard.h"

namespace meshard {
namespace {

// The kind of the reduction that a collective does; none: it reduces nothing.
std::optional<Reduction> reduction(const Layout& from, const Layout& to) {
  for (const Reduction kind : {Reduction::min, Reduction::max, Reduction::sum}) {
    if (from.pending_of(kind) != to.pending_of(kind)) return kind;
  }
  return std::nullopt;
}

// Why the collective does not turn one layout into the other, "" if it does.
std::string collective_obstacle(const Mesh& mesh, const Op& op, const ValueInfo& value, const Layout& to) {
  const Layout& from = *value.layout;
  if (op.over.empty() && from == to) return "";  // over an axis of size 1
  const ReshardStep step = step_of(*op.def->collective, op.over, from, to);
  if (is_turn(step) != op.def->identity && step_fits(mesh, step)) {
    for (int d = 0; d < from.rank() && is_turn(step); ++d) {
      const int64_t parts = mesh.parts(from.atoms(d)), size = value.type.shape[d];
      if (size % parts != 0) return fmt::format("{}: dimension {} is {}, which {} parts do not divide", op.def->name, d, size, parts);
    }
    return "";
  }
  return fmt::format("{} over {} does not turn {} into {}", op.def->name,
                     op.over.empty() ? "nothing" : mesh.atoms_text(op.over), from.str(mesh), to.str(mesh));
}

// Why the values cannot travel in one message: there is none for a slice, and one message has one kind of reduction.
std::string message_obstacle(const OpDef& def, std::span<const Layout> operands, std::span<const Layout> results) {
  if (def.collective == Collective::slice || !def.identity) return fmt::format("{} moves nothing and takes one value", def.name);
  for (size_t i = 1; i < operands.size(); ++i) {
    if (reduction(operands[i], results[i]) == reduction(operands[0], results[0])) continue;
    return fmt::format("{}: one message has one kind of reduction, but operands 0 and {} differ in it", def.name, i);
  }
  return "";
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
    for (size_t i = 0; i < operands.size() && why.empty(); ++i) {
      why = collective_obstacle(mesh, op, function.value(op.operands[i]), results[i]);
    }
    if (why.empty() && operands.size() > 1) why = message_obstacle(*op.def, operands, results);
  } else if (!op.def->identity) {
    why = rule_obstacle(program, function, op, operands, results);
  } else if (operands[0] != results[0]) {
    why = fmt::format("{} changes the layout {} to {}: that takes a collective", op.def->name, operands[0].str(mesh),
                      results[0].str(mesh));
  }
  if (!why.empty()) throw UserError(op.source, why, {print_op(program, function, op)});
}

}  // namespace meshard
