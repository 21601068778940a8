#include "meshard/sharding/reshard_costs.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <array>
#include <deque>
#include <numeric>
#include <string>

#include "meshard/layout/shortest.h"
#include "meshard/sharding/min_sum.h"

namespace meshard {
namespace {

// A layout as a key, without spelling axes.
std::string layout_key(const Layout& layout) {
  std::string key;
  for (const DimLayout& d : layout.dims) {
    for (AtomId a : d.atoms) key.push_back(static_cast<char>('A' + a));
    key.push_back(',');
  }
  for (const AtomSet& p : layout.pending) {
    key.push_back('/');
    if (!p.empty()) key.append(reinterpret_cast<const char*>(&p.bits), sizeof(p.bits));
  }
  return key;
}

// Reductions that the planner's rules do not settle are searched. On large meshes, where a search takes long, only so many are, half as
// many for each further atom: the others are priced by rule, and the planner then finds steps that cost as much or less.
constexpr int kSearchedAtoms = 4;
constexpr int kMostSearches = 3200;
constexpr int64_t kCountedDevices = 1024;

constexpr int kLayoutBits = 24, kShapeBits = 16;

uint64_t packed(int shape, LayoutId a, LayoutId b) {
  MESHARD_CHECK(a < 1 << kLayoutBits && b < 1 << kLayoutBits && shape < 1 << kShapeBits, "layouts and shapes have numbers that fit a key");
  return static_cast<uint64_t>(shape) << (2 * kLayoutBits) | static_cast<uint64_t>(a) << kLayoutBits | static_cast<uint64_t>(b);
}

using SizedKey = absl::InlinedVector<int64_t, 6>;

bool is_prefix(const Atoms& a, const Atoms& b) { return a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin()); }

}  // namespace

struct ReshardCosts::State {
  Mesh mesh;
  std::deque<Shape> shapes;
  std::deque<Layout> layouts;
  absl::flat_hash_map<std::string, int> shape_ids, layout_ids;
  absl::flat_hash_map<uint64_t, Entry> entries;          // by shape, from and to
  struct Measured {
    Entry entry;
    bool least = false;                                  // nothing receives less
  };
  absl::flat_hash_map<SizedKey, Measured> measured;          // by the kind of pair and the sizes that matter
  absl::flat_hash_map<uint64_t, int64_t> blocks;
  absl::flat_hash_map<uint64_t, LayoutId> parts;
  absl::flat_hash_map<std::string, std::unique_ptr<Copies>> copies;

  struct Pair {
    bool reduces = false, idle = false;        // idle: axes that neither uses share the work of a reduction
    int kind = 0;                              // pairs of one kind differ in nothing but which atoms of a size they name
    absl::InlinedVector<int64_t, 5> even;      // sizes that this divides are cut evenly by both layouts, of each dimension
  };
  absl::flat_hash_map<uint64_t, Pair> pairs;   // by from and to
  absl::flat_hash_map<std::string, int> kind_ids;
  std::deque<std::pair<Layout, Layout>> kinds;

  Pair describe(const Layout& from, const Layout& to);
  Entry measure(int shape, LayoutId from, LayoutId to);
  Entry move(const Shape& shape, const Layout& from, const Layout& to) const;
  Measured plan(const Shape& shape, const Layout& from, const Layout& to, bool search) const;
  Measured ask(const Pair& pair, const Shape& shape, bool search);
  static Entry scaled(Entry entry, const Shape& shape, const Shape& small);
  int searches = 0;
};

ReshardCosts::ReshardCosts(const Mesh& mesh) : state_(std::make_unique<State>()) { state_->mesh = mesh; }
ReshardCosts::~ReshardCosts() = default;
ReshardCosts::ReshardCosts(ReshardCosts&&) noexcept = default;

const Mesh& ReshardCosts::mesh() const { return state_->mesh; }

int ReshardCosts::shape(const Shape& shape) {
  const std::string key(reinterpret_cast<const char*>(shape.dims.data()), shape.dims.size() * sizeof(int64_t));
  const auto [it, fresh] = state_->shape_ids.try_emplace(key, static_cast<int>(state_->shapes.size()));
  if (fresh) state_->shapes.push_back(shape);
  return it->second;
}

