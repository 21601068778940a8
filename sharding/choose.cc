#include "meshard/sharding/choose.h"

#include <absl/container/flat_hash_map.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

#include "meshard/sharding/choice_model.h"

namespace meshard {
namespace {

constexpr int64_t kDirectCells = 1024;   // a value with few readers is one table of at most so many cells
constexpr size_t kMostCopySets = 300;    // else a variable of its own says which copies it has
constexpr size_t kManySites = 64;        // of a large program: one axis at a time
constexpr int64_t kWork = int64_t{1} << 27;
constexpr size_t kMostLabels = 600;      // of a site in the joint search

class Search {
 public:
  Search(const Program& program, const ChooseOptions& options) : program_(program), options_(options), model_(program) {}

  std::vector<SplitId> run() {
    std::vector<Atoms> axes, atoms;
    for (const Axis& axis : program_.mesh->axes()) {
      if (!axis.atoms.empty()) axes.push_back(axis.atoms);
      for (AtomId a : axis.atoms) atoms.push_back({a});
    }
    const std::vector<SplitId> start = model_.propagated();
    best_ = start;
    cost_ = propagated_ = model_.total(start);
    const auto each = [](const std::vector<Atoms>& units) {
      std::vector<std::vector<Atoms>> steps;
      for (const Atoms& u : units) steps.push_back({u});
      return steps;
    };
    const auto pairs = [](const std::vector<Atoms>& units) {
      std::vector<std::vector<Atoms>> steps;
      for (size_t i = 0; i < units.size(); ++i) {
        for (size_t j = i + 1; j < units.size(); ++j) steps.push_back({units[i], units[j]});
      }
      return steps;
    };
    descend(start, each(axes));
    if (axes.size() > 1) descend(start, each({axes.rbegin(), axes.rend()}));
    if (atoms.size() > axes.size()) descend(best_, each(atoms));
    bound_ = 0;
    if (!options_.joint || best_.size() > kManySites || joint()) return best_;
    // Too much for one step. Two axes at once make the moves that one alone does not: two that trade places, or that pay only together.
    descend(best_, pairs(axes));
    if (atoms.size() > axes.size() && atoms.size() <= 4) descend(best_, pairs(atoms));
    return best_;
  }

  ChoiceModel& model() { return model_; }
  Cost cost() const { return cost_; }
  Cost bound() const { return bound_; }
  Cost propagated() const { return propagated_; }
  // Site `site` may only have this label.
  void force(int site, SplitId label) { forced_[site] = label; }

 private:
  bool keep(const std::vector<SplitId>& labels) {
    const Cost cost = model_.total(labels);
    if (cost >= cost_) return false;
    cost_ = cost;
    best_ = labels;
    return true;
  }

  // Step after step, each exact, until none helps. A step varies the labels along its units.
  void descend(std::vector<SplitId> labels, const std::vector<std::vector<Atoms>>& steps) {
    for (const auto& [site, label] : forced_) labels[static_cast<size_t>(site)] = label;
    Cost cost = model_.total(labels);
    size_t idle = 0;
    for (size_t i = 0; idle < steps.size() && work_ > 0; i = (i + 1) % steps.size()) {
      std::vector<LabelListId> lists;
      for (size_t s = 0; s < labels.size(); ++s) lists.push_back(model_.vary(s, labels[s], steps[i]));
      std::vector<SplitId> next;
      if (steps[i].size() == 1 || affordable(lists)) next = solve(lists, labels, kInfinite, nullptr);
      const Cost now = next.empty() ? kInfinite : value_ >= 0 ? value_ : model_.total(next);
      // A step cannot raise the sum unless a value wants more copies than its sets hold.
      idle = now < cost ? 1 : idle + 1;
      if (now < cost) {
        cost = now;
        labels = std::move(next);
      }
    }
    keep(labels);
  }

