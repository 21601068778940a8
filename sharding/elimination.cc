#include "meshard/sharding/elimination.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <queue>
#include <tuple>

#include "meshard/base/error.h"

namespace meshard {
namespace {

using Key = absl::InlinedVector<int32_t, 10>;
using LongKey = std::vector<int32_t>;

struct Table {
  std::vector<int> sizes;
  MinSum::Cells cells;
  bool finite = true;     // all of it
  TableId next = -1;      // of equal hash
};

uint64_t hash_of(const std::vector<int>& sizes, const std::vector<Cost>& cells) {
  uint64_t h = 0x9e3779b97f4a7c15;
  const auto mix = [&](uint64_t x) {
    h = (h ^ x) * 0xff51afd7ed558ccd;
    h ^= h >> 32;
  };
  for (int s : sizes) mix(static_cast<uint64_t>(s));
  for (Cost c : cells) mix(static_cast<uint64_t>(c) + 0x2545f4914f6cdd1d * static_cast<uint64_t>(c >> 64));
  return h;
}

// A variable's labels that are left, in ascending order.
using Labels = std::vector<uint16_t>;

// What is left of a variable when its best label is written as a table over its neighbours.
struct Eliminated {
  TableId least = -1;           // over the neighbours; with none: one cell
  std::vector<uint16_t> best;   // row-major over the neighbours
};

// The order in which the variables of a problem go, which depends on its graph and its sizes alone.
struct Order {
  struct Step {
    int variable = 0, pattern = 0;
    std::vector<int> neighbours;  // ascending
    std::vector<int> inputs;      // slots: the problem's tables, then those made by earlier steps
    int output = -1;              // slot; -1: fewer than two neighbours
  };
  std::vector<Step> steps;
  std::vector<int> held;        // variables that keep one label, so that no table is larger than the limit
  int64_t total = 0;            // cells visited
};

// Where the axes of the tables of one step are: for each table its arity, and for each axis the neighbour's place or -1.
using Pattern = std::vector<int32_t>;

}  // namespace

struct Elimination::State {
  std::deque<Table> tables;
  absl::flat_hash_map<uint64_t, TableId> by_hash;
  absl::flat_hash_map<std::pair<TableId, TableId>, TableId> sums;

  std::deque<Labels> labels;
  absl::flat_hash_map<Labels, int> label_ids;
  std::vector<int> finite_labels;                    // of each table that was asked, by id; -1: not asked
  absl::flat_hash_map<Key, Key> revised;             // table, labels of each axis -> labels of each axis
  absl::flat_hash_map<Key, TableId> restricted;      // table, labels of each axis -> table

  absl::flat_hash_map<LongKey, std::unique_ptr<Order>> orders;
  std::deque<Pattern> patterns;
  absl::flat_hash_map<Pattern, int> pattern_ids;
  absl::flat_hash_map<Key, int> known;               // pattern, own, tables -> eliminated
  std::deque<Eliminated> eliminated;

  const Table& table(TableId id) const { return tables[static_cast<size_t>(id)]; }
  TableId add(std::vector<int> sizes, std::vector<Cost> cells);
  TableId sum(TableId a, TableId b);

  int labels_id(Labels list) {
    const auto [it, fresh] = label_ids.try_emplace(std::move(list), static_cast<int>(labels.size()));
    if (fresh) labels.push_back(it->first);
    return it->second;
  }

  // The labels of a variable whose own cost is finite.
  int finite_of(TableId own) {
    if (finite_labels.size() < tables.size()) finite_labels.resize(tables.size(), -1);
    int& known_id = finite_labels[static_cast<size_t>(own)];
    if (known_id < 0) {
      Labels list;
      const std::vector<Cost>& costs = *table(own).cells;
      for (size_t x = 0; x < costs.size(); ++x) {
        if (costs[x] < kInfinite) list.push_back(static_cast<uint16_t>(x));
      }
      known_id = labels_id(std::move(list));
    }
    return known_id;
  }

