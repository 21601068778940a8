// How a bound rule is split over a mesh: from layouts to atoms on factors, and back.
#include <algorithm>

#include "fmt/format.h"
#include "meshard/ir/op.h"

namespace meshard {
namespace {

using Dim = BoundRule::Dim;

const Factor& factor(const BoundRule& rule, int f) { return rule.factors[static_cast<size_t>(f)]; }

AtomSet reduced_atoms(const BoundRule& rule, const FactorAtoms& atoms, size_t result) {
  AtomSet set;
  for (size_t f = 0; f < atoms.size(); ++f) {
    if (rule.reduced(static_cast<int>(f), static_cast<int>(result))) set = set | AtomSet::of(atoms[f]);
  }
  return set;
}

AtomSet all_atoms(const FactorAtoms& atoms) {
  AtomSet set;
  for (const Atoms& a : atoms) set = set | AtomSet::of(a);
  return set;
}

std::string dim_text(const BoundRule& rule, const Dim& dim) {
  std::string text;
  for (int f : dim) text += (text.empty() ? "" : " ") + factor(rule, f).name;
  return dim.size() == 1 ? text : fmt::format("({})", text);
}

// Only whole parts of a factor that is not the last can be split: blocks of the dimension are then blocks of the
// factors.
std::string illegal_dim(const Mesh& mesh, const BoundRule& rule, const Dim& dim, const FactorAtoms& atoms) {
  for (size_t i = 0; i + 1 < dim.size(); ++i) {
    const Factor& f = factor(rule, dim[i]);
    const int64_t parts = mesh.parts(atoms[static_cast<size_t>(dim[i])]);
    if (f.size % parts != 0)
      return fmt::format("{} of {} is {}, which {} parts do not divide", f.name, dim_text(rule, dim), f.size, parts);
    if (parts == f.size) continue;
    for (size_t j = i + 1; j < dim.size(); ++j) {
      if (atoms[static_cast<size_t>(dim[j])].empty()) continue;
      return fmt::format("{} of {} can be split only below {} parts of {}, which has {}", factor(rule, dim[j]).name,
                         dim_text(rule, dim), f.size, f.name, parts);
    }
  }
  return "";
}

}  // namespace

std::string illegal_split(const Mesh& mesh, const BoundRule& rule, const FactorAtoms& atoms) {
  AtomSet used;
  for (size_t f = 0; f < atoms.size(); ++f) {
    if (rule.factors[f].whole && !atoms[f].empty()) {
      return fmt::format("{} is whole, but split over {}", rule.factors[f].name, mesh.atoms_text(atoms[f]));
    }
    for (AtomId a : atoms[f]) {
      if (used.has(a))
        return fmt::format("{} splits {} and another factor", mesh.atoms_text(Atoms{a}), rule.factors[f].name);
      used.add(a);
    }
  }
  for (const auto* tensors : {&rule.operands, &rule.results}) {
    for (const auto& dims : *tensors) {
      for (const Dim& dim : dims) {
        std::string why = illegal_dim(mesh, rule, dim, atoms);
        if (!why.empty()) return why;
      }
    }
  }
  return "";
}

Layout layout_from_factors(const std::vector<Dim>& dims, const FactorAtoms& atoms) {
  Layout layout(static_cast<int>(dims.size()));
  for (size_t d = 0; d < dims.size(); ++d) {
    for (int f : dims[d]) {
      const Atoms& add = atoms[static_cast<size_t>(f)];
      layout.dims[d].atoms.insert(layout.dims[d].atoms.end(), add.begin(), add.end());
    }
  }
  return layout;
}

bool pour_layout(const Mesh& mesh, const BoundRule& rule, const std::vector<Dim>& dims, const Layout& layout,
                 FactorAtoms& atoms) {
  bool said = true;
  for (size_t d = 0; d < dims.size(); ++d) {
    const Dim& dim = dims[d];
    for (int f : dim) atoms[static_cast<size_t>(f)].clear();
    size_t at = 0;      // factor of the dimension that is being filled
    int64_t parts = 1;  // of it so far
    for (AtomId a : layout.dims[d].atoms) {
      while (at + 1 < dim.size() && parts == factor(rule, dim[at]).size) {
        ++at;
        parts = 1;
      }
      parts *= mesh.atom_size(a);
      if (at >= dim.size() || (at + 1 < dim.size() && factor(rule, dim[at]).size % parts != 0)) {
        said = false;
        break;
      }
      atoms[static_cast<size_t>(dim[at])].push_back(a);
    }
  }
  return said;
}

namespace {

class SplitFinder {
 public:
  SplitFinder(const Mesh& mesh, const OpDef& def, const BoundRule& rule, std::span<const Layout> operands,
              std::span<const Layout> results)
      : mesh_(mesh), def_(def), rule_(rule), operands_(operands), results_(results), seen_(rule.factors.size()) {
    split_.atoms.resize(rule.factors.size());
  }