  // All axes at once, if the tables are small enough.
  bool joint() {
    std::vector<LabelListId> lists;
    for (size_t s = 0; s < best_.size(); ++s) {
      lists.push_back(model_.all_labels(s, kMostLabels));
      if (model_.list(lists.back()).empty()) return false;
    }
    if (!affordable(lists)) return false;
    Cost bound = 0;
    // No label of the best may be pruned: solutions equal to it are kept.
    const std::vector<SplitId> found = solve(lists, best_, cost_, &bound);
    if (!found.empty()) keep(found);
    bound_ = std::min(bound, cost_);
    return bound_ >= cost_;
  }

  bool affordable(const std::vector<LabelListId>& lists) {
    double cells = 0;
    for (const ValueNode& v : model_.values()) {
      double size = 1;
      for (int site : sites_of(v)) size *= static_cast<double>(list(lists, site).size());
      cells += size;
      if (cells > static_cast<double>(options_.joint_cells)) return false;
    }
    return true;
  }

  const std::vector<SplitId>& list(const std::vector<LabelListId>& lists, int site) {
    const auto it = forced_.find(site);
    return model_.list(it == forced_.end() ? lists[static_cast<size_t>(site)] : model_.only(it->second));
  }

  static std::vector<int> sites_of(const ValueNode& v) {
    std::vector<int> sites;
    if (v.maker >= 0) sites.push_back(v.maker);
    for (const Reader& r : v.readers) {
      if (r.site >= 0) sites.push_back(r.site);
    }
    std::sort(sites.begin(), sites.end());
    sites.erase(std::unique(sites.begin(), sites.end()), sites.end());
    return sites;
  }

  // The least sum over these labels; empty: none is finite. With `bound`, labels that cannot be in a sum of at most `upper` are taken
  // out first, and *bound is a lower bound on the least sum (the least itself where the search is exact).
  std::vector<SplitId> solve(const std::vector<LabelListId>& lists, const std::vector<SplitId>& labels, Cost upper, Cost* bound) {
    MinSum problem;
    std::vector<int> variable(labels.size(), -1), start;
    std::vector<int> site_of;
    for (size_t s = 0; s < labels.size(); ++s) {
      const std::vector<SplitId>& l = list(lists, static_cast<int>(s));
      if (l.size() == 1) {
        problem.add_constant(model_.own_cost(s, l[0]));
        continue;
      }
      variable[s] = problem.add_variable(static_cast<int>(l.size()));
      site_of.push_back(static_cast<int>(s));
      start.push_back(static_cast<int>(std::max<std::ptrdiff_t>(std::find(l.begin(), l.end(), labels[s]) - l.begin(), 0)));
      auto own = std::make_shared<std::vector<Cost>>();
      for (SplitId id : l) own->push_back(model_.own_cost(s, id));
      problem.add_table({variable[s]}, own);
    }
    bool exact = true;
    std::vector<SplitId> at = labels;  // a label of each site; of those that vary any one
    for (const ValueNode& v : model_.values()) exact &= add_value(problem, lists, at, variable, v, bound != nullptr);
    if (bound != nullptr) {
      *bound = problem.tighten(upper, static_cast<int>(std::clamp<int64_t>((int64_t{1} << 26) / std::max<int64_t>(problem.cells(), 1), 4, 40)));
      start.clear();
    }
    start.resize(static_cast<size_t>(problem.variables()), 0);
    const int64_t share = work_ / (4 * std::max<int64_t>(problem.variables(), 1));
    const MinSum::Solution solution = problem.solve(std::clamp<int64_t>(share, 1 << 10, 1 << 22), start);
    work_ -= solution.work;
    // Where only sets of few copies are in the tables, more copies may cost less than any of their sums.
    if (bound != nullptr) *bound = !exact ? 0 : solution.exact && solution.value < kInfinite ? solution.value : *bound;
    value_ = exact ? solution.value : -1;
    if (solution.value >= kInfinite) return {};
    std::vector<SplitId> next;
    for (size_t s = 0; s < labels.size(); ++s) {
      const std::vector<SplitId>& l = list(lists, static_cast<int>(s));
      next.push_back(l[variable[s] < 0 ? 0 : static_cast<size_t>(solution.labels[static_cast<size_t>(variable[s])])]);
    }
    return next;
  }

