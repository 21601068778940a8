#include "meshard/layout/search_reshard.h"

#include <algorithm>
#include <queue>
#include <tuple>

namespace meshard {

std::vector<Layout> all_layouts(const Mesh& mesh, int rank, const std::vector<Reduction>& pending) {
  std::vector<Layout> layouts = {Layout(rank)};
  for (AtomId atom = 0; atom < mesh.atom_count(); ++atom) {
    std::vector<Layout> next;
    for (const Layout& base : layouts) {
      next.push_back(base);
      for (int d = 0; d < rank; ++d) {
        for (size_t i = 0; i <= base.atoms(d).size(); ++i) {
          next.push_back(base);
          Atoms& atoms = next.back().dims[static_cast<size_t>(d)].atoms;
          atoms.insert(atoms.begin() + static_cast<ptrdiff_t>(i), atom);
        }
      }
      for (Reduction kind : pending) {
        next.push_back(base);
        next.back().pending_of(kind).add(atom);
      }
    }
    layouts = std::move(next);
  }
  return layouts;
}

// What each rank has of each layout, and what a step moves.
struct ReshardSearch::Counts {
  Counts(const Mesh& all, const Shape& shape, const std::vector<Layout>& layouts) : mesh(all) {
    for (const Layout& layout : layouts) {
      rects.emplace_back();
      for (int64_t r = 0; r < mesh.size(); ++r)
        rects.back().push_back(local_rect(mesh, shape, layout, Rank{static_cast<int32_t>(r)}));
    }
  }

  int64_t received(const ReshardStep& step, size_t from, size_t to, size_t rank) const {
    const Rect &held = rects[from][rank], &wanted = rects[to][rank];
    const int64_t ranks = mesh.parts(step.over);
    if (step.kind == Collective::slice) return 0;
    if (step.kind == Collective::reduce_scatter) return (ranks - 1) * wanted.elements();
    if (step.kind == Collective::all_reduce) {
      const int64_t at = mesh.position(Rank{static_cast<int32_t>(rank)}, step.over.list());
      return held.elements() + (ranks - 2) * block(held.elements(), ranks, at).size;
    }
    int64_t kept = 1;
    for (size_t d = 0; d < held.dims.size(); ++d) kept *= intersect(held.dims[d], wanted.dims[d]).size;
    return wanted.elements() - kept;
  }

  const Mesh& mesh;
  std::vector<std::vector<Rect>> rects;  // [layout][rank]
};

ReshardSearch::ReshardSearch(const Mesh& mesh, const Shape& shape, const std::vector<Reduction>& pending,
                             SearchOptions options)
    : layouts_(all_layouts(mesh, shape.rank(), pending)), edges_(layouts_.size()) {
  const Counts counts(mesh, shape, layouts_);
  for (size_t from = 0; from < layouts_.size(); ++from) {
    const AtomSet before = layouts_[from].pending_atoms();
    for (size_t to = 0; to < layouts_.size(); ++to) {
      const AtomSet after = layouts_[to].pending_atoms();
      if (from == to || !before.contains(after)) continue;
      static constexpr Collective kReduce[] = {Collective::all_reduce, Collective::reduce_scatter};
      static constexpr Collective kMove[] = {Collective::slice, Collective::all_gather, Collective::all_to_all,
                                             Collective::permute, Collective::exchange};
      const bool reduces = before != after;
      if (!reduces && layouts_[from].pending != layouts_[to].pending) continue;
      ReshardStep step = step_of(Collective::slice, reduces ? before - after : moved_atoms(layouts_[from], layouts_[to]),
                                 layouts_[from], layouts_[to]);
      // The parts of a pending sum are no values yet, of which a max could be made.
      if (reduces && step.reduction > Reduction::sum && !step.from.pending_of(Reduction::sum).empty()) continue;
      if (reduces && step.reduction > Reduction::max && !step.from.pending_of(Reduction::max).empty()) continue;
      for (Collective kind : reduces ? std::span<const Collective>(kReduce) : std::span<const Collective>(kMove)) {
        step.kind = kind;
        if (!step_fits(mesh, step) || (kind == Collective::exchange && !options.exchange)) continue;
        int64_t elements = 0;
        for (size_t r = 0; r < static_cast<size_t>(mesh.size()); ++r) {
          const int64_t n = counts.received(step, from, to, r);
          elements = options.busiest ? std::max(elements, n) : elements + n;
        }
        edges_[from].push_back({static_cast<int>(to), kind, elements});
        break;  // the kinds that fit a pair move the same elements; the first is the plainest
      }
    }
  }
}

ReshardStep ReshardSearch::step(int from, const Edge& edge) const {
  const Layout &a = layouts_[static_cast<size_t>(from)], &b = layouts_[static_cast<size_t>(edge.to)];
  const AtomSet reduced = a.pending_atoms() - b.pending_atoms();
  return step_of(edge.kind, reduced.empty() ? moved_atoms(a, b) : reduced, a, b);
}

int ReshardSearch::find(const Layout& layout) const {
  const auto it = std::find(layouts_.begin(), layouts_.end(), layout);
  MESHARD_CHECK(it != layouts_.end(), "no such layout in the search");
  return static_cast<int>(it - layouts_.begin());
}

std::vector<ReshardSearch::Reached> ReshardSearch::reach(int from) const {
  std::vector<Reached> reached(layouts_.size());
  using Entry = std::tuple<int64_t, int, int>;  // elements, steps, layout
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  reached[static_cast<size_t>(from)].elements = 0;
  queue.emplace(0, 0, from);
  while (!queue.empty()) {
    const auto [elements, steps, at] = queue.top();
    queue.pop();
    const Reached& here = reached[static_cast<size_t>(at)];
    if (elements != here.elements || steps != here.steps) continue;
    const auto& edges = edges_[static_cast<size_t>(at)];
    for (size_t e = 0; e < edges.size(); ++e) {
      Reached& there = reached[static_cast<size_t>(edges[e].to)];
      const Reached next{elements + edges[e].elements, steps + 1, at, static_cast<int>(e)};
      if (there.elements >= 0 && std::pair(next.elements, next.steps) >= std::pair(there.elements, there.steps))
        continue;
      there = next;
      queue.emplace(next.elements, next.steps, edges[e].to);
    }
  }
  return reached;
}

std::vector<int64_t> ReshardSearch::costs(int from) const {
  std::vector<int64_t> result;
  for (const Reached& r : reach(from)) result.push_back(r.elements);
  return result;
}

std::vector<ReshardStep> ReshardSearch::steps(int from, int to) const {
  const std::vector<Reached> reached = reach(from);
  std::vector<ReshardStep> steps;
  for (int at = to; reached[static_cast<size_t>(at)].before >= 0; at = reached[static_cast<size_t>(at)].before) {
    const Reached& r = reached[static_cast<size_t>(at)];
    steps.insert(steps.begin(), step(r.before, edges_[static_cast<size_t>(r.before)][static_cast<size_t>(r.edge)]));
  }
  return steps;
}

}  // namespace meshard
