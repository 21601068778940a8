#include "meshard/layout/shortest.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <queue>
#include <string>
#include <tuple>

#include "meshard/layout/units.h"

namespace meshard {
namespace {

constexpr int kFewAtoms = 4;  // up to here, on 16 devices for one, each atom moves on its own
// In units of about 100 ns. With few atoms there are few layouts, and the search always ends by itself.
constexpr int64_t kWorkFew = 20'000'000, kWorkExchange = 30'000, kWork = 200'000;

using UnitId = uint8_t;
using Units = absl::InlinedVector<UnitId, 8>;

int64_t copies_of(const Mesh& mesh, const Shape& shape, const Layout& layout) {
  return all_local_elements(mesh, shape, layout);
}

struct State {
  absl::InlinedVector<Units, 4> dims;
  uint64_t pending = 0;    // units still to be reduced
  int reduced_last = 0;    // 1 + the kind, where the step before was a reduce_scatter: one more joins it

  std::string key() const {
    std::string text;
    for (const Units& units : dims) {
      text.append(units.begin(), units.end());
      text += '\xff';
    }
    text.append(reinterpret_cast<const char*>(&pending), sizeof pending);
    return text += static_cast<char>(reduced_last);
  }
};

struct Cost {
  int64_t elements = 0;
  int steps = 0, moves = 0;
  auto operator<=>(const Cost&) const = default;
};

class Search {
 public:
  Search(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to, bool exchange)
      : mesh_(mesh), shape_(shape), to_(to), exchange_(exchange), units_(find_units(mesh, from, to, kFewAtoms)) {
    for (const Atoms& unit : units_) sizes_.push_back(mesh.parts(unit));
    kept_pending_ = to.pending_atoms();
    for (int k = 0; k < kReductions; ++k) {
      const AtomSet done = from.pending[static_cast<size_t>(k)] - to.pending[static_cast<size_t>(k)];
      for (size_t u = 0; u < units_.size(); ++u)
        if (done.has(units_[u][0])) kinds_[static_cast<size_t>(k)] |= uint64_t{1} << u;
    }
    start_ = state_of(from);
    start_.pending = kinds_[0] | kinds_[1] | kinds_[2];
    goal_ = state_of(to);
    copies_to_ = copies_of(mesh, shape, to);
    once_ = shape.elements() * mesh.parts(kept_pending_);
    // To count what a step moves takes long where blocks are uneven: by the coordinates.
    bool even = true;
    for (AtomId a = 0; a < mesh.atom_count(); ++a) even = even && mesh.atom_size(a) == mesh.atom_size(0);
    for (int64_t n : shape.dims) even = even && n % mesh.size() == 0;
    work_of_move_ = even ? 10 : 10 + mesh.size() / 2;
    moves_parts_ = mesh.atom_count() <= kFewAtoms && !even;
    most_work_ = mesh.atom_count() <= kFewAtoms ? kWorkFew : exchange ? kWorkExchange : kWork;
  }

  std::optional<std::vector<ReshardStep>> run() {
    reach(start_, {}, -1, Collective::slice);
    while (!queue_.empty()) {
      const auto [estimate, id] = queue_.top();
      queue_.pop();
      if (nodes_[static_cast<size_t>(id)].closed) continue;
      nodes_[static_cast<size_t>(id)].closed = true;
      at_ = nodes_[static_cast<size_t>(id)].state;
      if (at_.pending == 0 && (exchange_ || at_.dims == goal_.dims)) return path(id);
      if (spent()) return std::nullopt;
      layout_ = layout_of(at_);
      copies_ = copies_of(mesh_, shape_, layout_);
      id_ = id;
      slices();
      if (at_.pending != 0) reductions();
      if (at_.pending != 0 && !moves_parts_) continue;
      if (exchange_) {
        State next = at_;
        next.reduced_last = 0;
        for (Units& units : next.dims) units.clear();
        exchanges(next, 0);
      } else {
        gathers();
        all_to_alls();
        permutes();
      }
    }
    return std::nullopt;
  }

 private:
  struct Node {
    State state;
    Cost cost;
    int before = -1;
    Collective kind = Collective::slice;
    bool closed = false;
  };

  bool spent() const { return work_ > most_work_; }

  State state_of(const Layout& layout) const {
    State state;
    for (int d = 0; d < layout.rank(); ++d) {
      Units units;
      const Atoms& atoms = layout.atoms(d);
      for (size_t i = 0; i < atoms.size();) {
        const auto unit = std::find_if(units_.begin(), units_.end(), [&](const Atoms& u) { return u[0] == atoms[i]; });
        MESHARD_CHECK(unit != units_.end(), "a layout that is no list of units");
        units.push_back(static_cast<UnitId>(unit - units_.begin()));
        i += unit->size();
      }
      state.dims.push_back(std::move(units));
    }
    return state;
  }