  // The tables of one value. False: only sets of a few copies are in them, which may miss the least.
  bool add_value(MinSum& problem, const std::vector<LabelListId>& lists, std::vector<SplitId>& at, const std::vector<int>& variable, const ValueNode& v,
                 bool joint) {
    std::vector<int> sites;  // that have a choice
    int64_t cells = 1;
    for (int s : sites_of(v)) {
      if (variable[static_cast<size_t>(s)] < 0) continue;
      sites.push_back(s);
      cells = std::min<int64_t>(cells * static_cast<int64_t>(list(lists, s).size()), int64_t{1} << 40);
    }
    for (int s : sites_of(v)) at[static_cast<size_t>(s)] = list(lists, s)[0];
    if (sites.empty()) {
      const LayoutId made = model_.made(v, at);
      problem.add_constant(model_.value_cost(v, made, model_.needs(v, at, made)));
      return true;
    }
    if (sites.size() > 2 && cells > (joint ? options_.joint_cells : kDirectCells)) return add_sets(problem, lists, at, variable, v, sites);
    return add_direct(problem, lists, at, variable, v, sites);
  }

  // One table over the maker and all readers. Many labels ask for the same layout, so what is priced is what they ask for; and values
  // that are alike, as those of one block are to those of the next, have one table.
  bool add_direct(MinSum& problem, const std::vector<LabelListId>& lists, std::vector<SplitId>& at, const std::vector<int>& variable,
                  const ValueNode& v, const std::vector<int>& sites) {
    const bool maker_varies = v.maker >= 0 && variable[static_cast<size_t>(v.maker)] >= 0;
    std::vector<int> readers, variables;
    if (maker_varies) variables.push_back(variable[static_cast<size_t>(v.maker)]);
    for (int s : sites) {
      if (s == v.maker) continue;
      readers.push_back(s);
      variables.push_back(variable[static_cast<size_t>(s)]);
    }
    std::string key;
    const auto put = [&](int64_t x) { key.append(reinterpret_cast<const char*>(&x), sizeof(x)); };
    put(v.shape), put(v.size), put(v.weight), put(v.propagated), put(v.binds);
    if (v.maker < 0) put(-1 - int64_t{v.layout});
    else put(maker_varies ? lists[static_cast<size_t>(v.maker)] : -1 - int64_t{at[static_cast<size_t>(v.maker)]}), put(v.port);
    for (const Reader& r : v.readers) {
      put(r.kind), put(r.port);
      if (r.site < 0) put(-1 - int64_t{r.layout});
      else if (r.site == v.maker) put(-2);
      else if (variable[static_cast<size_t>(r.site)] < 0) put(-3 - int64_t{at[static_cast<size_t>(r.site)]});
      else put(std::find(readers.begin(), readers.end(), r.site) - readers.begin()), put(lists[static_cast<size_t>(r.site)]);
    }
    MinSum::Cells& cells = tables_[key];
    if (cells == nullptr) cells = price(lists, at, v, readers, maker_varies);
    problem.add_table(std::move(variables), cells);
    return true;
  }