LayoutId ReshardCosts::layout(const Layout& layout) {
  const auto [it, fresh] = state_->layout_ids.try_emplace(layout_key(layout), static_cast<int>(state_->layouts.size()));
  if (fresh) state_->layouts.push_back(layout.closed());
  return it->second;
}

const Layout& ReshardCosts::layout(LayoutId id) const { return state_->layouts[static_cast<size_t>(id)]; }

ReshardCosts::Entry ReshardCosts::get(int shape, LayoutId from, LayoutId to) {
  if (from == to) return {};
  const auto [it, fresh] = state_->entries.try_emplace(packed(shape, from, to));
  if (fresh) it->second = state_->measure(shape, from, to);
  return it->second;
}

// What of a change of layout does not depend on the shape.
ReshardCosts::State::Pair ReshardCosts::State::describe(const Layout& from, const Layout& to) {
  Pair pair;
  pair.reduces = from.pending != to.pending;
  pair.idle = pair.reduces && !(mesh.all() - from.used() - to.used()).empty();
  for (int d = 0; d < from.rank(); ++d) {
    const AtomSet both = AtomSet::of(from.atoms(d)) | AtomSet::of(to.atoms(d));
    pair.even.push_back(pair.reduces ? mesh.parts(both) : std::lcm(mesh.parts(from.atoms(d)), mesh.parts(to.atoms(d))));
  }
  // Atoms of equal size can change places: devices are then numbered otherwise, and the bytes stay.
  std::array<AtomId, 64> name;
  AtomSet named, taken;
  const auto meet = [&](AtomId a) {
    if (named.has(a)) return;
    named.add(a);
    for (AtomId b = 0;; ++b) {
      if (taken.has(b) || mesh.atom_size(b) != mesh.atom_size(a)) continue;
      taken.add(b);
      name[a] = b;
      return;
    }
  };
  for (const Layout* layout : {&from, &to}) {
    for (int d = 0; d < layout->rank(); ++d) {
      for (AtomId a : layout->atoms(d)) meet(a);
    }
  }
  for (size_t kind = 0; kind < from.pending.size(); ++kind) {
    for (AtomSet set : {from.pending[kind] - to.pending[kind], from.pending[kind] & to.pending[kind], to.pending[kind]}) {
      for (AtomId a : set.list()) meet(a);
    }
  }
  const auto renamed = [&](Layout layout) {
    for (auto& d : layout.dims) {
      for (AtomId& a : d.atoms) a = name[a];
    }
    for (AtomSet& set : layout.pending) {
      AtomSet other;
      for (AtomId a : set.list()) other.add(name[a]);
      set = other;
    }
    return layout;
  };
  std::pair<Layout, Layout> alike(renamed(from), renamed(to));
  const auto [it, fresh] = kind_ids.try_emplace(layout_key(alike.first) + ">" + layout_key(alike.second), static_cast<int>(kinds.size()));
  if (fresh) kinds.push_back(std::move(alike));
  pair.kind = it->second;
  return pair;
}

// Where blocks are even, what moves grows with a dimension: layouts are measured once for all such sizes.
ReshardCosts::Entry ReshardCosts::State::measure(int shape_id, LayoutId from, LayoutId to) {
  const auto [pair, first] = pairs.try_emplace(packed(0, from, to));
  if (first) pair->second = describe(layouts[static_cast<size_t>(from)], layouts[static_cast<size_t>(to)]);
  const Pair& p = pair->second;
  const Shape& shape = shapes[static_cast<size_t>(shape_id)];
  Shape small = shape;
  bool scales = true, divides = true;
  for (size_t d = 0; d < shape.dims.size(); ++d) {
    const int64_t n = shape.dims[d];
    divides &= n > 0 && n % mesh.size() == 0;
    // To count uneven blocks takes a look at each: on large meshes they are priced as if they were even.
    if (n > 0 && (n % p.even[d] == 0 || mesh.size() > kCountedDevices)) small.dims[d] = p.even[d];
    else scales = false;
  }
  if (!p.reduces) return scaled(ask(p, small, false).entry, shape, small);
  size_t widest = 0;
  if (p.idle && shape.rank() > 0) {  // axes that are free split the widest dimension: it stays the widest
    widest = static_cast<size_t>(std::max_element(shape.dims.begin(), shape.dims.end()) - shape.dims.begin());
    const int64_t n = shape.dims[widest];
    scales &= n % mesh.size() == 0 || mesh.size() > kCountedDevices;
    for (size_t d = 0; d < shape.dims.size(); ++d) scales &= d == widest || shape.dims[d] < n / p.even[widest];
    small.dims[widest] = mesh.size() * (1 + mesh.size());
  }
  if (!scales) small = shape;
  const Measured rule = ask(p, small, false);
  if (rule.least || !rule.entry.possible) return scaled(rule.entry, shape, small);
  const int further = mesh.atom_count() - kSearchedAtoms;
  if (further > 0 && searches >= kMostSearches >> std::min(further, 30)) return scaled(rule.entry, shape, small);
  // What a search finds may split any dimension over any axis.
  small = shape;
  for (size_t d = 0; divides && d < shape.dims.size(); ++d) small.dims[d] = mesh.size();
  if (divides && p.idle) small.dims[widest] *= 1 + mesh.size();
  return scaled(ask(p, small, true).entry, shape, small);
}

