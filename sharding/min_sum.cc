#include "meshard/sharding/min_sum.h"

#include <algorithm>
#include <queue>
#include <tuple>

#include "meshard/base/error.h"

namespace meshard {
namespace {

// Walks all labels of some variables, the last one fastest, and keeps the cell of a table that has some of them.
struct Strides {
  std::vector<int64_t> step;  // of each walked variable in this table; 0: not in it
  const Cost* cells;
};

}  // namespace

int MinSum::add_variable(int labels) {
  MESHARD_CHECK(labels > 0, "a variable has a label");
  labels_.push_back(labels);
  own_.emplace_back(static_cast<size_t>(labels), 0);
  return static_cast<int>(labels_.size()) - 1;
}

void MinSum::add_table(std::vector<int> variables, Cells cells) {
  if (variables.empty()) return add_constant((*cells)[0]);
  if (variables.size() == 1) {
    std::vector<Cost>& own = own_[static_cast<size_t>(variables[0])];
    for (size_t i = 0; i < own.size(); ++i) own[i] = add_costs(own[i], (*cells)[i]);
    return;
  }
  tables_.push_back({std::move(variables), std::move(cells)});
}

int64_t MinSum::cells() const {
  int64_t n = 0;
  for (const Table& t : tables_) n += static_cast<int64_t>(t.cells->size());
  return n;
}

int64_t MinSum::live_labels() const {
  int64_t n = 0;
  for (const auto& own : own_) n += std::count_if(own.begin(), own.end(), [](Cost c) { return c < kInfinite; });
  return n;
}

Cost MinSum::value(const std::vector<int>& labels) const {
  Cost sum = constant_;
  for (size_t v = 0; v < own_.size(); ++v) sum = add_costs(sum, own_[v][static_cast<size_t>(labels[v])]);
  for (const Table& t : tables_) {
    size_t cell = 0;
    for (int v : t.variables) cell = cell * static_cast<size_t>(labels_[static_cast<size_t>(v)]) + static_cast<size_t>(labels[static_cast<size_t>(v)]);
    sum = add_costs(sum, (*t.cells)[cell]);
  }
  return sum;
}

namespace {

// One elimination: what is left of a variable when its best label is written as a table over its neighbours.
struct Bucket {
  int variable = 0;
  std::vector<int> neighbours;     // ascending
  std::vector<uint16_t> best;      // row-major over the neighbours
};

// Sums tables over `scope` + `variable`, and for each labelling of scope takes the least over the variable's labels.
void minimize(const std::vector<int>& scope, int variable, const std::vector<int>& labels, const std::vector<Cost>& own,
              const std::vector<std::pair<const std::vector<int>*, const Cost*>>& tables, std::vector<Cost>& least,
              std::vector<uint16_t>& best) {
  const size_t n = scope.size();
  size_t cells = 1;
  for (int v : scope) cells *= static_cast<size_t>(labels[static_cast<size_t>(v)]);
  least.resize(cells);
  best.resize(cells);
  std::vector<Strides> walks;
  std::vector<int64_t> inner;  // step of the variable in each table
  for (const auto& [vars, data] : tables) {
    Strides s{std::vector<int64_t>(n, 0), data};
    int64_t step = 1, own_step = 0;
    for (size_t i = vars->size(); i-- > 0;) {
      const int v = (*vars)[i];
      if (v == variable) own_step = step;
      else s.step[static_cast<size_t>(std::lower_bound(scope.begin(), scope.end(), v) - scope.begin())] = step;
      step *= labels[static_cast<size_t>(v)];
    }
    walks.push_back(std::move(s));
    inner.push_back(own_step);
  }
  const size_t count = own.size();
  std::vector<int> at(n, 0);
  std::vector<Cost> sum(count);
  for (size_t cell = 0; cell < cells; ++cell) {
    std::copy(own.begin(), own.end(), sum.begin());
    for (size_t t = 0; t < walks.size(); ++t) {
      const Cost* p = walks[t].cells;
      const int64_t step = inner[t];
      for (size_t x = 0; x < count; ++x) sum[x] += p[static_cast<int64_t>(x) * step];
    }
    size_t arg = 0;
    for (size_t x = 1; x < count; ++x) arg = sum[x] < sum[arg] ? x : arg;
    least[cell] = std::min(sum[arg], kInfinite);
    best[cell] = static_cast<uint16_t>(arg);
    for (size_t i = n; i-- > 0;) {  // the next labelling, and each table's cell for it
      if (++at[i] < labels[static_cast<size_t>(scope[i])]) {
        for (Strides& w : walks) w.cells += w.step[i];
        break;
      }
      for (Strides& w : walks) w.cells -= w.step[i] * (at[i] - 1);
      at[i] = 0;
    }
  }
}

}  // namespace

MinSum::Solution MinSum::solve(int64_t limit, const std::vector<int>& start) const {
  struct Live {
    std::vector<int> variables;  // ascending where made by elimination, else as given
    Cells cells;
    bool gone = false;
  };
  const size_t n = labels_.size();
  std::vector<Live> live;
  std::vector<std::vector<int>> of(n);  // tables that have the variable
  std::vector<std::vector<Cost>> own = own_;
  std::vector<int> labels = labels_;
  Solution solution;
  solution.labels.assign(n, 0);

  // Labels that are infinite by themselves, or have no finite partner in a table, are nobody's best: shrinking the tables first
  // is worth more than any clever order.
  std::vector<std::vector<int>> kept(n);
  {
    std::vector<std::vector<char>> dead(n);
    for (size_t v = 0; v < n; ++v) {
      dead[v].resize(own[v].size());
      for (size_t x = 0; x < own[v].size(); ++x) dead[v][x] = own[v][x] >= kInfinite;
    }
    for (bool changed = true; changed;) {
      changed = false;
      for (const Table& t : tables_) {
        std::vector<std::vector<char>> partner;
        for (int v : t.variables) partner.emplace_back(static_cast<size_t>(labels_[static_cast<size_t>(v)]), 0);
        std::vector<size_t> at(t.variables.size(), 0);
        for (Cost c : *t.cells) {
          bool finite = c < kInfinite;
          for (size_t i = 0; finite && i < at.size(); ++i) finite = !dead[static_cast<size_t>(t.variables[i])][at[i]];
          if (finite) {
            for (size_t i = 0; i < at.size(); ++i) partner[i][at[i]] = 1;
          }
          for (size_t i = at.size(); i-- > 0;) {
            if (++at[i] < partner[i].size()) break;
            at[i] = 0;
          }
        }
        for (size_t i = 0; i < partner.size(); ++i) {
          auto& d = dead[static_cast<size_t>(t.variables[i])];
          for (size_t x = 0; x < d.size(); ++x) {
            if (!d[x] && !partner[i][x]) d[x] = changed = true;
          }
        }
      }
    }
    for (size_t v = 0; v < n; ++v) {
      for (size_t x = 0; x < dead[v].size(); ++x) {
        if (!dead[v][x]) kept[v].push_back(static_cast<int>(x));
      }
      if (kept[v].empty()) return solution;  // no labelling is finite
      std::vector<Cost> less;
      for (int x : kept[v]) less.push_back(own[v][static_cast<size_t>(x)]);
      own[v] = std::move(less);
      labels[v] = static_cast<int>(kept[v].size());
    }
  }
  const auto add_live = [&](std::vector<int> variables, Cells cells) {
    for (int v : variables) of[static_cast<size_t>(v)].push_back(static_cast<int>(live.size()));
    live.push_back({std::move(variables), std::move(cells)});
  };
  for (const Table& t : tables_) {
    bool same = true;
    for (int v : t.variables) same &= labels[static_cast<size_t>(v)] == labels_[static_cast<size_t>(v)];
    if (same) {
      add_live(t.variables, t.cells);
      continue;
    }
    auto less = std::make_shared<std::vector<Cost>>();
    std::vector<size_t> at(t.variables.size(), 0);
    size_t cells = 1;
    for (int v : t.variables) cells *= kept[static_cast<size_t>(v)].size();
    less->reserve(cells);
    for (size_t c = 0; c < cells; ++c) {
      size_t cell = 0;
      for (size_t i = 0; i < at.size(); ++i) {
        const auto v = static_cast<size_t>(t.variables[i]);
        cell = cell * static_cast<size_t>(labels_[v]) + static_cast<size_t>(kept[v][at[i]]);
      }
      less->push_back((*t.cells)[cell]);
      for (size_t i = at.size(); i-- > 0;) {
        if (++at[i] < kept[static_cast<size_t>(t.variables[i])].size()) break;
        at[i] = 0;
      }
    }
    add_live(t.variables, std::move(less));
  }

  std::vector<char> done(n, 0);
  const auto scope_of = [&](int v) {
    std::vector<int> scope;
    for (int t : of[static_cast<size_t>(v)]) {
      if (live[static_cast<size_t>(t)].gone) continue;
      for (int u : live[static_cast<size_t>(t)].variables) {
        if (u != v) scope.push_back(u);
      }
    }
    std::sort(scope.begin(), scope.end());
    scope.erase(std::unique(scope.begin(), scope.end()), scope.end());
    return scope;
  };
  const auto size_of = [&](int v, const std::vector<int>& scope) {
    double cells = labels[static_cast<size_t>(v)];
    for (int u : scope) cells *= labels[static_cast<size_t>(u)];
    return static_cast<int64_t>(std::min(cells, 1e18));
  };
  using Entry = std::tuple<int64_t, int>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  std::vector<int64_t> size(n);
  for (size_t v = 0; v < n; ++v) queue.emplace(size[v] = size_of(static_cast<int>(v), scope_of(static_cast<int>(v))), static_cast<int>(v));

  std::vector<Bucket> buckets;
  Cost value = constant_;
  // A variable that keeps its label: every table that has it becomes smaller.
  const auto fix = [&](int v, int label) {
    for (int t : std::vector<int>(of[static_cast<size_t>(v)])) {
      Live& l = live[static_cast<size_t>(t)];
      if (l.gone) continue;
      const std::vector<int> variables = l.variables;
      const Cells cells = l.cells;
      l.gone = true;
      int64_t before = 1, after = 1;
      std::vector<int> rest;
      bool behind = false;
      for (int u : variables) {
        if (u == v) behind = true;
        else rest.push_back(u), (behind ? after : before) *= labels[static_cast<size_t>(u)];
      }
      auto less = std::make_shared<std::vector<Cost>>();
      for (int64_t b = 0; b < before; ++b) {
        for (int64_t a = 0; a < after; ++a) less->push_back((*cells)[static_cast<size_t>((b * labels[static_cast<size_t>(v)] + label) * after + a)]);
      }
      if (rest.size() == 1) {
        auto& o = own[static_cast<size_t>(rest[0])];
        for (size_t x = 0; x < o.size(); ++x) o[x] = add_costs(o[x], (*less)[x]);
      } else {
        add_live(rest, less);
      }
    }
    value = add_costs(value, own[static_cast<size_t>(v)][static_cast<size_t>(label)]);
    solution.labels[static_cast<size_t>(v)] = label;
    done[static_cast<size_t>(v)] = 1;
  };

  while (!queue.empty()) {
    const auto [cells, v] = queue.top();
    queue.pop();
    if (done[static_cast<size_t>(v)] || cells != size[static_cast<size_t>(v)]) continue;
    std::vector<int> scope = scope_of(v);
    const int64_t now = size_of(v, scope);
    if (now != cells) {
      queue.emplace(size[static_cast<size_t>(v)] = now, v);
      continue;
    }
    if (now > limit) {  // the cheapest one left is too large: one variable keeps what it has
      solution.exact = false;
      int most = v;
      size_t degree = 0;
      for (int u : scope) {
        size_t d = 0;
        for (int t : of[static_cast<size_t>(u)]) d += !live[static_cast<size_t>(t)].gone;
        if (d > degree) degree = d, most = u;
      }
      const int wanted = start.empty() ? 0 : start[static_cast<size_t>(most)];
      const auto& k = kept[static_cast<size_t>(most)];
      const auto it = std::find(k.begin(), k.end(), wanted);
      fix(most, it == k.end() ? 0 : static_cast<int>(it - k.begin()));
      if (most != v) queue.emplace(size[static_cast<size_t>(v)] = size_of(v, scope_of(v)), v);
      for (int u : scope) {
        if (!done[static_cast<size_t>(u)]) queue.emplace(size[static_cast<size_t>(u)] = size_of(u, scope_of(u)), u);
      }
      continue;
    }
    Bucket bucket{v, scope, {}};
    std::vector<std::pair<const std::vector<int>*, const Cost*>> tables;
    for (int t : of[static_cast<size_t>(v)]) {
      Live& l = live[static_cast<size_t>(t)];
      if (!l.gone) tables.emplace_back(&l.variables, l.cells->data());
    }
    auto least = std::make_shared<std::vector<Cost>>();
    solution.work += cells * static_cast<int64_t>(tables.size() + 1);
    minimize(scope, v, labels, own[static_cast<size_t>(v)], tables, *least, bucket.best);
    for (int t : of[static_cast<size_t>(v)]) live[static_cast<size_t>(t)].gone = true, live[static_cast<size_t>(t)].cells.reset();
    done[static_cast<size_t>(v)] = 1;
    if (scope.empty()) {
      value = add_costs(value, (*least)[0]);
    } else if (scope.size() == 1) {
      auto& o = own[static_cast<size_t>(scope[0])];
      for (size_t x = 0; x < o.size(); ++x) o[x] = add_costs(o[x], (*least)[x]);
    } else {
      add_live(scope, least);
    }
    buckets.push_back(std::move(bucket));
    for (int u : scope) {
      auto& list = of[static_cast<size_t>(u)];
      std::erase_if(list, [&](int t) { return live[static_cast<size_t>(t)].gone; });
      const int64_t s = size_of(u, scope_of(u));
      if (s != size[static_cast<size_t>(u)]) queue.emplace(size[static_cast<size_t>(u)] = s, u);
    }
  }
  for (size_t b = buckets.size(); b-- > 0;) {
    size_t cell = 0;
    for (int u : buckets[b].neighbours) cell = cell * static_cast<size_t>(labels[static_cast<size_t>(u)]) + static_cast<size_t>(solution.labels[static_cast<size_t>(u)]);
    solution.labels[static_cast<size_t>(buckets[b].variable)] = buckets[b].best[cell];
  }
  for (size_t v = 0; v < n; ++v) solution.labels[v] = kept[v][static_cast<size_t>(solution.labels[v])];
  solution.value = value;
  return solution;
}

Cost MinSum::tighten(Cost upper, int sweeps) {
  // own[v] + the shifts of its tables is a reparametrization: sums are as before. A table takes what its variables have, and
  // gives each an equal part of its min-marginal back.
  std::vector<std::vector<Cost>> own = own_;
  std::vector<std::vector<std::vector<Cost>>> shift(tables_.size());
  for (size_t t = 0; t < tables_.size(); ++t) {
    for (int v : tables_[t].variables) shift[t].emplace_back(static_cast<size_t>(labels_[static_cast<size_t>(v)]), 0);
  }
  // A row of cells shares what its outer variables add, and all its partners when one of them is dead.
  std::vector<Cost> inner;
  const auto marginals = [&](size_t t, std::vector<std::vector<Cost>>& out) {
    const Table& table = tables_[t];
    const size_t outer = table.variables.size() - 1;
    const auto dead = [&](size_t i, size_t x) { return own[static_cast<size_t>(table.variables[i])][x] >= kInfinite; };
    out.resize(outer + 1);
    for (size_t i = 0; i <= outer; ++i) out[i].assign(shift[t][i].size(), kInfinite);
    inner = shift[t][outer];
    for (size_t x = 0; x < inner.size(); ++x) {
      if (dead(outer, x)) inner[x] = kInfinite;
    }
    std::vector<Cost>& last = out[outer];
    std::vector<size_t> at(outer, 0);
    const std::vector<Cost>& cells = *table.cells;
    for (size_t row = 0; row < cells.size(); row += inner.size()) {
      Cost base = 0;
      bool skip = false;
      for (size_t i = 0; i < outer; ++i) {
        base += shift[t][i][at[i]];
        skip = skip || dead(i, at[i]);
      }
      if (!skip) {
        Cost lowest = kInfinite;
        for (size_t x = 0; x < inner.size(); ++x) {
          const Cost c = cells[row + x] + (base + inner[x]);
          last[x] = c < last[x] ? c : last[x];
          lowest = c < lowest ? c : lowest;
        }
        for (size_t i = 0; i < outer; ++i) out[i][at[i]] = std::min(out[i][at[i]], lowest);
      }
      for (size_t i = outer; i-- > 0;) {
        if (++at[i] < shift[t][i].size()) break;
        at[i] = 0;
      }
    }
    // Infinite cells that a shift has lowered.
    for (std::vector<Cost>& costs : out) {
      for (Cost& c : costs) c = c >= kInfinite / 2 ? kInfinite : c;
    }
  };
  const auto least = [](const std::vector<Cost>& costs) { return *std::min_element(costs.begin(), costs.end()); };
  std::vector<std::vector<Cost>> m;
  const auto update = [&](size_t t) {
    const std::vector<int>& variables = tables_[t].variables;
    for (size_t i = 0; i < variables.size(); ++i) {
      auto& o = own[static_cast<size_t>(variables[i])];
      for (size_t x = 0; x < o.size(); ++x) {
        if (o[x] >= kInfinite) continue;  // a dead label stays dead
        shift[t][i][x] += o[x];
        o[x] = 0;
      }
    }
    marginals(t, m);
    const auto parts = static_cast<Cost>(variables.size());
    for (size_t i = 0; i < variables.size(); ++i) {
      auto& o = own[static_cast<size_t>(variables[i])];
      for (size_t x = 0; x < o.size(); ++x) {
        if (o[x] >= kInfinite) continue;
        if (m[i][x] >= kInfinite / 2) {
          o[x] = kInfinite;  // no finite partner
          continue;
        }
        o[x] = m[i][x] / parts;
        shift[t][i][x] -= o[x];
      }
    }
  };
  Cost bound = 0;
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (size_t t = 0; t < tables_.size(); ++t) update(t);
    for (size_t t = tables_.size(); t-- > 0;) update(t);
    Cost sum = constant_;
    for (const auto& o : own) sum = add_costs(sum, least(o));
    std::vector<std::vector<std::vector<Cost>>> all(tables_.size());
    std::vector<Cost> floor(tables_.size());
    for (size_t t = 0; t < tables_.size(); ++t) {
      marginals(t, all[t]);
      floor[t] = least(all[t][0]);
      sum = add_costs(sum, floor[t]);
    }
    const bool better = sweep == 0 || sum > bound;
    bound = std::max(bound, sum);
    if (bound >= upper || !better || sweep + 1 == sweeps || sweep % 8 == 7) {
      std::vector<std::vector<Cost>> slack = own;
      for (auto& s : slack) {
        const Cost low = least(s);
        for (Cost& c : s) c = c >= kInfinite ? kInfinite : c - low;
      }
      for (size_t t = 0; t < tables_.size(); ++t) {
        for (size_t i = 0; i < tables_[t].variables.size(); ++i) {
          auto& s = slack[static_cast<size_t>(tables_[t].variables[i])];
          for (size_t x = 0; x < s.size(); ++x) s[x] = all[t][i][x] >= kInfinite / 2 ? kInfinite : add_costs(s[x], all[t][i][x] - floor[t]);
        }
      }
      for (size_t v = 0; v < slack.size(); ++v) {
        for (size_t x = 0; x < slack[v].size(); ++x) {
          if (add_costs(sum, slack[v][x]) > upper) own[v][x] = own_[v][x] = kInfinite;
        }
      }
      if (bound >= upper || !better) break;
    }
  }
  return std::min(bound, upper);
}

}  // namespace meshard