  MinSum::Cells price(const std::vector<LabelListId>& lists, std::vector<SplitId>& at, const ValueNode& v, const std::vector<int>& readers,
                      bool maker_varies) {
    const std::vector<SplitId> makers = maker_varies ? list(lists, v.maker) : std::vector<SplitId>{0};
    auto costs = std::make_shared<std::vector<Cost>>();
    std::map<LayoutId, std::pair<size_t, size_t>> priced;  // by what is made: where its cells are
    for (SplitId maker : makers) {
      if (maker_varies) at[static_cast<size_t>(v.maker)] = maker;
      const LayoutId made = model_.made(v, at);
      bool own_reader = false;  // also reads what it makes: a function's parameter that a call hands on
      for (const Reader& r : v.readers) own_reader |= r.site >= 0 && r.site == v.maker;
      if (const auto it = priced.find(made); it != priced.end() && !own_reader) {
        for (size_t i = it->second.first; i < it->second.second; ++i) costs->push_back(Cost((*costs)[i]));
        continue;
      }
      // What each label of each reader asks for, equal ones once.
      std::vector<LayoutId> fixed;
      for (const Reader& r : v.readers) {
        if (std::find(readers.begin(), readers.end(), r.site) != readers.end()) continue;
        fixed.push_back(model_.effective(v, r, r.site < 0 ? nullptr : &model_.split(at[static_cast<size_t>(r.site)]), made));
      }
      std::vector<std::vector<std::vector<LayoutId>>> asked(readers.size());
      std::vector<std::vector<size_t>> which(readers.size());
      size_t classes = 1;
      for (size_t k = 0; k < readers.size(); ++k) {
        for (SplitId id : list(lists, readers[k])) {
          std::vector<LayoutId> needs;
          for (const Reader& r : v.readers) {
            if (r.site == readers[k]) needs.push_back(model_.effective(v, r, &model_.split(id), made));
          }
          const auto it = std::find(asked[k].begin(), asked[k].end(), needs);
          which[k].push_back(static_cast<size_t>(it - asked[k].begin()));
          if (it == asked[k].end()) asked[k].push_back(std::move(needs));
        }
        classes *= asked[k].size();
      }
      std::vector<Cost> of_class(classes);
      std::vector<size_t> digit(readers.size(), 0);
      const auto next = [&](const auto& size) {
        for (size_t k = readers.size(); k-- > 0;) {
          if (++digit[k] < size(k)) return;
          digit[k] = 0;
        }
      };
      for (size_t c = 0; c < classes; ++c) {
        std::vector<LayoutId> needs = fixed;
        for (size_t k = 0; k < readers.size(); ++k) needs.insert(needs.end(), asked[k][digit[k]].begin(), asked[k][digit[k]].end());
        of_class[c] = model_.value_cost(v, made, std::move(needs));
        next([&](size_t k) { return asked[k].size(); });
      }
      const size_t begin = costs->size();
      size_t cells = 1;
      for (const auto& w : which) cells *= w.size();
      for (size_t c = 0; c < cells; ++c) {
        size_t at_class = 0;
        for (size_t k = 0; k < readers.size(); ++k) at_class = at_class * asked[k].size() + which[k][digit[k]];
        costs->push_back(of_class[at_class]);
        next([&](size_t k) { return which[k].size(); });
      }
      priced[made] = {begin, costs->size()};
      work_ -= static_cast<int64_t>(16 * classes + cells);
    }
    return costs;
  }