  // Leaves to each axis the labels that have a finite cell among what the other axes still have.
  void revise(TableId id, Key& axes);
  TableId restrict(TableId id, const Key& axes);
  const Order& order_of(const SumProblem& problem, const std::vector<TableId>& own, int64_t limit);
  int eliminate(int pattern, TableId own, std::span<const TableId> inputs, int64_t& work);
  Solution solve(const SumProblem& problem, const Limits& limits, const Start& start);
};

TableId Elimination::State::add(std::vector<int> sizes, std::vector<Cost> cells) {
  const auto [it, fresh] = by_hash.try_emplace(hash_of(sizes, cells), static_cast<TableId>(tables.size()));
  for (TableId id = it->second; !fresh;) {
    Table& known_table = tables[static_cast<size_t>(id)];
    if (known_table.sizes == sizes && *known_table.cells == cells) return id;
    if (known_table.next < 0) {
      known_table.next = static_cast<TableId>(tables.size());
      break;
    }
    id = known_table.next;
  }
  const bool finite = std::all_of(cells.begin(), cells.end(), [](Cost c) { return c < kInfinite; });
  tables.push_back({std::move(sizes), std::make_shared<const std::vector<Cost>>(std::move(cells)), finite, -1});
  return static_cast<TableId>(tables.size()) - 1;
}

TableId Elimination::State::sum(TableId a, TableId b) {
  const auto [it, fresh] = sums.try_emplace(std::minmax(a, b), -1);
  if (!fresh) return it->second;
  std::vector<Cost> cells = *table(a).cells;
  const std::vector<Cost>& more = *table(b).cells;
  for (size_t i = 0; i < cells.size(); ++i) cells[i] = add_costs(cells[i], more[i]);
  return it->second = add(table(a).sizes, std::move(cells));
}

void Elimination::State::revise(TableId id, Key& axes) {
  const Table& t = table(id);
  if (t.finite) return;
  Key key = {id};
  key.insert(key.end(), axes.begin(), axes.end());
  if (const auto it = revised.find(key); it != revised.end()) {
    axes = it->second;
    return;
  }
  const size_t arity = t.sizes.size();
  std::vector<std::vector<char>> partner(arity);
  for (size_t i = 0; i < arity; ++i) partner[i].assign(static_cast<size_t>(t.sizes[i]), 0);
  std::vector<size_t> at(arity, 0), step(arity, 1);
  for (size_t i = arity; i-- > 1;) step[i - 1] = step[i] * static_cast<size_t>(t.sizes[i]);
  const auto labels_of = [&](size_t i) -> const Labels& { return labels[static_cast<size_t>(axes[i])]; };
  size_t left = 1;
  for (size_t i = 0; i < arity; ++i) left *= labels_of(i).size();
  for (; left > 0; --left) {
    size_t cell = 0;
    for (size_t i = 0; i < arity; ++i) cell += step[i] * labels_of(i)[at[i]];
    if ((*t.cells)[cell] < kInfinite) {
      for (size_t i = 0; i < arity; ++i) partner[i][labels_of(i)[at[i]]] = 1;
    }
    for (size_t i = arity; i-- > 0;) {
      if (++at[i] < labels_of(i).size()) break;
      at[i] = 0;
    }
  }
  for (size_t i = 0; i < arity; ++i) {
    Labels less;
    for (uint16_t x : labels_of(i)) {
      if (partner[i][x]) less.push_back(x);
    }
    axes[i] = labels_id(std::move(less));
  }
  revised.emplace(std::move(key), axes);
}

TableId Elimination::State::restrict(TableId id, const Key& axes) {
  const Table& t = table(id);
  const size_t arity = t.sizes.size();
  const auto labels_of = [&](size_t i) -> const Labels& { return labels[static_cast<size_t>(axes[i])]; };
  bool whole = true;
  for (size_t i = 0; i < arity; ++i) whole &= labels_of(i).size() == static_cast<size_t>(t.sizes[i]);
  if (whole) return id;
  Key key = {id};
  key.insert(key.end(), axes.begin(), axes.end());
  const auto [it, fresh] = restricted.try_emplace(std::move(key), -1);
  if (!fresh) return it->second;
  std::vector<int> sizes;
  size_t cells = 1;
  for (size_t i = 0; i < arity; ++i) {
    sizes.push_back(static_cast<int>(labels_of(i).size()));
    cells *= labels_of(i).size();
  }
  std::vector<Cost> less;
  less.reserve(cells);
  std::vector<size_t> at(arity, 0);
  for (size_t c = 0; c < cells; ++c) {
    size_t cell = 0;
    for (size_t i = 0; i < arity; ++i) cell = cell * static_cast<size_t>(t.sizes[i]) + labels_of(i)[at[i]];
    less.push_back((*t.cells)[cell]);
    for (size_t i = arity; i-- > 0;) {
      if (++at[i] < labels_of(i).size()) break;
      at[i] = 0;
    }
  }
  return it->second = add(std::move(sizes), std::move(less));
}

// Bucket elimination on the graph alone: what stands here is what MinSum::solve would do, without the cells. Where the smallest table left
// is above the limit, the variable of most tables there is held.
const Order& Elimination::State::order_of(const SumProblem& problem, const std::vector<TableId>& own, int64_t limit) {
  LongKey key;
  key.reserve(own.size() + 4 * problem.tables.size() + 2);
  key.push_back(static_cast<int32_t>(own.size()));
  key.push_back(static_cast<int32_t>(limit));
  std::vector<int> size_of_variable;
  for (TableId id : own) size_of_variable.push_back(table(id).sizes[0]);
  key.insert(key.end(), size_of_variable.begin(), size_of_variable.end());
  for (const SumProblem::Term& t : problem.tables) {
    key.push_back(-static_cast<int32_t>(t.variables.size()));
    key.insert(key.end(), t.variables.begin(), t.variables.end());
  }
  std::unique_ptr<Order>& slot = orders[std::move(key)];
  if (slot != nullptr) return *slot;
  slot = std::make_unique<Order>();
  Order& order = *slot;

  const size_t n = own.size();
  using Ids = absl::InlinedVector<int, 8>;
  std::vector<Ids> variables;               // of each slot
  std::vector<char> gone;
  std::vector<Ids> of(n);                   // slots that have the variable
  std::vector<Ids> beside(n);               // variables that share a slot with it, ascending
  const auto join = [&](int v, int u) {
    Ids& list = beside[static_cast<size_t>(v)];
    const auto at = std::lower_bound(list.begin(), list.end(), u);
    if (at == list.end() || *at != u) list.insert(at, u);
  };
  const auto add_slot = [&](const auto& list) {
    for (int v : list) {
      of[static_cast<size_t>(v)].push_back(static_cast<int>(variables.size()));
      for (int u : list) {
        if (u != v) join(v, u);
      }
    }
    variables.emplace_back(list.begin(), list.end());
    gone.push_back(0);
  };
  for (const SumProblem::Term& t : problem.tables) add_slot(t.variables);
  const auto cells_of = [&](int v) {
    double cells = size_of_variable[static_cast<size_t>(v)];
    for (int u : beside[static_cast<size_t>(v)]) cells *= size_of_variable[static_cast<size_t>(u)];
    return static_cast<int64_t>(std::min(cells, 1e18));
  };
  using Entry = std::tuple<int64_t, int>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  std::vector<int64_t> cells(n);
  std::vector<char> done(n, 0);
  for (size_t v = 0; v < n; ++v) {
    cells[v] = cells_of(static_cast<int>(v));
    queue.emplace(cells[v], static_cast<int>(v));
  }
  Pattern pattern;
  while (!queue.empty()) {
    const auto [now, v] = queue.top();
    queue.pop();
    if (done[static_cast<size_t>(v)] || now != cells[static_cast<size_t>(v)]) continue;
    if (now > limit) {
      int most = v;
      size_t degree = 0;
      for (int u : beside[static_cast<size_t>(v)]) {
        const size_t tables_of = size_of_variable[static_cast<size_t>(u)] > 1 ? of[static_cast<size_t>(u)].size() : 0;
        if (tables_of > degree) degree = tables_of, most = u;
      }
      order.held.push_back(most);
      size_of_variable[static_cast<size_t>(most)] = 1;
      queue.emplace(cells[static_cast<size_t>(v)] = cells_of(v), v);
      if (most != v) queue.emplace(cells[static_cast<size_t>(most)] = cells_of(most), most);
      for (int u : beside[static_cast<size_t>(most)]) {
        if (u != v) queue.emplace(cells[static_cast<size_t>(u)] = cells_of(u), u);
      }
      continue;
    }
    done[static_cast<size_t>(v)] = 1;
    order.total += now * static_cast<int64_t>(of[static_cast<size_t>(v)].size() + 1);
    const Ids &next_to = beside[static_cast<size_t>(v)], &slots = of[static_cast<size_t>(v)];
    Order::Step step{v, 0, {next_to.begin(), next_to.end()}, {slots.begin(), slots.end()}, -1};
    pattern.clear();
    pattern.push_back(static_cast<int32_t>(step.neighbours.size()));
    for (int t : step.inputs) {
      gone[static_cast<size_t>(t)] = 1;
      pattern.push_back(static_cast<int32_t>(variables[static_cast<size_t>(t)].size()));
      for (int u : variables[static_cast<size_t>(t)]) {
        const auto place = std::lower_bound(step.neighbours.begin(), step.neighbours.end(), u) - step.neighbours.begin();
        pattern.push_back(u == v ? -1 : static_cast<int32_t>(place));
      }
    }
    const auto [it, fresh] = pattern_ids.try_emplace(pattern, static_cast<int>(patterns.size()));
    if (fresh) patterns.push_back(pattern);
    step.pattern = it->second;
    for (int u : step.neighbours) {
      Ids &slots_of_u = of[static_cast<size_t>(u)], &list = beside[static_cast<size_t>(u)];
      slots_of_u.erase(std::remove_if(slots_of_u.begin(), slots_of_u.end(), [&](int t) { return gone[static_cast<size_t>(t)] != 0; }), slots_of_u.end());
      list.erase(std::lower_bound(list.begin(), list.end(), v));
    }
    if (step.neighbours.size() > 1) {
      step.output = static_cast<int>(variables.size());
      add_slot(step.neighbours);
    }
    for (int u : step.neighbours) {
      const int64_t then = cells_of(u);
      if (then != cells[static_cast<size_t>(u)]) queue.emplace(cells[static_cast<size_t>(u)] = then, u);
    }
    order.steps.push_back(std::move(step));
  }
  return order;
}

// For each labelling of the neighbours the least over the variable's labels.
int Elimination::State::eliminate(int pattern_id, TableId own, std::span<const TableId> inputs, int64_t& work) {
  Key key = {pattern_id, own};
  key.insert(key.end(), inputs.begin(), inputs.end());
  const auto [it, fresh] = known.try_emplace(std::move(key), static_cast<int>(eliminated.size()));
  if (!fresh) return it->second;
  const int id = it->second;
  const Pattern& pattern = patterns[static_cast<size_t>(pattern_id)];
  const auto n = static_cast<size_t>(pattern[0]);
  struct Walk {
    const Cost* cells;
    ptrdiff_t inner = 0;                            // from one label of the variable to the next
    absl::InlinedVector<ptrdiff_t, 6> step;         // of each neighbour
  };
  absl::InlinedVector<Walk, 6> walks;
  std::vector<int> sizes(n, 1);
  for (size_t p = 1, t = 0; t < inputs.size(); ++t) {
    const Table& in = table(inputs[t]);
    Walk walk{in.cells->data(), 0, absl::InlinedVector<ptrdiff_t, 6>(n, 0)};
    const auto arity = static_cast<size_t>(pattern[p++]);
    ptrdiff_t step = 1;
    for (size_t i = arity; i-- > 0;) {
      const int32_t place = pattern[p + i];
      if (place < 0) {
        walk.inner = step;
      } else {
        walk.step[static_cast<size_t>(place)] = step;
        sizes[static_cast<size_t>(place)] = in.sizes[i];
      }
      step *= in.sizes[i];
    }
    p += arity;
    walks.push_back(std::move(walk));
  }
  size_t cells = 1;
  for (int s : sizes) cells *= static_cast<size_t>(s);
  const std::vector<Cost>& costs = *table(own).cells;
  const size_t count = costs.size();
  work += static_cast<int64_t>(cells * count * (walks.size() + 1));
  std::vector<Cost> least(cells);
  std::vector<uint16_t> best(cells);
  absl::InlinedVector<int, 6> at(n, 0);
  for (size_t cell = 0; cell < cells; ++cell) {
    Cost low = 0;
    size_t arg = 0;
    const auto visit = [&](auto sum_of) {
      low = sum_of(0);
      for (size_t x = 1; x < count; ++x) {
        const Cost sum = sum_of(static_cast<ptrdiff_t>(x));
        arg = sum < low ? x : arg;
        low = sum < low ? sum : low;
      }
    };
    const Cost* own_costs = costs.data();
    if (walks.size() == 1) {
      const Cost* p = walks[0].cells;
      const ptrdiff_t i = walks[0].inner;
      visit([=](ptrdiff_t x) { return own_costs[x] + p[x * i]; });
    } else if (walks.size() == 2) {
      const Cost *p = walks[0].cells, *q = walks[1].cells;
      const ptrdiff_t i = walks[0].inner, j = walks[1].inner;
      visit([=](ptrdiff_t x) { return own_costs[x] + p[x * i] + q[x * j]; });
    } else {
      visit([&](ptrdiff_t x) {
        Cost sum = own_costs[x];
        for (const Walk& w : walks) sum = add_costs(sum, w.cells[x * w.inner]);
        return sum;
      });
    }
    least[cell] = std::min(low, kInfinite);
    best[cell] = static_cast<uint16_t>(arg);
    for (size_t i = n; i-- > 0;) {
      if (++at[i] < sizes[i]) {
        for (Walk& w : walks) w.cells += w.step[i];
        break;
      }
      for (Walk& w : walks) w.cells -= w.step[i] * (at[i] - 1);
      at[i] = 0;
    }
  }
  eliminated.push_back({add(std::move(sizes), std::move(least)), std::move(best)});
  return id;
}

Elimination::Solution Elimination::State::solve(const SumProblem& problem, const Limits& limits, const Start& start) {
  const size_t n = problem.own.size();
  Solution solution;
  // Labels without a finite cell are nobody's best: to shrink the tables first is worth more than any clever order.
  std::vector<int> kept(n);
  for (size_t v = 0; v < n; ++v) kept[v] = finite_of(problem.own[v]);
  Key axes;
  std::vector<int> open;  // tables that are not finite
  for (size_t t = 0; t < problem.tables.size(); ++t) {
    if (!table(problem.tables[t].table).finite) open.push_back(static_cast<int>(t));
  }
  std::vector<int> changed_at(n, 0), revised_at(open.size(), -1);  // a table is looked at again when a variable of it has changed
  int now = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < open.size(); ++i) {
      const SumProblem::Term& t = problem.tables[static_cast<size_t>(open[i])];
      if (std::none_of(t.variables.begin(), t.variables.end(), [&](int v) { return changed_at[static_cast<size_t>(v)] > revised_at[i]; })) continue;
      axes.clear();
      for (int v : t.variables) axes.push_back(kept[static_cast<size_t>(v)]);
      revise(t.table, axes);
      ++now;
      for (size_t a = 0; a < axes.size(); ++a) {
        const auto v = static_cast<size_t>(t.variables[a]);
        if (kept[v] == axes[a]) continue;
        kept[v] = axes[a];
        changed_at[v] = now;
        changed = true;
      }
      revised_at[i] = now;
    }
  }
  std::vector<TableId> own(n);
  for (size_t v = 0; v < n; ++v) {
    if (labels[static_cast<size_t>(kept[v])].empty()) return solution;
    own[v] = restrict(problem.own[v], {kept[v]});
  }
  const Order* found = &order_of(problem, own, limits.largest);
  if (!found->held.empty() || found->total > limits.total) found = &order_of(problem, own, limits.least);
  const Order& order = *found;
  if (!order.held.empty()) {
    const std::vector<int> keep = start();
    for (int v : order.held) {
      int& now = kept[static_cast<size_t>(v)];
      const Labels& list = labels[static_cast<size_t>(now)];
      const auto label = static_cast<uint16_t>(keep[static_cast<size_t>(v)]);
      now = labels_id({std::binary_search(list.begin(), list.end(), label) ? label : list[0]});
      own[static_cast<size_t>(v)] = restrict(problem.own[static_cast<size_t>(v)], {now});
    }
    solution.exact = false;
  }
  std::vector<TableId> slots;
  for (const SumProblem::Term& t : problem.tables) {
    axes.clear();
    for (int v : t.variables) axes.push_back(kept[static_cast<size_t>(v)]);
    slots.push_back(restrict(t.table, axes));
  }
  solution.value = problem.constant;
  std::vector<int> made;
  made.reserve(n);
  std::vector<TableId> inputs;
  for (const Order::Step& step : order.steps) {
    inputs.clear();
    for (int t : step.inputs) inputs.push_back(slots[static_cast<size_t>(t)]);
    made.push_back(eliminate(step.pattern, own[static_cast<size_t>(step.variable)], inputs, solution.work));
    const TableId least = eliminated[static_cast<size_t>(made.back())].least;
    if (step.output >= 0) slots.push_back(least);
    else if (step.neighbours.empty()) solution.value = add_costs(solution.value, (*table(least).cells)[0]);
    else own[static_cast<size_t>(step.neighbours[0])] = sum(own[static_cast<size_t>(step.neighbours[0])], least);
  }
  solution.labels.assign(n, 0);
  for (size_t i = order.steps.size(); i-- > 0;) {
    const Order::Step& step = order.steps[i];
    size_t cell = 0;
    for (int u : step.neighbours) {
      cell = cell * labels[static_cast<size_t>(kept[static_cast<size_t>(u)])].size() + static_cast<size_t>(solution.labels[static_cast<size_t>(u)]);
    }
    solution.labels[static_cast<size_t>(step.variable)] = eliminated[static_cast<size_t>(made[i])].best[cell];
  }
  for (size_t v = 0; v < n; ++v) {
    solution.labels[v] = labels[static_cast<size_t>(kept[v])][static_cast<size_t>(solution.labels[v])];
  }
  if (solution.value >= kInfinite) solution.labels.clear();
  return solution;
}

