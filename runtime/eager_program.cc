// The program of one op, and when it needs no planning.
#include <fmt/format.h>

#include <algorithm>

#include "meshard/base/error.h"
#include "meshard/layout/reshard.h"
#include "meshard/runtime/eager_context.h"

namespace meshard::eager {
namespace {

// Takes over what `wish` splits further. false: the two contradict each other.
bool merge(FactorAtoms& atoms, const FactorAtoms& wish) {
  for (size_t k = 0; k < atoms.size(); ++k) {
    const Atoms &have = atoms[k], &want = wish[k];
    if (!std::equal(have.begin(), have.begin() + static_cast<std::ptrdiff_t>(std::min(have.size(), want.size())), want.begin())) return false;
    if (want.size() > have.size()) atoms[k] = want;
  }
  return true;
}

bool free_of_charge(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  if (!reshard_obstacle(mesh, from, to).empty()) return false;
  const std::vector<ReshardStep> steps = plan_reshard(mesh, shape, from, to);
  return std::all_of(steps.begin(), steps.end(), [](const ReshardStep& s) { return s.kind == Collective::slice; });
}

// How an op runs on operands that are split alike, or need slicing at most: its results stay as the op makes them.
struct Free {
  std::vector<Layout> results;
  bool as_they_are = false;  // no operand needs slicing
};

std::optional<Free> find_free(const Mesh& mesh, const OpDef& def, const BoundRule& rule, std::span<const Kind* const> operands) {
  OpSplit split;
  split.atoms.resize(rule.factors.size());
  for (size_t i = 0; i < operands.size(); ++i) {
    FactorAtoms wish(rule.factors.size());
    if (!pour_layout(mesh, rule, rule.operands[i], operands[i]->layout, wish) || !merge(split.atoms, wish)) return std::nullopt;
  }
  if (!illegal_split(mesh, rule, split.atoms).empty()) return std::nullopt;
  AtomSet used;
  for (size_t k = 0; k < split.atoms.size(); ++k) {
    if (rule.factors[k].lower && !split.atoms[k].empty()) return std::nullopt;
    used = used | AtomSet::of(split.atoms[k]);
  }
  // Through which linear operands sums pass: the one group that has all that are pending.
  int group = -1;
  for (int g = 0; g < static_cast<int>(def.linear.size()) && group < 0; ++g) {
    for (int i : def.linear[static_cast<size_t>(g)]) {
      if (operands[static_cast<size_t>(i)]->layout.is_pending()) group = g;
    }
  }
  AtomSet& passing = split.passing[static_cast<size_t>(Reduction::sum)];
  for (const Kind* operand : operands) passing = passing | operand->layout.pending_of(Reduction::sum);
  if (!(passing & used).empty()) return std::nullopt;
  const std::vector<Layout> needed = operand_layouts(def, rule, split, group);
  Free free{result_layouts(def, rule, split), true};
  for (size_t i = 0; i < operands.size(); ++i) {
    const Layout& have = operands[i]->layout;
    if (have == needed[i]) continue;
    free.as_they_are = false;
    if (!free_of_charge(mesh, operands[i]->type.shape, have, needed[i])) return std::nullopt;
  }
  return free;
}

}  // namespace

OneOp one_op_program(const OpTable& table, const Mesh& mesh, const OpDef& def, const Attributes& attributes,
                     std::span<const Kind* const> operands, const Kind* asked, const Type* type, const Place& place) {
  check_attributes(def, attributes, place);
  std::vector<Type> types, given;
  for (const Kind* kind : operands) types.push_back(kind->type);
  if (asked != nullptr && !def.identity) given = {asked->type};
  if (type != nullptr) given = {*type};
  if (def.explicit_type && given.empty()) throw UserError(place, fmt::format("{}: the type of the result must be given", def.name));
  BoundRule rule;
  const std::vector<Type> results = infer_types(def, attributes, types, given, place, &rule);

  OneOp out;
  out.program.table = &table;
  out.program.mesh = mesh;
  Function& f = out.program.functions.emplace_back();
  f.name = "main";
  const auto add = [&](std::string name, const Type& t, int op) {
    ValueInfo& v = f.values.emplace_back();
    v.name = std::move(name);
    v.type = t;
    v.op = op;
    v.source = place;
    return static_cast<ValueId>(f.values.size() - 1);
  };
  Op op;
  op.def = &def;
  op.attributes = attributes;
  op.source = place;
  for (size_t i = 0; i < operands.size(); ++i) {
    const ValueId v = add(fmt::format("x{}", i), operands[i]->type, -1);
    f.value(v).layout = operands[i]->layout;
    f.value(v).pinned = true;
    f.value(v).below = operands[i]->below;
    f.params.push_back(v);
    f.param_info.emplace_back();
    op.operands.push_back(v);
  }
  for (size_t r = 0; r < results.size(); ++r) {
    const ValueId v = add(r == 0 ? std::string(def.name) : fmt::format("{}.{}", def.name, r), results[r], 0);
    op.results.push_back(v);
    f.returns.push_back({v, ValueId::none});
  }
  f.ops.push_back(std::move(op));
  const auto pin = [&](size_t r, const Layout& layout) {
    ValueInfo& v = f.value(f.ops[0].results[r]);
    v.layout = layout;
    v.pinned = true;
  };
  if (asked != nullptr) {
    pin(0, asked->layout);
  } else if (const auto free = find_free(mesh, def, rule, operands)) {
    for (size_t r = 0; r < results.size(); ++r) pin(r, free->results[r]);
    out.local = free->as_they_are;
  }
  return out;
}

}  // namespace meshard::eager
