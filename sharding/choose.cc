#include "meshard/sharding/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <tuple>

namespace meshard {
namespace {

constexpr int64_t kForbidden = std::numeric_limits<int64_t>::max() / 4;

// A layout as a key of a map, without spelling axes.
void append_key(std::string& key, const Layout& layout) {
  for (const DimLayout& d : layout.dims) {
    for (AtomId a : d.atoms) key.push_back(static_cast<char>('A' + a));
    key.push_back(',');
  }
  for (const AtomSet& p : layout.pending) key += fmt::format("/{:x}", p.bits);
}

int64_t ceil_div(int64_t a, int64_t b) { return b == 0 ? a : (a + b - 1) / b; }

// Everything about one op while its options are weighed.
class Chooser {
 public:
  Chooser(const Mesh& mesh, const OpDef& def, const BoundRule& rule, const std::vector<OperandView>& operands,
          const std::vector<ResultView>& results, ReshardCosts& costs)
      : mesh_(mesh), def_(def), rule_(rule), operands_(operands), results_(results), costs_(costs) {}

  Choice run(std::vector<Choice>* considered) {
    std::vector<FactorAtoms> splits = options();
    const double allowed = share(splits[0]) * (1 + 1e-9);
    std::vector<Choice> all;
    for (const FactorAtoms& split : splits) {
      const bool too_much = share(split) > allowed;
      for (int group = -1; group < static_cast<int>(def_.linear.size()); ++group) {
        // Adding up terms that are still sums is no work done twice: each device has terms of its own, and they are reduced once.
        if (too_much && !joint(group)) continue;
        if (auto choice = price(split, group)) all.push_back(std::move(*choice));
      }
    }
    MESHARD_CHECK(!all.empty(), fmt::format("no split of {} is legal", def_.name));
    std::stable_sort(all.begin(), all.end(), [](const Choice& a, const Choice& b) {
      return std::tuple(a.bytes, a.messages, a.flops) < std::tuple(b.bytes, b.messages, b.flops);
    });
    Choice best = all.front();
    if (considered != nullptr) *considered = std::move(all);
    return best;
  }

 private:
  // Adds to `atoms` what `layout` puts on factors of `dims` and does not contradict what is there.
  void merge(FactorAtoms& atoms, const std::vector<BoundRule::Dim>& dims, const Layout& layout) const {
    FactorAtoms wish(rule_.factors.size());
    pour_layout(mesh_, rule_, dims, layout, wish);
    for (size_t k = 0; k < wish.size(); ++k) {
      if (wish[k].size() <= atoms[k].size() || rule_.factors[k].whole || rule_.factors[k].lower) continue;
      if (!std::equal(atoms[k].begin(), atoms[k].end(), wish[k].begin())) continue;
      FactorAtoms longer = atoms;
      for (size_t i = atoms[k].size(); i < wish[k].size(); ++i) {
        longer[k].push_back(wish[k][i]);
        if (!illegal_split(mesh_, rule_, longer).empty()) {
          longer[k].pop_back();
          break;
        }
      }
      atoms = longer;
    }
  }

  // The first is what propagation decided; duplicates are dropped.
  std::vector<FactorAtoms> options() const {
    struct Source {
      const std::vector<BoundRule::Dim>* dims;
      Layout layout;
    };
    std::vector<Source> propagated, made;
    for (size_t r = 0; r < results_.size(); ++r) propagated.push_back({&rule_.results[r], results_[r].propagated});
    for (size_t i = 0; i < operands_.size(); ++i) propagated.push_back({&rule_.operands[i], operands_[i].propagated});
    for (size_t i = 0; i < operands_.size(); ++i) {
      for (const Layout& copy : operands_[i].copies) made.push_back({&rule_.operands[i], copy});
    }
    std::vector<FactorAtoms> list;
    const auto build = [&](const Source* first, std::initializer_list<const std::vector<Source>*> rest) {
      FactorAtoms atoms(rule_.factors.size());
      if (first != nullptr) merge(atoms, *first->dims, first->layout);
      for (const auto* sources : rest) {
        for (const Source& s : *sources) merge(atoms, *s.dims, s.layout);
      }
      if (std::find(list.begin(), list.end(), atoms) == list.end()) list.push_back(std::move(atoms));
    };
    build(nullptr, {&propagated});
    build(nullptr, {&made, &propagated});
    for (const Source& s : made) {
      build(&s, {&made, &propagated});
      build(&s, {&propagated});
    }
    for (const Source& s : propagated) build(&s, {&made, &propagated});
    build(nullptr, {&made});
    build(nullptr, {});
    return list;
  }

  // The part of the op's work that a device has, blocks taken as even: that 257 columns leave one device a column more than
  // 32 rows do is no reason to gather a table.
  double share(const FactorAtoms& atoms) const {
    double part = 1;
    for (size_t k = 0; k < atoms.size(); ++k) {
      part /= static_cast<double>(std::clamp<int64_t>(rule_.factors[k].size, 1, mesh_.parts(atoms[k])));
    }
    return part;
  }

  int64_t flops(const FactorAtoms& atoms) const {
    double points = std::max(1.0, def_.flops_per_point);
    for (size_t k = 0; k < atoms.size(); ++k) {
      points *= static_cast<double>(ceil_div(rule_.factors[k].size, mesh_.parts(atoms[k])));
    }
    return static_cast<int64_t>(std::min(points, 4e18));
  }

