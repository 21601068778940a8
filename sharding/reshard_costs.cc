#include "meshard/sharding/reshard_costs.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <numeric>
#include <optional>
#include <string>

#include "meshard/layout/shortest.h"
#include "meshard/sharding/copy_tree.h"
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
// To count what uneven blocks have in common takes a look at each: on larger meshes they are priced as if they were even.
constexpr int64_t kCountedDevices = 64;

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
  std::deque<absl::InlinedVector<int64_t, 5>> parts_of;      // of each layout, by dimension
  absl::flat_hash_map<uint64_t, LayoutId> parts;

  struct Pair {
    bool reduces = false, idle = false;        // idle: axes that neither uses share the work of a reduction
    int kind = 0;                              // pairs of one kind differ in nothing but which atoms of a size they name
    absl::InlinedVector<int64_t, 5> even;      // sizes that this divides are cut evenly by both layouts, of each dimension
  };
  absl::flat_hash_map<uint64_t, Pair> pairs;   // by from and to
  absl::flat_hash_map<std::string, int> kind_ids;
  std::deque<std::pair<Layout, Layout>> kinds;

  // Blocks taken as even, a change of layout receives the same share of every tensor: num / den times its elements. Only a reduction
  // that idle axes share depends on the shape, on its widest dimension: such shares are kept for each class of shapes.
  struct Fraction {
    int64_t num = 0, den = 1;
    int32_t messages = 0;
    bool possible = true, by_class = false;
  };
  absl::flat_hash_map<uint64_t, Fraction> shares;             // by from and to, or by class, from and to
  std::vector<int64_t> elements;                             // of each shape
  std::vector<int> classes;                                  // of each shape, from 1 on
  std::vector<char> even;                                    // of each shape: no layout has uneven blocks, and no share is rounded
  bool binary = true;                                        // all factors of axes are 2
  std::deque<Shape> class_shapes;
  absl::flat_hash_map<std::string, int> class_ids;

  bool counted() const { return mesh.size() <= kCountedDevices; }
  int class_of(const Shape& shape);
  Entry shared(int shape, LayoutId from, LayoutId to);
  const Fraction& fraction(int shape_class, LayoutId from, LayoutId to);
  Fraction measure_fraction(const Layout& from, const Layout& to, int shape_class);
  std::optional<Fraction> move_fraction(const Layout& from, const Layout& to) const;

  Pair describe(const Layout& from, const Layout& to);
  Entry measure(int shape, LayoutId from, LayoutId to);
  Entry move(const Shape& shape, const Layout& from, const Layout& to) const;
  Measured plan(const Shape& shape, const Layout& from, const Layout& to, bool search) const;
  Measured ask(const Pair& pair, const Shape& shape, bool search);
  static Entry scaled(Entry entry, const Shape& shape, const Shape& small);
  int searches = 0;
};

ReshardCosts::ReshardCosts(const Mesh& mesh) : state_(std::make_unique<State>()) {
  state_->mesh = mesh;
  for (AtomId a = 0; a < mesh.atom_count(); ++a) state_->binary &= mesh.atom_size(a) == 2;
}
ReshardCosts::~ReshardCosts() = default;
ReshardCosts::ReshardCosts(ReshardCosts&&) noexcept = default;

const Mesh& ReshardCosts::mesh() const { return state_->mesh; }

int ReshardCosts::shape(const Shape& shape) {
  const std::string key(reinterpret_cast<const char*>(shape.dims.data()), shape.dims.size() * sizeof(int64_t));
  const auto [it, fresh] = state_->shape_ids.try_emplace(key, static_cast<int>(state_->shapes.size()));
  if (fresh) {
    state_->shapes.push_back(shape);
    state_->elements.push_back(shape.elements());
    state_->classes.push_back(state_->class_of(shape));
    bool even = state_->binary;
    for (int64_t n : shape.dims) even &= n > 0 && n % state_->mesh.size() == 0;
    state_->even.push_back(even);
  }
  return it->second;
}

LayoutId ReshardCosts::layout(const Layout& layout) {
  const auto [it, fresh] = state_->layout_ids.try_emplace(layout_key(layout), static_cast<int>(state_->layouts.size()));
  if (fresh) {
    state_->layouts.push_back(layout.closed());
    auto& parts = state_->parts_of.emplace_back();
    for (const DimLayout& d : layout.dims) parts.push_back(state_->mesh.parts(d.atoms));
  }
  return it->second;
}

const Layout& ReshardCosts::layout(LayoutId id) const { return state_->layouts[static_cast<size_t>(id)]; }

ReshardCosts::Share ReshardCosts::share(int shape_class, LayoutId from, LayoutId to) {
  if (from == to) return {};
  const State::Fraction& f = state_->fraction(shape_class, from, to);
  const bool rounded = (Cost{f.num} << kShareBits) % f.den != 0;
  return {static_cast<int64_t>((Cost{f.num} << kShareBits) / f.den), f.messages, f.possible, f.by_class || (rounded && state_->counted())};
}