  Layout layout_of(const State& state) const {
    Layout layout(shape_.rank());
    for (int d = 0; d < shape_.rank(); ++d)
      for (UnitId u : state.dims[static_cast<size_t>(d)])
        for (AtomId a : units_[u]) layout.dims[static_cast<size_t>(d)].atoms.push_back(a);
    layout.pending = to_.pending;
    for (size_t k = 0; k < kReductions; ++k)
      for (size_t u = 0; u < units_.size(); ++u)
        if ((state.pending & kinds_[k]) >> u & 1) layout.pending[k] = layout.pending[k] | AtomSet::of(units_[u]);
    return layout;
  }

  // What is at least still to be received; see least_elements.
  int64_t rest(const State& state) const {
    const int64_t kept = kept_elements(mesh_, shape_, layout_of(state), to_);
    if (state.pending == 0) return copies_to_ - kept;
    int64_t parts = 1;
    for (size_t u = 0; u < units_.size(); ++u)
      if (state.pending >> u & 1) parts *= sizes_[u];
    return (parts - 1) * once_ + copies_to_ - std::min(once_, kept);
  }

  void reach(State state, Cost cost, int before, Collective kind) {
    work_ += work_of_move_;
    const auto [it, fresh] = known_.try_emplace(state.key(), static_cast<int>(nodes_.size()));
    if (fresh) {
      const int64_t least = rest(state);
      nodes_.push_back({std::move(state), cost, before, kind});
      rests_.push_back(least);
    } else {
      Node& node = nodes_[static_cast<size_t>(it->second)];
      if (node.cost <= cost) return;
      node = {std::move(node.state), cost, before, kind};  // open again
    }
    cost.elements += rests_[static_cast<size_t>(it->second)];
    queue_.emplace(cost, it->second);
  }

  void go(State next, Collective kind, int64_t elements, int steps) {
    if (spent()) return;
    const Cost& cost = nodes_[static_cast<size_t>(id_)].cost;
    reach(std::move(next), {cost.elements + elements, cost.steps + steps, cost.moves + 1}, id_, kind);
  }

  uint64_t used() const {
    uint64_t used = at_.pending;
    for (const Units& units : at_.dims)
      for (UnitId u : units) used |= uint64_t{1} << u;
    for (size_t u = 0; u < units_.size(); ++u)
      if (kept_pending_.has(units_[u][0])) used |= uint64_t{1} << u;
    return used;
  }

  void slices() {
    const uint64_t taken = used();
    for (UnitId u = 0; u < units_.size(); ++u) {
      if (taken >> u & 1) continue;
      for (Units& units : at_.dims) {
        units.push_back(u);
        go(at_, Collective::slice, 0, 0);
        units.pop_back();
      }
    }
  }

  // Sums before max before min. Of a reduction over several units each may be scattered by itself: the elements add up
  // to those of one call.
  void reductions() {
    int kind = 0;
    while ((at_.pending & kinds_[static_cast<size_t>(kind)]) == 0) ++kind;
    const uint64_t open = at_.pending & kinds_[static_cast<size_t>(kind)];
    const uint64_t taken = used();
    for (UnitId u = 0; u < units_.size(); ++u) {
      if (!(open >> u & 1)) continue;
      for (size_t d = 0; d < at_.dims.size(); ++d) {
        State next = at_;
        next.pending &= ~(uint64_t{1} << u);
        next.dims[d].push_back(u);
        next.reduced_last = kind + 1;
        scatter(next, d, ~taken | (open & ~(uint64_t{1} << u)), sizes_[u], sizes_[u]);
      }
    }
    for (uint64_t over = open; over != 0; over = (over - 1) & open) {
      int64_t parts = 1;
      for (UnitId u = 0; u < units_.size(); ++u)
        if (over >> u & 1) parts *= sizes_[u];
      State next = at_;
      next.pending &= ~over;
      next.reduced_last = 0;
      go(std::move(next), Collective::all_reduce, 2 * (parts - 1) * (copies_ / parts), 1);
    }
  }

  // A reduce_scatter to `next`, over `ranks`, that makes `parts` of a block; and those that split the dimension further
  // by units of `more`, pending or free, in the same call: a free one behind what is scattered costs nothing there, and
  // would come too late in a call of its own.
  void scatter(State& next, size_t dim, uint64_t more, int64_t ranks, int64_t parts) {
    if (spent()) return;
    go(next, Collective::reduce_scatter, (ranks - 1) * (copies_ / parts),
       at_.reduced_last == next.reduced_last ? 0 : 1);
    for (UnitId u = 0; u < units_.size(); ++u) {
      const uint64_t bit = uint64_t{1} << u;
      if (!(more & bit)) continue;
      const bool pending = next.pending & bit;
      next.pending &= ~bit;
      next.dims[dim].push_back(u);
      scatter(next, dim, more & ~bit, pending ? ranks * sizes_[u] : ranks, parts * sizes_[u]);
      next.dims[dim].pop_back();
      if (pending) next.pending |= bit;
    }
  }