  struct Fetch {
    int64_t bytes = 0, messages = 0;  // over all devices; collectives
  };

  // What it takes to have operand i in layout `needed`, which an add may take in parts.
  Fetch fetch(size_t i, const Layout& needed, bool parts) const {
    const OperandView& o = operands_[i];
    if (o.remade) return {};
    Fetch best{kForbidden, 0};
    for (const Layout& copy : o.copies) {
      const auto& entry = costs_.get(o.type.shape, copy, parts ? before_part(copy, needed) : needed);
      const int64_t bytes = entry.elements * size_bytes(o.type.dtype);
      if (entry.possible && bytes < best.bytes) best = {bytes, entry.messages};
    }
    if (o.binds && best.bytes > 0) best.bytes = kForbidden / 8 + std::min(best.bytes, kForbidden / 16);  // only where nothing else is left
    return best;
  }

  // Pending sums that operands of a linear group have, and the op's own factors leave free. Operands that are taken together
  // need not all have them: the whole ones are taken in parts.
  AtomSet passing(const FactorAtoms& atoms, int group) const {
    AtomSet any, split;
    for (const Atoms& a : atoms) split = split | AtomSet::of(a);
    for (int i : def_.linear[static_cast<size_t>(group)]) {
      const OperandView& o = operands_[static_cast<size_t>(i)];
      if (!o.copies.empty() && o.may_pend) any = any | o.copies[0].pending_of(Reduction::sum);
    }
    return any - split;
  }

  bool joint(int group) const { return group >= 0 && def_.linear[static_cast<size_t>(group)].size() > 1; }

  std::optional<Choice> price(const FactorAtoms& atoms, int group) const {
    Choice c;
    c.split.atoms = atoms;
    c.linear_group = group;
    if (group >= 0) {
      const AtomSet pass = passing(atoms, group);
      if (pass.empty()) return std::nullopt;
      c.split.passing[static_cast<size_t>(Reduction::sum)] = pass;
    }
    c.operands = operand_layouts(def_, rule_, c.split, group);
    c.results = result_layouts(def_, rule_, c.split);
    c.flops = flops(atoms);
    for (size_t i = 0; i < operands_.size(); ++i) {
      bool again = false;  // the same value read twice in the same layout is fetched once
      for (size_t j = 0; j < i; ++j) again |= operands_[j].id == operands_[i].id && c.operands[j] == c.operands[i];
      if (again) continue;
      const Fetch f = fetch(i, c.operands[i], joint(group));
      c.bytes += f.bytes;
      c.messages += f.messages;
    }
    for (size_t r = 0; r < results_.size(); ++r) {
      const ResultView& v = results_[r];
      const Layout target = v.pinned ? v.propagated : v.propagated.without_pending();
      // What is not pinned has to move only as far as its sums go.
      if (!v.pinned && !c.results[r].is_pending()) continue;
      const bool reachable = v.pinned || fits_under(c.results[r], target);
      const auto& entry = costs_.get(v.type.shape, c.results[r], reachable ? target : c.results[r].without_pending());
      c.bytes += entry.possible ? entry.elements * size_bytes(v.type.dtype) : kForbidden;
      if (v.pinned || !v.may_pend) c.messages += entry.messages;
    }
    return c;
  }

  // Whether `made` without its sums needs nothing but reductions (and slices) to become `target`.
  static bool fits_under(const Layout& made, const Layout& target) {
    for (int d = 0; d < made.rank(); ++d) {
      const Atoms &have = made.atoms(d), &want = target.atoms(d);
      if (have.size() > want.size() || !std::equal(have.begin(), have.end(), want.begin())) return false;
    }
    return true;
  }

  const Mesh& mesh_;
  const OpDef& def_;
  const BoundRule& rule_;
  const std::vector<OperandView>& operands_;
  const std::vector<ResultView>& results_;
  ReshardCosts& costs_;
};

}  // namespace

Layout before_part(const Layout& have, const Layout& needed) {
  Layout layout = needed;
  AtomSet& sums = layout.pending_of(Reduction::sum);
  const AtomSet free = sums - have.used() - needed.split();
  sums = sums - free;
  return layout;
}

const ReshardCosts::Entry& ReshardCosts::get(const Shape& shape, const Layout& from, const Layout& to) {
  std::string key;
  for (int64_t d : shape.dims) key += fmt::format("{},", d);
  append_key(key, from);
  key += ">";
  append_key(key, to);
  const auto [it, fresh] = cache_.try_emplace(std::move(key));
  if (fresh) {
    Entry& e = it->second;
    e.possible = reshard_obstacle(*mesh_, from, to).empty();
    if (e.possible) {
      e.steps = plan_reshard(*mesh_, shape, from, to);
      e.elements = all_received_elements(*mesh_, shape, e.steps);
      for (const ReshardStep& step : e.steps) e.messages += step.kind != Collective::slice;
    }
  }
  return it->second;
}

Choice choose(const Mesh& mesh, const OpDef& def, const BoundRule& rule, const std::vector<OperandView>& operands,
              const std::vector<ResultView>& results, ReshardCosts& costs, std::vector<Choice>* considered) {
  return Chooser(mesh, def, rule, operands, results, costs).run(considered);
}

}  // namespace meshard