int64_t ReshardCosts::held_share(LayoutId id) const {
  int64_t parts = 1;
  for (int64_t p : state_->parts_of[static_cast<size_t>(id)]) parts *= p;
  return (int64_t{1} << kShareBits) / parts;
}

bool ReshardCosts::shares(int shape) const { return !state_->counted() || state_->even[static_cast<size_t>(shape)]; }
int ReshardCosts::shape_class(int shape) const { return state_->counted() ? 0 : state_->classes[static_cast<size_t>(shape)]; }
int64_t ReshardCosts::elements(int shape) const { return state_->elements[static_cast<size_t>(shape)]; }

ReshardCosts::Entry ReshardCosts::get(int shape, LayoutId from, LayoutId to) {
  if (from == to) return {};
  if (!state_->counted()) return state_->shared(shape, from, to);
  const auto [it, fresh] = state_->entries.try_emplace(packed(shape, from, to));
  if (fresh) it->second = state_->measure(shape, from, to);
  return it->second;
}

// Shapes are of one class if their sizes have about the same ratios to each other.
int ReshardCosts::State::class_of(const Shape& shape) {
  absl::InlinedVector<int, 5> logs;
  for (int64_t n : shape.dims) {
    const int floor = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(n, 1))) - 1;
    logs.push_back(floor + (Cost{n} * n >= Cost{1} << (2 * floor + 1)));
  }
  const int least = logs.empty() ? 0 : *std::min_element(logs.begin(), logs.end());
  std::string key;
  Shape ratios;
  for (int log : logs) {
    key.push_back(static_cast<char>(log - least));
    ratios.dims.push_back(int64_t{1} << (log - least));
  }
  const auto [it, fresh] = class_ids.try_emplace(std::move(key), static_cast<int>(class_shapes.size()) + 1);
  if (fresh) class_shapes.push_back(std::move(ratios));
  return it->second;
}

const ReshardCosts::State::Fraction& ReshardCosts::State::fraction(int shape_class, LayoutId from, LayoutId to) {
  const auto [it, fresh] = shares.try_emplace(packed(shape_class, from, to));
  if (fresh) it->second = measure_fraction(layouts[static_cast<size_t>(from)], layouts[static_cast<size_t>(to)], shape_class);
  return it->second;
}

ReshardCosts::Entry ReshardCosts::State::shared(int shape, LayoutId from, LayoutId to) {
  Fraction s = fraction(0, from, to);
  if (s.by_class) s = fraction(classes[static_cast<size_t>(shape)], from, to);
  const int64_t n = elements[static_cast<size_t>(shape)];
  int64_t product = 0;
  if (!__builtin_mul_overflow(n, s.num, &product)) return {product / s.den, s.messages, s.possible};
  return {static_cast<int64_t>(std::min(Cost{n} * s.num / s.den, Cost{1} << 62)), s.messages, s.possible};
}

// Without a reduction, in one step; none: blocks meet in ways that have to be counted. See count_aligned in layout/traffic.cc: blocks that
// meet lie in each other, and those meet that agree in all places where both lists have an atom.
std::optional<ReshardCosts::State::Fraction> ReshardCosts::State::move_fraction(const Layout& from, const Layout& to) const {
  std::array<AtomId, 64> root;
  std::iota(root.begin(), root.end(), AtomId{0});
  const auto find = [&](AtomId a) {
    while (root[a] != a) a = root[a];
    return a;
  };
  bool slice = true;
  Cost needed = 1, kept = 1;  // a device has one of so many parts of the tensor, and of what it needs
  for (int d = 0; d < from.rank(); ++d) {
    const Atoms &a = from.atoms(d), &b = to.atoms(d);
    slice &= is_prefix(a, b);
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (mesh.atom_size(a[i]) != mesh.atom_size(b[i])) return std::nullopt;
      const AtomId x = find(a[i]), y = find(b[i]);
      if (x == y) continue;
      root[x] = y;
      kept *= mesh.atom_size(a[i]);
    }
    needed *= mesh.parts(b);
    kept *= mesh.parts(a.size() > b.size() ? a : b);
  }
  if (slice) return Fraction{};
  // size / needed - size / kept; kept is a multiple of needed.
  const int64_t many = static_cast<int64_t>(kept / needed) - 1, divisor = std::gcd(mesh.size(), static_cast<int64_t>(kept));
  return Fraction{.num = mesh.size() / divisor * many, .den = static_cast<int64_t>(kept) / divisor, .messages = 1};
}