Elimination::Elimination() : state_(std::make_unique<State>()) {}
Elimination::~Elimination() = default;

TableId Elimination::add(std::vector<int> sizes, std::vector<Cost> cells) { return state_->add(std::move(sizes), std::move(cells)); }
TableId Elimination::zeros(int labels) { return add({labels}, std::vector<Cost>(static_cast<size_t>(labels), 0)); }
TableId Elimination::sum(TableId a, TableId b) { return state_->sum(a, b); }
const std::vector<int>& Elimination::sizes(TableId id) const { return state_->table(id).sizes; }
const MinSum::Cells& Elimination::cells(TableId id) const { return state_->table(id).cells; }
Elimination::Solution Elimination::solve(const SumProblem& problem, const Limits& limits, const Start& start) {
  return state_->solve(problem, limits, start);
}

MinSum as_min_sum(const SumProblem& problem, const Elimination& elimination) {
  MinSum sum;
  sum.add_constant(problem.constant);
  for (TableId own : problem.own) {
    const int v = sum.add_variable(elimination.sizes(own)[0]);
    sum.add_table({v}, elimination.cells(own));
  }
  for (const SumProblem::Term& t : problem.tables) sum.add_table({t.variables.begin(), t.variables.end()}, elimination.cells(t.table));
  return sum;
}

}  // namespace meshard