  // "" if split() is the assignment.
  std::string run() {
    std::string why;
    for (size_t i = 0; i < operands_.size() && why.empty(); ++i) {
      why = pour(rule_.operands[i], operands_[i], fmt::format("operand {}", i));
    }
    for (size_t r = 0; r < results_.size() && why.empty(); ++r)
      why = pour(rule_.results[r], results_[r], result_name(r));
    if (why.empty()) why = illegal_split(mesh_, rule_, split_.atoms);
    if (why.empty()) why = lowered();
    if (why.empty()) why = find_passing();
    if (why.empty()) why = check_results();
    return why;
  }

  const OpSplit& split() const { return split_; }

 private:
  std::string result_name(size_t r) const { return results_.size() == 1 ? "the result" : fmt::format("result {}", r); }

  std::string over(std::span<const AtomId> atoms) const {
    return atoms.empty() ? "whole" : "split over " + mesh_.atoms_text(atoms);
  }

  std::string pour(const std::vector<Dim>& dims, const Layout& layout, const std::string& name) {
    MESHARD_CHECK(static_cast<size_t>(layout.rank()) == dims.size(), "a layout has the rank of its tensor");
    FactorAtoms poured(rule_.factors.size());
    if (!pour_layout(mesh_, rule_, dims, layout, poured)) return unsaid(dims, layout, name);
    for (const Dim& dim : dims) {
      for (int f : dim) {
        const auto k = static_cast<size_t>(f);
        if (seen_[k].empty()) {
          split_.atoms[k] = poured[k];
          seen_[k] = name;
        } else if (split_.atoms[k] != poured[k]) {
          return fmt::format("{} is {} in {} but {} in {}", factor(rule_, f).name, over(split_.atoms[k]), seen_[k],
                             over(poured[k]), name);
        }
      }
    }
    return "";
  }

  // Names the dimension that can't be said in factors.
  std::string unsaid(const std::vector<Dim>& dims, const Layout& layout, const std::string& name) const {
    for (size_t d = 0; d < dims.size(); ++d) {
      FactorAtoms poured(rule_.factors.size());
      Layout one(1);
      one.dims[0] = layout.dims[d];
      if (pour_layout(mesh_, rule_, {dims[d]}, one, poured)) continue;
      const std::string split = mesh_.atoms_text(layout.dims[d].atoms);
      if (dims[d].empty())
        return fmt::format("dimension {} of {} has size 1 and is repeated; it may not be split over {}", d, name,
                           split);
      std::string sizes;
      for (int f : dims[d])
        sizes += fmt::format("{}{} {}", sizes.empty() ? "" : ", ", factor(rule_, f).name, factor(rule_, f).size);
      return fmt::format("dimension {} of {} is split over {}, which does not divide its factors {}", d, name, split,
                         sizes);
    }
    return "";
  }

  std::string lowered() const {
    for (size_t f = 0; f < split_.atoms.size(); ++f) {
      if (rule_.factors[f].lower && !split_.atoms[f].empty()) {
        return fmt::format("{} is split over {}; the op has to be lowered", rule_.factors[f].name,
                           mesh_.atoms_text(split_.atoms[f]));
      }
    }
    return "";
  }

