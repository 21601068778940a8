#include "meshard/sharding/choice_search.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <numeric>

namespace meshard {
namespace {

constexpr int64_t kDirectCells = 1024;  // a value with few readers is one table of at most so many cells
constexpr size_t kManySites = 64;       // of a large program: one axis at a time

using Key = std::vector<int32_t>;

std::vector<std::vector<Atoms>> each(const std::vector<Atoms>& units) {
  std::vector<std::vector<Atoms>> steps;
  for (const Atoms& u : units) steps.push_back({u});
  return steps;
}

std::vector<std::vector<Atoms>> pairs(const std::vector<Atoms>& units) {
  std::vector<std::vector<Atoms>> steps;
  for (size_t i = 0; i < units.size(); ++i) {
    for (size_t j = i + 1; j < units.size(); ++j) steps.push_back({units[i], units[j]});
  }
  return steps;
}

}  // namespace

struct ChoiceSearch::Known {
  absl::flat_hash_map<Key, Found> steps;
};

ChoiceSearch::ChoiceSearch(const Program& program, const ChooseOptions& options)
    : options_(options), model_(program), tables_(model_), known_(std::make_unique<Known>()) {
  for (const Axis& axis : program.mesh->axes()) {
    if (!axis.atoms.empty()) axes_.push_back(axis.atoms);
    for (AtomId a : axis.atoms) {
      atoms_.push_back({a});
      const bool equal = program.mesh->atom_size(a) == program.mesh->atom_size(axis.atoms.front()) &&
                         program.mesh->atom_size(a) == program.mesh->atom_size(axis.atoms.back());
      if (!equal || a == axis.atoms.front() || a == axis.atoms.back()) ends_.push_back({a});
    }
  }
}

ChoiceSearch::~ChoiceSearch() = default;

std::vector<SplitId> ChoiceSearch::run() {
  now_ = model_.propagated();
  std::vector<SplitId> labels = now_;
  Part rest;  // values that nothing chosen touches
  for (size_t v = 0; v < model_.values().size(); ++v) {
    if (tables_.sites(static_cast<int>(v)).empty()) rest.values.push_back(static_cast<int>(v));
  }
  cost_ = bound_ = propagated_ = total(rest, {});
  absl::flat_hash_map<Key, Best> known;
  for (const Part& part : split()) {
    // Parts that are alike have one answer.
    Key key;
    for (int s : part.sites) {
      const Site& site = model_.sites()[static_cast<size_t>(s)];
      key.insert(key.end(), {site.kind, site.signature, site.propagated, static_cast<int32_t>(site.weight), static_cast<int32_t>(site.weight >> 32)});
    }
    for (size_t i = 0; i < part.values.size(); ++i) {
      key.push_back(tables_.kind(part.values[i]));
      key.insert(key.end(), part.places[i].begin(), part.places[i].end());
    }
    const auto it = part.forced ? known.end() : known.find(key);
    const Best best = it != known.end() ? it->second : search(part);
    for (size_t i = 0; i < part.sites.size(); ++i) labels[static_cast<size_t>(part.sites[i])] = best.labels[i];
    cost_ = add_costs(cost_, best.cost);
    bound_ = add_costs(bound_, best.bound);
    propagated_ = add_costs(propagated_, best.propagated);
    if (it == known.end() && !part.forced) known.emplace(std::move(key), best);
  }
  return labels;
}

std::vector<ChoiceSearch::Part> ChoiceSearch::split() {
  const size_t n = model_.sites().size();
  std::vector<int> root(n);
  std::iota(root.begin(), root.end(), 0);
  const auto find = [&](int s) {
    while (root[static_cast<size_t>(s)] != s) s = root[static_cast<size_t>(s)] = root[static_cast<size_t>(root[static_cast<size_t>(s)])];
    return s;
  };
  for (size_t v = 0; v < model_.values().size(); ++v) {
    const std::vector<int>& sites = tables_.sites(static_cast<int>(v));
    for (size_t i = 1; i < sites.size(); ++i) {
      const int a = find(sites[0]), b = find(sites[i]);
      root[static_cast<size_t>(std::max(a, b))] = std::min(a, b);
    }
  }
  std::vector<int> part_of(n, -1), place(n);
  std::vector<Part> parts;
  for (size_t s = 0; s < n; ++s) {
    int& at = part_of[static_cast<size_t>(find(static_cast<int>(s)))];
    if (at < 0) {
      at = static_cast<int>(parts.size());
      parts.emplace_back();
    }
    Part& part = parts[static_cast<size_t>(at)];
    place[s] = static_cast<int>(part.sites.size());
    part.sites.push_back(static_cast<int>(s));
    part.forced |= forced_.contains(static_cast<int>(s));
  }
  for (size_t v = 0; v < model_.values().size(); ++v) {
    const std::vector<int>& sites = tables_.sites(static_cast<int>(v));
    if (sites.empty()) continue;
    Part& part = parts[static_cast<size_t>(part_of[static_cast<size_t>(find(sites[0]))])];
    part.values.push_back(static_cast<int>(v));
    std::vector<int>& places = part.places.emplace_back();
    for (int s : sites) places.push_back(place[static_cast<size_t>(s)]);
  }
  return parts;
}

ChoiceSearch::Best ChoiceSearch::search(const Part& part) {
  known_->steps.clear();
  Best best;
  Labels start;
  for (int s : part.sites) {
    const auto it = part.forced ? forced_.find(s) : forced_.end();
    start.push_back(it != forced_.end() ? it->second : model_.sites()[static_cast<size_t>(s)].propagated);
  }
  best.labels = start;
  best.cost = best.propagated = total(part, start);
  descend(part, start, best.propagated, each(axes_), best);
  if (axes_.size() > 1) descend(part, start, best.propagated, each({axes_.rbegin(), axes_.rend()}), best);
  if (atoms_.size() > axes_.size()) {
    // While axes are whole everywhere, an atom that is neither first nor last gains no more than the last: what stays is then the head
    // of what was, and the one that goes meets as many blocks. The first may gain more, being a head itself.
    const Cost before = best.cost;
    const bool whole = ends_.size() < atoms_.size() && whole_axes(part, best.labels);
    if (whole) descend(part, best.labels, best.cost, each(ends_), best);
    if (!whole || best.cost < before) descend(part, best.labels, best.cost, each(atoms_), best);
  }
  if (!options_.joint || model_.sites().size() > kManySites || joint(part, best)) return best;
  // Too much for one step. Two axes at once make the moves that one alone does not: two that trade places, or that pay only together.
  descend(part, best.labels, best.cost, pairs(axes_), best);
  if (atoms_.size() > axes_.size() && atoms_.size() <= 4) descend(part, best.labels, best.cost, pairs(atoms_), best);
  return best;
}

// Step after step, each exact, until none helps. A step varies the labels along its units.
void ChoiceSearch::descend(const Part& part, Labels labels, Cost cost, const std::vector<Step>& steps, Best& best) {
  size_t idle = 0;
  for (size_t i = 0; idle < steps.size() && work_ > 0; i = (i + 1) % steps.size()) {
    Key key(labels.begin(), labels.end());
    for (const Atoms& unit : steps[i]) key.push_back(unit.front()), key.push_back(static_cast<int32_t>(unit.size()));
    auto [it, fresh] = known_->steps.try_emplace(std::move(key));
    Found& next = it->second;
    if (fresh) {
      const Lists lists = vary(part, labels, steps[i]);
      if (steps[i].size() == 1 || affordable(part, lists)) next = solve(part, lists, labels);
      if (next.labels.empty()) next.cost = kInfinite;
      if (next.cost < 0) next.cost = total(part, next.labels);
    }
    // A step cannot raise the sum unless a value wants more copies than its sets hold.
    idle = next.cost < cost ? 1 : idle + 1;
    if (next.cost < cost) {
      cost = next.cost;
      labels = next.labels;
    }
  }
  if (cost >= best.cost) return;
  best.cost = cost;
  best.labels = std::move(labels);
}

ChoiceSearch::Lists ChoiceSearch::vary(const Part& part, const Labels& labels, const Step& step) {
  Lists lists;
  for (size_t s = 0; s < labels.size(); ++s) {
    const auto it = part.forced ? forced_.find(part.sites[s]) : forced_.end();
    lists.push_back(it != forced_.end() ? model_.only(it->second) : model_.vary(static_cast<size_t>(part.sites[s]), labels[s], step));
  }
  return lists;
}

// Whether no layout that the part has, given or chosen, names a part of an axis.
bool ChoiceSearch::whole_axes(const Part& part, const Labels& labels) {
  const auto whole = [&](LayoutId id) {
    if (id < 0) return true;
    if (whole_.size() <= static_cast<size_t>(id)) whole_.resize(static_cast<size_t>(id) + 1, -1);
    signed char& known = whole_[static_cast<size_t>(id)];
    if (known >= 0) return known == 1;
    const Layout& layout = model_.costs().layout(id);
    known = 1;
    for (const Atoms& axis : axes_) {
      const AtomSet all = AtomSet::of(axis);
      for (AtomSet set : layout.pending) known &= (set & all).empty() || set.contains(all);
      for (int d = 0; d < layout.rank(); ++d) {
        const Atoms& atoms = layout.atoms(d);
        if ((AtomSet::of(atoms) & all).empty()) continue;
        known &= std::search(atoms.begin(), atoms.end(), axis.begin(), axis.end()) != atoms.end();
      }
    }
    return known == 1;
  };
  for (SplitId label : labels) {
    for (LayoutId l : model_.split(label).needed) {
      if (!whole(l)) return false;
    }
    for (LayoutId l : model_.split(label).made) {
      if (!whole(l)) return false;
    }
  }
  for (int i : part.values) {
    const ValueNode& v = model_.values()[static_cast<size_t>(i)];
    if (v.maker < 0 && !whole(v.layout)) return false;
    for (const Reader& r : v.readers) {
      if (r.site < 0 && !whole(r.layout)) return false;
    }
  }
  return true;
}

// All axes at once, if the tables are small enough.
bool ChoiceSearch::joint(const Part& part, Best& best) {
  Lists lists;
  for (int s : part.sites) {
    const auto it = forced_.find(s);
    lists.push_back(it != forced_.end() ? model_.only(it->second) : model_.all_labels(static_cast<size_t>(s), kMostLabels));
    if (model_.list(lists.back()).empty()) return false;
  }
  if (!affordable(part, lists)) return false;
  Cost bound = 0;
  // No label of the best may be pruned: solutions equal to it are kept.
  const Found found = solve_within(part, lists, best.cost, &bound);
  if (!found.labels.empty()) {
    const Cost cost = total(part, found.labels);
    if (cost < best.cost) {
      best.cost = cost;
      best.labels = found.labels;
    }
  }
  best.bound = std::min(bound, best.cost);
  return best.bound >= best.cost;
}

bool ChoiceSearch::affordable(const Part& part, const Lists& lists) const {
  double cells = 0;
  for (const std::vector<int>& places : part.places) {
    double size = 1;
    for (int s : places) size *= static_cast<double>(model_.list(lists[static_cast<size_t>(s)]).size());
    cells += size;
    if (cells > static_cast<double>(options_.joint_cells)) return false;
  }
  return true;
}

// The part as sums of tables. variables[s]: of site s, or -1 where it has one label. exact: false: only sets of a few copies are in the
// tables of some value, which may miss the least.
SumProblem ChoiceSearch::problem(const Part& part, const Lists& lists, bool joint, std::vector<int>& variables, bool& exact) {
  SumProblem problem;
  Elimination& elimination = tables_.elimination();
  exact = true;
  variables.assign(lists.size(), -1);
  const auto add = [&](const InlineVector<int, 4>& over, TableId table) {
    if (over.empty()) {
      problem.constant = add_costs(problem.constant, (*elimination.cells(table))[0]);
    } else if (over.size() == 1) {
      TableId& own = problem.own[static_cast<size_t>(over[0])];
      own = elimination.sum(own, table);
    } else {
      problem.tables.push_back({over, table});
    }
  };
  for (size_t s = 0; s < lists.size(); ++s) {
    const TableId own = tables_.own(part.sites[s], lists[s]);
    if (model_.list(lists[s]).size() > 1) {
      variables[s] = static_cast<int>(problem.own.size());
      problem.own.push_back(own);
    } else {
      add({}, own);
    }
  }
  problem.tables.reserve(part.values.size());
  Lists of_value;
  for (size_t i = 0; i < part.values.size(); ++i) {
    const int kind = tables_.kind(part.values[i]);
    of_value.clear();
    InlineVector<int, 4> over;
    int64_t cells = 1;
    for (int s : part.places[i]) {
      of_value.push_back(lists[static_cast<size_t>(s)]);
      if (variables[static_cast<size_t>(s)] < 0) continue;
      over.push_back(variables[static_cast<size_t>(s)]);
      cells = std::min<int64_t>(cells * static_cast<int64_t>(model_.list(of_value.back()).size()), int64_t{1} << 40);
    }
    if (over.size() <= 2 || cells <= (joint ? options_.joint_cells : kDirectCells)) {
      add(over, tables_.direct(kind, of_value));
      continue;
    }
    exact = false;
    const ChoiceTables::Sets& sets = tables_.sets(kind, of_value);
    const auto set = static_cast<int>(problem.own.size());
    problem.own.push_back(elimination.zeros(sets.count));
    size_t reader = 0;
    const bool maker = elimination.sizes(sets.made).size() > 1;
    if (maker) add({over[0], set}, sets.made);
    else add({set}, sets.made);
    for (size_t k = maker ? 1 : 0; k < over.size(); ++k) add({set, over[k]}, sets.readers[reader++]);
  }
  return problem;
}

ChoiceSearch::Found ChoiceSearch::found(const Part& part, const Lists& lists, const std::vector<int>& variables,
                                        const std::vector<int>& chosen, Cost value, bool exact) const {
  Found out;
  if (value >= kInfinite) return out;
  out.cost = exact ? value : -1;
  for (size_t s = 0; s < part.sites.size(); ++s) {
    const int v = variables[s];
    out.labels.push_back(model_.list(lists[s])[v < 0 ? 0 : static_cast<size_t>(chosen[static_cast<size_t>(v)])]);
  }
  return out;
}

// Of each variable the label that stands for `labels`: of a value's copies the cheapest set that serves its readers.
std::vector<int> ChoiceSearch::start_of(const Part& part, const Lists& lists, const Labels& labels, const std::vector<int>& variables,
                                        const SumProblem& sums) {
  constexpr int kUnset = -1;
  const Elimination& elimination = tables_.elimination();
  std::vector<int> start(sums.own.size(), kUnset);
  for (size_t s = 0; s < part.sites.size(); ++s) {
    if (variables[s] < 0) continue;
    const std::vector<SplitId>& list = model_.list(lists[s]);
    const auto at = std::find(list.begin(), list.end(), labels[s]) - list.begin();
    start[static_cast<size_t>(variables[s])] = at < static_cast<std::ptrdiff_t>(list.size()) ? static_cast<int>(at) : 0;
  }
  std::vector<std::vector<Cost>> sum(sums.own.size());
  for (const SumProblem::Term& t : sums.tables) {
    const auto set = static_cast<size_t>(t.variables[0] < t.variables[1] ? t.variables[1] : t.variables[0]);
    if (start[set] != kUnset) continue;
    const bool last = static_cast<size_t>(t.variables[1]) == set;
    const auto other = static_cast<size_t>(start[static_cast<size_t>(t.variables[last ? 0 : 1])]);
    const std::vector<int>& sizes = elimination.sizes(t.table);
    const auto count = static_cast<size_t>(sizes[last ? 1 : 0]), across = static_cast<size_t>(sizes[1]);
    if (sum[set].empty()) sum[set] = *elimination.cells(sums.own[set]);
    for (size_t x = 0; x < count; ++x) sum[set][x] = add_costs(sum[set][x], (*elimination.cells(t.table))[last ? other * across + x : x * across + other]);
  }
  for (size_t v = 0; v < start.size(); ++v) {
    if (start[v] == kUnset) start[v] = sum[v].empty() ? 0 : static_cast<int>(std::min_element(sum[v].begin(), sum[v].end()) - sum[v].begin());
  }
  return start;
}

ChoiceSearch::Found ChoiceSearch::solve(const Part& part, const Lists& lists, const Labels& labels) {
  std::vector<int> variables;
  bool exact = true;
  const SumProblem sums = problem(part, lists, false, variables, exact);
  const int64_t share = work_ / (4 * std::max<int64_t>(static_cast<int64_t>(sums.own.size()), 1));
  const Elimination::Limits limits{.total = work_ / 32, .least = std::clamp<int64_t>(share, 1 << 10, 1 << 16)};
  const Elimination::Solution solution =
      tables_.elimination().solve(sums, limits, [&] { return start_of(part, lists, labels, variables, sums); });
  work_ -= solution.work;
  return found(part, lists, variables, solution.labels, solution.value, exact);
}

ChoiceSearch::Found ChoiceSearch::solve_within(const Part& part, const Lists& lists, Cost upper, Cost* bound) {
  std::vector<int> variables;
  bool exact = true;
  const SumProblem sums = problem(part, lists, true, variables, exact);
  MinSum problem = as_min_sum(sums, tables_.elimination());
  *bound = problem.tighten(upper, static_cast<int>(std::clamp<int64_t>((int64_t{1} << 26) / std::max<int64_t>(problem.cells(), 1), 4, 40)));
  const int64_t share = work_ / (4 * std::max<int64_t>(problem.variables(), 1));
  const MinSum::Solution solution = problem.solve(std::clamp<int64_t>(share, 1 << 10, 1 << 22), std::vector<int>(sums.own.size(), 0));
  work_ -= solution.work;
  // Where only sets of few copies are in the tables, more copies may cost less than any of their sums.
  *bound = !exact ? 0 : solution.exact && solution.value < kInfinite ? solution.value : *bound;
  return found(part, lists, variables, solution.labels, solution.value, exact);
}

Cost ChoiceSearch::total(const Part& part, const Labels& labels) {
  Cost sum = 0;
  for (size_t s = 0; s < labels.size(); ++s) {
    now_[static_cast<size_t>(part.sites[s])] = labels[s];
    sum = add_costs(sum, model_.own_cost(static_cast<size_t>(part.sites[s]), labels[s]));
  }
  for (int i : part.values) {
    const ValueNode& v = model_.values()[static_cast<size_t>(i)];
    const LayoutId made = model_.made(v, now_);
    std::vector<LayoutId> needs = model_.needs(v, now_, made);
    sum = add_costs(sum, model_.value_cost(v, made, needs));
  }
  return sum;
}

}  // namespace meshard