ReshardCosts::Entry ReshardCosts::State::scaled(Entry entry, const Shape& shape, const Shape& small) {
  Cost elements = entry.elements;
  for (size_t d = 0; d < shape.dims.size(); ++d) {
    if (small.dims[d] != shape.dims[d]) elements = std::min(elements * shape.dims[d] / small.dims[d], Cost{1} << 62);
  }
  entry.elements = static_cast<int64_t>(elements);
  return entry;
}

ReshardCosts::State::Measured ReshardCosts::State::ask(const Pair& pair, const Shape& shape, bool search) {
  SizedKey key = {2 * pair.kind + search};
  key.insert(key.end(), shape.dims.begin(), shape.dims.end());
  const auto [it, fresh] = measured.try_emplace(std::move(key));
  if (fresh) {
    const auto& [from, to] = kinds[static_cast<size_t>(pair.kind)];
    if (pair.reduces) it->second = plan(shape, from, to, search);
    else it->second.entry = move(shape, from, to);
    searches += search;
  }
  return it->second;
}

// Without a reduction every rank receives what it needs and lacks, in one step (layout/reshard.h).
ReshardCosts::Entry ReshardCosts::State::move(const Shape& shape, const Layout& from, const Layout& to) const {
  bool slice = true;
  for (int d = 0; d < shape.rank(); ++d) slice &= is_prefix(from.atoms(d), to.atoms(d));
  if (slice) return {};
  return {all_local_elements(mesh, shape, to) - kept_elements(mesh, shape, from, to), 1, true};
}

ReshardCosts::State::Measured ReshardCosts::State::plan(const Shape& shape, const Layout& from, const Layout& to, bool search) const {
  Entry e;
  e.possible = reshard_obstacle(mesh, from, to).empty();
  if (!e.possible) return {e, false};
  const std::vector<ReshardStep> steps = plan_reshard(mesh, shape, from, to, {.search = search});
  e.elements = all_received_elements(mesh, shape, steps);
  for (const ReshardStep& step : steps) e.messages += step.kind != Collective::slice;
  return {e, e.elements == least_elements(mesh, shape, from, to)};
}

std::vector<ReshardStep> ReshardCosts::steps(int shape, LayoutId from, LayoutId to) {
  if (from == to) return {};
  return plan_reshard(state_->mesh, state_->shapes[static_cast<size_t>(shape)], layout(from), layout(to));
}

int64_t ReshardCosts::block_elements(int shape, LayoutId id) {
  const auto [it, fresh] = state_->blocks.try_emplace(packed(shape, id, 0), 1);
  if (fresh) {
    const Shape& s = state_->shapes[static_cast<size_t>(shape)];
    for (int d = 0; d < s.rank(); ++d) it->second *= block(s[d], state_->mesh.parts(layout(id).atoms(d)), 0).size;
  }
  return it->second;
}

LayoutId ReshardCosts::before_part(LayoutId have, LayoutId needed) {
  const auto [it, fresh] = state_->parts.try_emplace(packed(0, have, needed), needed);
  if (!fresh) return it->second;
  Layout whole = layout(needed);
  AtomSet& sums = whole.pending_of(Reduction::sum);
  sums = sums - (sums - layout(have).used() - whole.split());
  return it->second = layout(whole);
}