  // Calls visit(cut), where cut[d] units stay in dimension d, for each way to drop at least one.
  template <typename Visit>
  void each_cut(const Visit& visit) {
    absl::InlinedVector<size_t, 4> stay;
    for (const Units& units : at_.dims) stay.push_back(units.size());
    while (true) {
      size_t d = 0;
      while (d < stay.size() && stay[d] == 0) {
        stay[d] = at_.dims[d].size();
        ++d;
      }
      if (d == stay.size()) return;
      --stay[d];
      visit(stay);
    }
  }

  State cut(const absl::InlinedVector<size_t, 4>& stay, Units* dropped) const {
    State next = at_;
    next.reduced_last = 0;
    for (size_t d = 0; d < stay.size(); ++d) {
      for (size_t i = stay[d]; i < at_.dims[d].size(); ++i) dropped->push_back(at_.dims[d][i]);
      next.dims[d].resize(stay[d]);
    }
    return next;
  }

  void gathers() {
    each_cut([&](const auto& stay) {
      Units dropped;
      State next = cut(stay, &dropped);
      int64_t parts = 1;
      for (UnitId u : dropped) parts *= sizes_[u];
      go(std::move(next), Collective::all_gather, copies_ * (parts - 1), 1);
    });
  }

  // Moves that keep the local size: what arrives is what is not there.
  void move(const State& next, Collective kind) {
    if (spent()) return;
    go(next, kind, copies_ - kept_elements(mesh_, shape_, layout_, layout_of(next)), 1);
  }

  void all_to_alls() {
    each_cut([&](const auto& stay) {
      Units dropped;
      State next = cut(stay, &dropped);
      absl::InlinedVector<bool, 4> gains;
      for (size_t d = 0; d < stay.size(); ++d) gains.push_back(stay[d] == at_.dims[d].size());
      place(next, dropped, gains);
    });
  }

  // Every layout of the units that are not pending from the u-th on, put between those of `next`. The parts of a sum are
  // moved before they are added only where blocks are uneven: there it can be less.
  void exchanges(State& next, UnitId u) {
    if (spent()) return;
    if (u == units_.size()) {
      if (next.dims == at_.dims) return;
      const Layout to = layout_of(next);
      go(next, Collective::exchange, copies_of(mesh_, shape_, to) - kept_elements(mesh_, shape_, layout_, to), 1);
      return;
    }
    exchanges(next, static_cast<UnitId>(u + 1));
    if (at_.pending >> u & 1 || kept_pending_.has(units_[u][0])) return;
    for (size_t d = 0; d < next.dims.size(); ++d) {
      for (size_t i = 0; i <= next.dims[d].size(); ++i) {
        next.dims[d].insert(next.dims[d].begin() + static_cast<ptrdiff_t>(i), u);
        exchanges(next, static_cast<UnitId>(u + 1));
        next.dims[d].erase(next.dims[d].begin() + static_cast<ptrdiff_t>(i));
      }
    }
  }

  // Appends what was dropped to the dimensions that dropped nothing, in every order.
  void place(State& next, Units& left, const absl::InlinedVector<bool, 4>& gains, size_t first = 0) {
    if (left.empty()) return move(next, Collective::all_to_all);
    if (spent()) return;
    // Dimensions are filled one after the other, so that each arrangement is made once.
    for (size_t d = first; d < gains.size(); ++d) {
      if (!gains[d]) continue;
      for (size_t i = 0; i < left.size(); ++i) {
        const UnitId u = left[i];
        left.erase(left.begin() + static_cast<ptrdiff_t>(i));
        next.dims[d].push_back(u);
        place(next, left, gains, d);
        next.dims[d].pop_back();
        left.insert(left.begin() + static_cast<ptrdiff_t>(i), u);
      }
    }
  }

  void permutes() {
    uint64_t free = 0;
    for (size_t u = 0; u < units_.size(); ++u)
      if (!kept_pending_.has(units_[u][0])) free |= uint64_t{1} << u;
    absl::InlinedVector<int64_t, 4> parts;
    for (const Units& units : at_.dims) {
      parts.push_back(1);
      for (UnitId u : units) parts.back() *= sizes_[u];
    }
    State next = at_;
    next.reduced_last = 0;
    for (Units& units : next.dims) units.clear();
    fill(next, free, parts, 0, parts.empty() ? 1 : parts[0]);
  }