  // What passes through: pending alike on all operands of one linear group, and on no other operand.
  std::string find_passing() {
    if (operands_.empty() && rule_.zero) {
      split_.passing[static_cast<size_t>(Reduction::sum)] = results_[0].pending_of(Reduction::sum);
      return "";
    }
    std::vector<int> pending;
    for (size_t i = 0; i < operands_.size(); ++i) {
      if (operands_[i].is_pending() && static_cast<int>(i) != def_.base) pending.push_back(static_cast<int>(i));
    }
    if (pending.empty()) return "";
    const Layout& first = operands_[static_cast<size_t>(pending[0])];
    if (!def_.identity) {
      for (int i : pending) {
        for (Reduction kind : {Reduction::max, Reduction::min}) {
          if (operands_[static_cast<size_t>(i)].pending_of(kind).empty()) continue;
          return fmt::format("operand {} is pending as a {}, which passes through no op", i, name(kind));
        }
      }
      const bool group = std::any_of(def_.linear.begin(), def_.linear.end(), [&](std::vector<int> g) {
        std::erase(g, def_.base);
        std::sort(g.begin(), g.end());
        return g == pending;
      });
      if (!group) return not_linear(pending);
    }
    for (int i : pending) {
      if (operands_[static_cast<size_t>(i)].pending == first.pending) continue;
      return fmt::format("operand {} is pending over {} but operand {} over {}", pending[0],
                         mesh_.atoms_text(first.pending_atoms()), i,
                         mesh_.atoms_text(operands_[static_cast<size_t>(i)].pending_atoms()));
    }
    split_.passing = first.pending;
    const AtomSet both = first.pending_atoms() & all_atoms(split_.atoms);
    if (!both.empty()) return fmt::format("{} is pending and splits a factor", mesh_.atoms_text(both));
    return "";
  }

  std::string not_linear(const std::vector<int>& pending) const {
    std::string list;
    for (int i : pending) list += fmt::format("{}{}", list.empty() ? "" : " and ", i);
    const AtomSet over = operands_[static_cast<size_t>(pending[0])].pending_atoms();
    const bool one = pending.size() == 1;
    return fmt::format("operand{} {} {} pending over {}; {} is not linear in {}", one ? "" : "s", list,
                       one ? "is" : "are", mesh_.atoms_text(over), def_.name, one ? "it alone" : "them together");
  }

  std::string check_results() const {
    const std::vector<Layout> expected = result_layouts(def_, rule_, split_);
    if (def_.base >= 0 && operands_[static_cast<size_t>(def_.base)].pending != expected[0].pending) {
      return fmt::format("operand {} is {}, but what is added to it {}", def_.base,
                         operands_[static_cast<size_t>(def_.base)].closed().str(mesh_), expected[0].str(mesh_));
    }
    for (size_t r = 0; r < results_.size(); ++r) {
      if (!(expected[r].split() & expected[r].pending_atoms()).empty()) {
        return fmt::format("{} would be split and pending over {}", result_name(r),
                           mesh_.atoms_text(expected[r].split() & expected[r].pending_atoms()));
      }
      if (expected[r].pending == results_[r].pending) continue;
      return fmt::format("{} is {} by its operands, not {}", result_name(r), expected[r].str(mesh_),
                         results_[r].closed().str(mesh_));
    }
    return "";
  }

  const Mesh& mesh_;
  const OpDef& def_;
  const BoundRule& rule_;
  std::span<const Layout> operands_, results_;
  OpSplit split_;
  std::vector<std::string> seen_;  // of each factor: the first tensor that has it
};

}  // namespace

std::optional<OpSplit> find_split(const Mesh& mesh, const OpDef& def, const BoundRule& rule,
                                  std::span<const Layout> operands, std::span<const Layout> results, std::string* why) {
  MESHARD_CHECK(operands.size() == rule.operands.size() && results.size() == rule.results.size(),
                "a layout for each operand and result");
  SplitFinder finder(mesh, def, rule, operands, results);
  std::string reason = finder.run();
  const bool found = reason.empty();
  if (why != nullptr) *why = std::move(reason);
  if (!found) return std::nullopt;
  return finder.split();
}

std::vector<Layout> result_layouts(const OpDef& def, const BoundRule& rule, const OpSplit& split) {
  std::vector<Layout> layouts;
  for (size_t r = 0; r < rule.results.size(); ++r) {
    Layout& layout = layouts.emplace_back(layout_from_factors(rule.results[r], split.atoms));
    layout.pending = split.passing;
    AtomSet& combined = layout.pending_of(def.combine);
    combined = combined | reduced_atoms(rule, split.atoms, r);
  }
  return layouts;
}

std::vector<Layout> operand_layouts(const OpDef& def, const BoundRule& rule, const OpSplit& split, int group) {
  std::vector<Layout> layouts;
  for (const auto& dims : rule.operands) layouts.push_back(layout_from_factors(dims, split.atoms));
  if (group >= 0) {
    for (int i : def.linear[static_cast<size_t>(group)]) layouts[static_cast<size_t>(i)].pending = split.passing;
  }
  if (def.base >= 0) layouts[static_cast<size_t>(def.base)].pending = result_layouts(def, rule, split)[0].pending;
  return layouts;
}

}  // namespace meshard