  // A value of many readers: a variable says which copies are made, so that each reader needs a table with that one only.
  bool add_sets(MinSum& problem, const std::vector<LabelListId>& lists, std::vector<SplitId> at, const std::vector<int>& variable,
                const ValueNode& v, const std::vector<int>& sites) {
    ReshardCosts& costs = model_.costs();
    const bool maker_varies = v.maker >= 0 && variable[static_cast<size_t>(v.maker)] >= 0;
    std::vector<LayoutId> makes;
    if (maker_varies) {
      for (SplitId id : list(lists, v.maker)) makes.push_back(model_.split(id).made[static_cast<size_t>(v.port)]);
    } else {
      makes.push_back(model_.made(v, at));
    }
    std::vector<LayoutId> distinct = makes, wanted;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    // What each label of each site needs, of a value made as each of `distinct`.
    for (LayoutId made : distinct) {
      wanted.push_back(made);
      for (const Reader& r : v.readers) {
        if (r.site < 0) continue;
        for (SplitId id : list(lists, r.site)) wanted.push_back(model_.effective(v, r, &model_.split(id), made));
      }
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    const auto free = [&](LayoutId have, LayoutId need, bool parts) {
      const auto e = costs.get(v.shape, have, parts ? costs.before_part(have, need) : need);
      return e.possible && e.elements == 0;
    };
    // Sets of copies of which none makes another needless; of few members first.
    std::vector<std::vector<LayoutId>> sets = {{}};
    for (size_t begin = 0, size = 0; size < 3; ++size) {
      const size_t end = sets.size();
      for (size_t i = begin; i < end; ++i) {
        for (LayoutId w : wanted) {
          if (!sets[i].empty() && w <= sets[i].back()) continue;
          bool needless = false;
          for (LayoutId m : sets[i]) needless |= free(m, w, false) || free(w, m, false);
          if (needless) continue;
          sets.push_back(sets[i]);
          sets.back().push_back(w);
        }
      }
      if (sets.size() > kMostCopySets && size > 0) {
        sets.resize(end);
        break;
      }
      begin = end;
    }
    {  // what is made now must stay possible
      std::vector<LayoutId> now;
      const LayoutId made = model_.made(v, at);
      for (LayoutId n : model_.needs(v, at, made)) now.push_back(n);
      std::sort(now.begin(), now.end());
      now.erase(std::unique(now.begin(), now.end()), now.end());
      if (std::find(sets.begin(), sets.end(), now) == sets.end()) sets.push_back(std::move(now));
    }
    const int set = problem.add_variable(static_cast<int>(sets.size()));
    auto made_costs = std::make_shared<std::vector<Cost>>();
    for (size_t i = 0; i < makes.size(); ++i) {
      const LayoutId made = makes[i];
      std::vector<LayoutId> fixed;
      for (const Reader& r : v.readers) {
        if (r.site >= 0 && r.site == v.maker && maker_varies) {
          fixed.push_back(model_.effective(v, r, &model_.split(list(lists, r.site)[i]), made));
        } else if (r.site < 0) fixed.push_back(model_.effective(v, r, nullptr, made));
        else if (variable[static_cast<size_t>(r.site)] < 0) fixed.push_back(model_.effective(v, r, &model_.split(at[static_cast<size_t>(r.site)]), made));
      }
      for (const auto& members : sets) {
        std::vector<LayoutId> needs = fixed;
        needs.insert(needs.end(), members.begin(), members.end());
        made_costs->push_back(model_.value_cost(v, made, std::move(needs)));
      }
    }
    std::vector<int> variables;
    if (maker_varies) variables.push_back(variable[static_cast<size_t>(v.maker)]);
    variables.push_back(set);
    problem.add_table(std::move(variables), made_costs);
    for (int s : sites) {
      if (s == v.maker) continue;
      auto cells = std::make_shared<std::vector<Cost>>();
      for (const auto& members : sets) {
        for (SplitId id : list(lists, s)) {
          const Split& label = model_.split(id);
          bool served = true;
          for (const Reader& r : v.readers) {
            if (r.site != s) continue;
            const LayoutId need = label.needed[static_cast<size_t>(r.port)];
            served &= std::any_of(members.begin(), members.end(), [&](LayoutId m) { return free(m, need, label.parts); });
          }
          cells->push_back(served ? 0 : kInfinite);
        }
      }
      problem.add_table({set, variable[static_cast<size_t>(s)]}, cells);
    }
    return false;
  }

  const Program& program_;
  const ChooseOptions options_;
  ChoiceModel model_;
  std::map<int, SplitId> forced_;
  absl::flat_hash_map<std::string, MinSum::Cells> tables_;  // by what determines them
  std::vector<SplitId> best_;
  Cost value_ = -1;  // of the last solution; -1: to be counted
  Cost cost_ = kInfinite, bound_ = 0, propagated_ = 0;
  int64_t work_ = kWork;  // cells that may still be visited before the search stops looking further
};

OpChoice op_choice(ChoiceModel& model, SplitId id) {
  const Split& s = model.split(id);
  OpChoice c{s.split, s.group, s.parts, {}, {}};
  for (LayoutId l : s.needed) c.operands.push_back(model.costs().layout(l));
  for (LayoutId l : s.made) c.results.push_back(model.costs().layout(l));
  return c;
}

std::string split_text(const Mesh& mesh, const Signature& signature, const Split& split) {
  std::string text;
  for (size_t k = 0; k < split.split.atoms.size(); ++k) {
    if (split.split.atoms[k].empty()) continue;
    text += fmt::format("{}{} over {}", text.empty() ? "" : ", ", signature.rule.factors[k].name, mesh.atoms_text(split.split.atoms[k]));
  }
  const AtomSet passing = split.split.passing[static_cast<size_t>(Reduction::sum)];
  if (!passing.empty()) text += fmt::format("{}sum over {} passing", text.empty() ? "" : ", ", mesh.atoms_text(passing));
  return text.empty() ? "whole" : text;
}

}  // namespace

Choices choose(const Program& program, const ChooseOptions& options) {
  if (!program.mesh) throw UserError("choose needs a mesh; write a line \"mesh data=2, model=2\" or give --mesh");
  Search search(program, options);
  const std::vector<SplitId> labels = search.run();
  ChoiceModel& model = search.model();
  Choices out;
  out.bytes = ChoiceModel::bytes_of(search.cost());
  out.bound = ChoiceModel::bytes_of(search.bound());
  out.propagated = ChoiceModel::bytes_of(search.propagated());
  out.functions.resize(program.functions.size());
  for (size_t f = 0; f < program.functions.size(); ++f) {
    const Function& in = program.functions[f];
    out.functions[f].ops.resize(in.ops.size());
    out.functions[f].params.resize(in.params.size());
    out.functions[f].returns.resize(in.returns.size());
    out.functions[f].copies.resize(in.values.size());
    for (size_t p = 0; p < in.params.size(); ++p) out.functions[f].params[p] = *in.value(in.params[p]).layout;
    for (size_t r = 0; r < in.returns.size(); ++r) out.functions[f].returns[r] = *in.value(in.returns[r].value).layout;
  }
  for (size_t s = 0; s < labels.size(); ++s) {
    const Site& site = model.sites()[s];
    FunctionChoice& f = out.functions[static_cast<size_t>(site.function)];
    const auto i = static_cast<size_t>(site.index);
    if (site.kind == Site::op) f.ops[i] = op_choice(model, labels[s]);
    else (site.kind == Site::param ? f.params : f.returns)[i] = model.costs().layout(model.split(labels[s]).made[0]);
  }
  for (size_t n = 0; n < model.values().size(); ++n) {
    const ValueNode& v = model.values()[n];
    if (model.node(v.function, v.value) != static_cast<int>(n)) continue;  // before it is brought to its pinned layout
    const LayoutId made = model.made(v, labels);
    std::vector<LayoutId> needs = model.needs(v, labels, made);
    std::erase(needs, made);
    std::sort(needs.begin(), needs.end());
    needs.erase(std::unique(needs.begin(), needs.end()), needs.end());
    if (needs.empty()) continue;
    const auto& copies = model.costs().copies(v.shape, made, needs);
    auto& list = out.functions[static_cast<size_t>(v.function)].copies[index(v.value)];
    for (size_t i = 0; i < needs.size(); ++i) list.push_back({model.costs().layout(needs[i]), copies.parents[i]});
  }
  return out;
}

std::vector<Alternative> alternatives(const Program& program, int function, int op, const ChooseOptions& options) {
  Search first(program, options);
  first.run();
  const int site = first.model().site_of_op(function, op);
  std::vector<Alternative> list;
  if (site < 0) return list;
  std::vector<SplitId> labels = first.model().list(first.model().all_labels(static_cast<size_t>(site), kMostLabels));
  for (SplitId id : labels) {
    Search search(program, options);
    // Ids are numbered alike: both searches begin with the same steps.
    search.model().all_labels(static_cast<size_t>(site), kMostLabels);
    const Split& want = first.model().split(id);
    for (SplitId mine : search.model().list(search.model().all_labels(static_cast<size_t>(site), kMostLabels))) {
      const Split& have = search.model().split(mine);
      if (have.group != want.group || have.split.atoms != want.split.atoms || have.split.passing != want.split.passing) continue;
      search.force(site, mine);
    }
    search.run();
    if (search.cost() >= kInfinite) continue;
    list.push_back({op_choice(first.model(), id), split_text(*program.mesh, first.model().signature(want.signature), want), ChoiceModel::bytes_of(search.cost())});
  }
  std::stable_sort(list.begin(), list.end(), [](const Alternative& a, const Alternative& b) { return a.bytes < b.bytes; });
  return list;
}

}  // namespace meshard