ReshardCosts::State::Fraction ReshardCosts::State::measure_fraction(const Layout& from, const Layout& to, int shape_class) {
  for (size_t kind = 0; kind < from.pending.size(); ++kind) {
    if (!from.pending[kind].contains(to.pending[kind])) return {.possible = false};
  }
  const bool reduces = from.pending != to.pending;
  if (!reduces) {
    if (const auto fraction = move_fraction(from, to)) return *fraction;
  }
  const Pair pair = describe(from, to);
  if (pair.idle && shape_class == 0 && from.rank() > 0) return {.by_class = true};
  const auto fraction_of = [&](const Measured& m, const Shape& shape) {
    Fraction s{.num = m.entry.elements, .den = shape.elements(), .messages = m.entry.messages, .possible = m.entry.possible};
    const int64_t divisor = std::gcd(s.num, s.den);
    return s.num /= divisor, s.den /= divisor, s;
  };
  const auto fits = [&](const Shape& shape) {
    Cost all = mesh.size();
    for (int64_t n : shape.dims) {
      if ((all *= n) >> 62 != 0) return false;
    }
    return true;
  };
  // Blocks of these sizes are even, also with the idle axes in any one dimension.
  Shape small;
  int64_t unit = 1;
  const int64_t idle = mesh.parts(mesh.all() - from.used() - to.used());
  for (int64_t even : pair.even) {
    small.dims.push_back(even);
    unit = std::lcm(unit, even * idle);
  }
  if (shape_class > 0) {
    const Shape& ratios = class_shapes[static_cast<size_t>(shape_class) - 1];
    for (size_t d = 0; d < small.dims.size(); ++d) small.dims[d] = unit * ratios.dims[d];
    if (!fits(small)) small.dims.assign(pair.even.begin(), pair.even.end());
  }
  const Measured rule = ask(pair, small, false);
  if (!reduces || rule.least || !rule.entry.possible) return fraction_of(rule, small);
  const int further = mesh.atom_count() - kSearchedAtoms;
  if (further > 0 && searches >= kMostSearches >> std::min(further, 30)) return fraction_of(rule, small);
  // What a search finds may split any dimension over any axis.
  Shape any = small;
  for (int64_t& n : any.dims) n = mesh.size();
  if (shape_class > 0) {
    for (size_t d = 0; d < any.dims.size(); ++d) any.dims[d] *= class_shapes[static_cast<size_t>(shape_class) - 1].dims[d];
  }
  return fits(any) ? fraction_of(ask(pair, any, true), any) : fraction_of(rule, small);
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
    if (n > 0 && n % p.even[d] == 0) small.dims[d] = p.even[d];
    else scales = false;
  }
  if (!p.reduces) return scaled(ask(p, small, false).entry, shape, small);
  size_t widest = 0;
  if (p.idle && shape.rank() > 0) {  // axes that are free split the widest dimension: it stays the widest
    widest = static_cast<size_t>(std::max_element(shape.dims.begin(), shape.dims.end()) - shape.dims.begin());
    const int64_t n = shape.dims[widest];
    scales &= n % mesh.size() == 0;
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
  const Shape& s = state_->shapes[static_cast<size_t>(shape)];
  const auto& parts = state_->parts_of[static_cast<size_t>(id)];
  int64_t elements = 1;
  for (size_t d = 0; d < parts.size(); ++d) elements *= parts[d] == 1 ? s.dims[d] : block(s.dims[d], parts[d], 0).size;
  return elements;
}

LayoutId ReshardCosts::before_part(LayoutId have, LayoutId needed) {
  if (layout(needed).pending_of(Reduction::sum).empty()) return needed;
  const auto [it, fresh] = state_->parts.try_emplace(packed(0, have, needed), needed);
  if (!fresh) return it->second;
  Layout whole = layout(needed);
  AtomSet& sums = whole.pending_of(Reduction::sum);
  const Layout& has = layout(have);
  sums = sums & ((has.used() - has.split()) | whole.split());
  return it->second = layout(whole);
}

ReshardCosts::Copies ReshardCosts::copies(int shape, LayoutId made, std::span<const LayoutId> needed) {
  constexpr int kMessageBits = 20;
  Copies best{.parents = std::vector<int>(needed.size(), -1)};
  const auto cost = [&](int i, int p) {
    const Entry e = get(shape, p < 0 ? made : needed[static_cast<size_t>(p)], needed[static_cast<size_t>(i)]);
    return e.possible ? (Cost{e.elements} << kMessageBits) + e.messages : kInfinite;
  };
  for (size_t i = 0; i < needed.size(); ++i) best.possible &= get(shape, made, needed[i]).possible;
  if (!best.possible) return best;
  CopyParents parents;
  const Cost least = least_copies<Cost>(static_cast<int>(needed.size()), cost, kInfinite, parents);
  best.parents.assign(parents.begin(), parents.end());
  best.elements = static_cast<int64_t>(least >> kMessageBits);
  best.messages = static_cast<int64_t>(least & ((1 << kMessageBits) - 1));
  return best;
}

}  // namespace meshard