  // Every list of free units for dimension d and those behind it with the same number of parts as now.
  void fill(State& next, uint64_t free, const absl::InlinedVector<int64_t, 4>& parts, size_t d, int64_t left) {
    if (d == parts.size()) {
      if (next.dims != at_.dims) move(next, Collective::permute);
      return;
    }
    if (left == 1) return fill(next, free, parts, d + 1, d + 1 < parts.size() ? parts[d + 1] : 1);
    if (spent()) return;
    for (UnitId u = 0; u < units_.size(); ++u) {
      if (!(free >> u & 1) || left % sizes_[u] != 0) continue;
      next.dims[d].push_back(u);
      fill(next, free & ~(uint64_t{1} << u), parts, d, left / sizes_[u]);
      next.dims[d].pop_back();
    }
  }

  // The steps to a state, those that one call can do made one.
  std::vector<ReshardStep> path(int id) const {
    std::vector<ReshardStep> steps;
    std::vector<int> ids;
    for (; nodes_[static_cast<size_t>(id)].before >= 0; id = nodes_[static_cast<size_t>(id)].before) ids.push_back(id);
    std::reverse(ids.begin(), ids.end());
    for (int i : ids) {
      const Node& node = nodes_[static_cast<size_t>(i)];
      const Layout from = layout_of(nodes_[static_cast<size_t>(node.before)].state), to = layout_of(node.state);
      const AtomSet reduced = from.pending_atoms() - to.pending_atoms();
      ReshardStep step = step_of(node.kind, reduced.empty() ? moved_atoms(from, to) : reduced, from, to);
      // An exchange that is something plainer is called that.
      for (Collective plain : {Collective::permute, Collective::all_to_all, Collective::all_gather, Collective::slice}) {
        ReshardStep other = step;
        other.kind = plain;
        if (node.kind == Collective::exchange && step_fits(mesh_, other)) step.kind = plain;
      }
      if (steps.empty() || !join(steps.back(), step)) steps.push_back(std::move(step));
    }
    return steps;
  }

  bool join(ReshardStep& first, const ReshardStep& second) const {
    const bool scatters = first.kind == Collective::reduce_scatter;
    if (first.kind != second.kind && !(scatters && second.kind == Collective::slice)) return false;
    if (first.kind != Collective::slice && first.kind != Collective::all_gather && !scatters) return false;
    if (scatters && second.kind == first.kind && first.reduction != second.reduction) return false;
    const AtomSet over = scatters ? first.from.pending_atoms() - second.to.pending_atoms()
                                  : moved_atoms(first.from, second.to);
    const ReshardStep joined = step_of(first.kind, over, first.from, second.to);
    if (!step_fits(mesh_, joined)) return false;
    first = joined;
    return true;
  }

  const Mesh& mesh_;
  const Shape& shape_;
  const Layout& to_;
  const bool exchange_;
  const std::vector<Atoms> units_;
  std::vector<int64_t> sizes_;
  std::array<uint64_t, kReductions> kinds_ = {};  // the units to be reduced, by kind
  AtomSet kept_pending_;
  State start_, goal_;
  int64_t copies_to_ = 0;  // elements of all ranks at the end
  int64_t once_ = 0;       // elements, each once for every part that stays pending

  std::vector<Node> nodes_;
  std::vector<int64_t> rests_;
  absl::flat_hash_map<std::string, int> known_;  // looked up, never walked
  std::priority_queue<std::pair<Cost, int>, std::vector<std::pair<Cost, int>>, std::greater<>> queue_;
  int64_t work_ = 0, work_of_move_ = 1, most_work_ = 0;
  bool moves_parts_ = false;  // whether the parts of a sum may be moved before they are added
  // The state whose moves are being made.
  State at_;
  Layout layout_;
  int64_t copies_ = 0;
  int id_ = -1;
};

}  // namespace

int64_t least_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  const AtomSet kept = to.pending_atoms(), done = from.pending_atoms() - kept;
  const int64_t copies = copies_of(mesh, shape, to);
  if (done.empty()) return copies - kept_elements(mesh, shape, from, to);
  const int64_t once = shape.elements() * mesh.parts(kept);
  return (mesh.parts(done) - 1) * once + copies - std::min(once, kept_elements(mesh, shape, from, to));
}

std::optional<std::vector<ReshardStep>> shortest_steps(const Mesh& mesh, const Shape& shape, const Layout& from,
                                                       const Layout& to, bool exchange) {
  return Search(mesh, shape, from, to, exchange).run();
}

}  // namespace meshard