const ReshardCosts::Copies& ReshardCosts::copies(int shape, LayoutId made, std::span<const LayoutId> needed) {
  std::string key(reinterpret_cast<const char*>(needed.data()), needed.size_bytes());
  key.append(reinterpret_cast<const char*>(&shape), sizeof(shape)).append(reinterpret_cast<const char*>(&made), sizeof(made));
  std::unique_ptr<Copies>& slot = state_->copies[key];
  if (slot != nullptr) return *slot;
  slot = std::make_unique<Copies>();
  Copies& best = *slot;
  const auto n = static_cast<int>(needed.size());
  best.parents.assign(needed.size(), -1);
  // cost[i][p]: of making copy i from p; column n is the value itself.
  std::vector<Entry> cost(static_cast<size_t>(n * (n + 1)));
  const auto edge = [&](int i, int p) -> Entry& { return cost[static_cast<size_t>(i * (n + 1) + (p < 0 ? n : p))]; };
  for (int i = 0; i < n; ++i) {
    for (int p = -1; p < n; ++p) {
      if (p != i) edge(i, p) = get(shape, p < 0 ? made : needed[static_cast<size_t>(p)], needed[static_cast<size_t>(i)]);
      if (p < 0) best.possible &= edge(i, p).possible;
    }
  }
  if (!best.possible) return best;
  const auto total = [&](const std::vector<int>& parents) {
    std::pair<int64_t, int64_t> sum;
    for (int i = 0; i < n; ++i) {
      const Entry& e = edge(i, parents[static_cast<size_t>(i)]);
      sum.first += e.elements;
      sum.second += e.messages;
    }
    return sum;
  };
  const auto rooted = [&](const std::vector<int>& parents) {
    for (int i = 0; i < n; ++i) {
      int at = i;
      for (int hops = 0; at >= 0; at = parents[static_cast<size_t>(at)]) {
        if (++hops > n) return false;
      }
    }
    return true;
  };
  std::pair<int64_t, int64_t> least = total(best.parents);
  {  // Each copy from where it costs least: nothing is cheaper, unless copies would be made of each other.
    std::vector<int> parents(best.parents);
    for (int i = 0; i < n; ++i) {
      const auto cost_from = [&](int p) { return std::pair(edge(i, p).elements, edge(i, p).messages); };
      for (int p = 0; p < n; ++p) {
        if (p != i && edge(i, p).possible && cost_from(p) < cost_from(parents[static_cast<size_t>(i)])) parents[static_cast<size_t>(i)] = p;
      }
    }
    if (rooted(parents)) {
      const auto sum = total(parents);
      best.parents = std::move(parents);
      best.elements = sum.first;
      best.messages = sum.second;
      return best;
    }
  }
  const auto try_parents = [&](const std::vector<int>& parents) {
    const auto sum = total(parents);
    if (sum >= least || !rooted(parents)) return false;
    least = sum;
    best.parents = parents;
    return true;
  };
  if (n <= 5) {
    std::vector<int> parents(best.parents);
    for (bool more = n > 0; more;) {
      bool legal = true;
      for (int i = 0; i < n && legal; ++i) legal = parents[static_cast<size_t>(i)] != i && edge(i, parents[static_cast<size_t>(i)]).possible;
      if (legal) try_parents(parents);
      more = false;
      for (int i = n; i-- > 0 && !more;) {
        if (++parents[static_cast<size_t>(i)] < n) more = true;
        else parents[static_cast<size_t>(i)] = -1;
      }
    }
  } else {  // one parent changed at a time, until that does not help
    for (bool better = true; better;) {
      better = false;
      for (int i = 0; i < n; ++i) {
        for (int p = 0; p < n; ++p) {
          if (p == i || !edge(i, p).possible) continue;
          std::vector<int> parents = best.parents;
          parents[static_cast<size_t>(i)] = p;
          better |= try_parents(parents);
        }
      }
    }
  }
  best.elements = least.first;
  best.messages = least.second;
  return best;
}

}  // namespace meshard
