#include "meshard/layout/reshard.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "meshard/layout/cost.h"
#include "meshard/layout/shortest.h"

namespace meshard {
namespace {

// A whole value taken as a sum: all of it on the first device along `over`, zeros on the others.
bool takes_part(const Layout& from, const Layout& to, AtomSet over) {
  Layout sum = from;
  sum.pending_of(Reduction::sum) = sum.pending_of(Reduction::sum) | over;
  return (from.used() & over).empty() && sum == to;
}

bool is_prefix(const Atoms& a, const Atoms& b) {
  return a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin());
}

// The atoms of `b` behind those of `a`, where `a` is a prefix of `b`.
AtomSet behind(const Atoms& a, const Atoms& b) { return AtomSet::of(std::span(b).subspan(a.size())); }

bool same_splits(const Layout& a, const Layout& b) {
  for (int d = 0; d < a.rank(); ++d)
    if (a.atoms(d) != b.atoms(d)) return false;
  return true;
}

// Whether each dimension of `coarse` is split by the leading atoms of that dimension of `fine`.
bool refines(const Layout& fine, const Layout& coarse) {
  for (int d = 0; d < fine.rank(); ++d)
    if (!is_prefix(coarse.atoms(d), fine.atoms(d))) return false;
  return true;
}

// Every dimension loses a suffix or gains one, and what is lost here is gained there: each rank gets an equal share
// from each rank of the group, whatever the order in which the atoms arrive.
bool swaps_suffixes(const Layout& from, const Layout& to) {
  AtomSet lost, gained;
  for (int d = 0; d < from.rank(); ++d) {
    const Atoms &a = from.atoms(d), &b = to.atoms(d);
    if (is_prefix(a, b)) {
      gained = gained | behind(a, b);
    } else if (is_prefix(b, a)) {
      lost = lost | behind(b, a);
    } else {
      return false;
    }
  }
  return lost == gained;
}

// Whether a rank's block of `to` is always some rank's whole block of `from`: blocks depend only on the number of
// parts.
bool same_blocks(const Mesh& mesh, const Layout& from, const Layout& to) {
  for (int d = 0; d < from.rank(); ++d)
    if (mesh.parts(from.atoms(d)) != mesh.parts(to.atoms(d))) return false;
  return true;
}

// The atoms of one kind that stop being pending, and whether nothing else about pending changes.
bool finishes(const Layout& from, const Layout& to, Reduction kind, AtomSet done) {
  Layout expected = from;
  expected.pending_of(kind) = from.pending_of(kind) - done;
  return expected.pending == to.pending && !done.empty() && from.pending_of(kind).contains(done);
}

// `layout`, split further by what `to` appends and `layout` does not use: costs nothing, and less is left to move.
Layout slice_ahead(Layout layout, const Layout& to) {
  AtomSet used = layout.used();
  for (int d = 0; d < to.rank(); ++d) {
    Atoms& atoms = layout.dims[static_cast<size_t>(d)].atoms;
    if (!is_prefix(atoms, to.atoms(d))) continue;
    while (atoms.size() < to.atoms(d).size() && !used.has(to.atoms(d)[atoms.size()]))
      atoms.push_back(to.atoms(d)[atoms.size()]);
  }
  return layout;
}

// The layout after a reduce_scatter over `scatter`, atoms that are pending in `layout` and split `to`. Where `to` goes
// on with them, free atoms between and behind them are taken too: a rank then reduces its part of the block only.
// Elsewhere they go to the end of their dimension, from where a later step moves them: still less than an all_reduce
// and that step.
Layout scatter_over(Layout layout, AtomSet scatter, Reduction kind, const Layout& to) {
  layout.pending_of(kind) = layout.pending_of(kind) - scatter;
  for (int d = 0; d < to.rank(); ++d) {
    Atoms& atoms = layout.dims[static_cast<size_t>(d)].atoms;
    const Atoms& target = to.atoms(d);
    if (is_prefix(atoms, target)) {
      const AtomSet used = layout.used();
      while (atoms.size() < target.size() && !used.has(target[atoms.size()])) atoms.push_back(target[atoms.size()]);
    }
    for (AtomId a : target)
      if (scatter.has(a) && std::find(atoms.begin(), atoms.end(), a) == atoms.end()) atoms.push_back(a);
  }
  return layout;
}

// The one step from -> to without a reduction; the cheapest kind of call that does it.
ReshardStep move_step(const Mesh& mesh, const Layout& from, const Layout& to) {
  ReshardStep step{.over = moved_atoms(from, to), .from = from, .to = to};
  for (Collective kind :
       {Collective::slice, Collective::all_gather, Collective::all_to_all, Collective::permute, Collective::exchange}) {
    step.kind = kind;
    if (step_fits(mesh, step)) return step;
  }
  MESHARD_CHECK(false, fmt::format("no step from {} to {}", from.str(mesh), to.str(mesh)));
}

// The steps of one reshard; both layouts closed.
class Planner {
 public:
  Planner(const Mesh& mesh, const Shape& shape, Layout from, Layout to)
      : mesh_(mesh), shape_(shape), from_(std::move(from)), to_(std::move(to)) {}

  // The fewest bytes, an exchange allowed.
  std::vector<ReshardStep> exchanged(bool search = true) const {
    if (from_.pending == to_.pending) return plain(false);
    const AtomSet idle = mesh_.all() - from_.used() - to_.used();
    // Idle ranks pay as soon as more than two values are added: the P - 1 of each element are then not added on all of
    // them, and each gets the result once.
    const bool use_idle = !idle.empty() && shape_.rank() > 0 && mesh_.parts(done()) > 2;
    std::vector<ReshardStep> steps = plain(use_idle);
    if (!search || settled(steps)) return steps;
    if (auto found = shortest_steps(mesh_, shape_, from_, to_, true)) {
      const std::vector<ReshardStep> last = Planner(mesh_, shape_, found->empty() ? from_ : found->back().to, to_).plain(false);
      found->insert(found->end(), last.begin(), last.end());
      if (elements(*found) < elements(steps)) return *std::move(found);
    }
    return steps;
  }

  // The fewest bytes without an exchange.
  std::vector<ReshardStep> sequence() const {
    std::vector<ReshardStep> steps = exchanged();
    if (std::none_of(steps.begin(), steps.end(), [](const auto& s) { return s.kind == Collective::exchange; }))
      return steps;
    if (auto found = shortest_steps(mesh_, shape_, from_, to_, false)) return *std::move(found);
    return gathered(std::move(steps));
  }

  // Slices first, reduces what is left (scattering where the target is split by the pending axes), and moves the rest
  // in one step. With `use_idle` the axes that neither layout uses split the value while it is reduced.
  std::vector<ReshardStep> plain(bool use_idle) const {
    std::vector<ReshardStep> steps;
    Layout at = from_;
    const auto go = [&](ReshardStep step) {
      at = step.to;
      steps.push_back(std::move(step));
    };
    const auto slice = [&](const Layout& ahead) {
      if (ahead != at) go(move_step(mesh_, at, ahead));
    };
    Atoms idle;
    if (use_idle) idle = (mesh_.all() - from_.used() - to_.used()).list();
    if (at.pending != to_.pending) {
      Layout ahead = slice_ahead(at, to_);
      // Where the first call scatters, it puts the idle axes behind what it scatters: they are the first to be gathered.
      if ((scattered(Reduction::sum) | scattered(Reduction::max) | scattered(Reduction::min)).empty())
        append(ahead, std::exchange(idle, {}));
      slice(ahead);
    }
    for (Reduction kind : {Reduction::sum, Reduction::max, Reduction::min}) {
      const AtomSet reduced = at.pending_of(kind) - to_.pending_of(kind), scatter = scattered(kind);
      if (!scatter.empty()) {
        Layout next = scatter_over(at, scatter, kind, to_);
        append(next, std::exchange(idle, {}));
        go({Collective::reduce_scatter, scatter, kind, at, next});
      }
      if (AtomSet rest = reduced - scatter; !rest.empty()) {
        Layout next = at;
        next.pending_of(kind) = at.pending_of(kind) - rest;
        go({Collective::all_reduce, rest, kind, at, next});
      }
    }
    // An exchange needs no slice before it: each rank receives its own part only, and more ranks hold what it needs.
    const Layout ahead = slice_ahead(at, to_);
    if (ahead == to_ || move_step(mesh_, ahead, to_).kind != Collective::exchange) slice(ahead);
    if (at != to_) go(move_step(mesh_, at, to_));
    return steps;
  }

 private:
  AtomSet done() const { return from_.pending_atoms() - to_.pending_atoms(); }
  AtomSet scattered(Reduction kind) const {
    return (from_.pending_of(kind) - to_.pending_of(kind)) & to_.split();
  }
  int64_t elements(const std::vector<ReshardStep>& steps) const {
    return all_received_elements(mesh_, shape_, steps);
  }
  bool settled(const std::vector<ReshardStep>& steps) const {
    return elements(steps) == least_elements(mesh_, shape_, from_, to_);
  }

  // Splits the dimension with the largest blocks further.
  void append(Layout& layout, const Atoms& atoms) const {
    if (atoms.empty()) return;
    int widest = 0;
    const auto width = [&](int d) { return shape_[d] / mesh_.parts(layout.atoms(d)); };
    for (int d = 1; d < shape_.rank(); ++d)
      if (width(d) > width(widest)) widest = d;
    Atoms& split = layout.dims[static_cast<size_t>(widest)].atoms;
    split.insert(split.end(), atoms.begin(), atoms.end());
  }

  // The steps with each exchange replaced by a gather of what stands elsewhere and a slice.
  std::vector<ReshardStep> gathered(std::vector<ReshardStep> steps) const {
    std::vector<ReshardStep> result;
    for (ReshardStep& step : steps) {
      if (step.kind != Collective::exchange) {
        result.push_back(std::move(step));
        continue;
      }
      Layout common = step.from;
      for (int d = 0; d < common.rank(); ++d) {
        Atoms& atoms = common.dims[static_cast<size_t>(d)].atoms;
        while (!is_prefix(atoms, step.to.atoms(d))) atoms.pop_back();
      }
      if (common != step.from) result.push_back(move_step(mesh_, step.from, common));
      if (common != step.to) result.push_back(move_step(mesh_, common, step.to));
    }
    return result;
  }

  const Mesh& mesh_;
  const Shape& shape_;
  Layout from_, to_;
};

}  // namespace

ReshardStep step_of(Collective kind, AtomSet over, const Layout& from, const Layout& to) {
  ReshardStep step{kind, over, Reduction::sum, from, to};
  for (Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min})
    if (!(from.pending_of(reduction) - to.pending_of(reduction)).empty()) step.reduction = reduction;
  return step;
}

bool is_turn(const ReshardStep& step) {
  return step.kind == Collective::permute && !step.over.empty() && step.from == step.to;
}

AtomSet moved_atoms(const Layout& from, const Layout& to) {
  AtomSet moved;
  for (int d = 0; d < from.rank(); ++d) {
    const Atoms &a = from.atoms(d), &b = to.atoms(d);
    size_t common = 0;
    while (common < a.size() && common < b.size() && a[common] == b[common]) ++common;
    moved = moved | AtomSet::of(std::span(a).subspan(common)) | AtomSet::of(std::span(b).subspan(common));
  }
  return moved;
}

std::string reshard_obstacle(const Mesh& mesh, const Layout& from, const Layout& to) {
  const auto cannot = [&](const std::string& why) {
    return fmt::format("{} cannot become {}: {}", from.str(mesh), to.str(mesh), why);
  };
  if (from.rank() != to.rank()) return cannot(fmt::format("they have {} and {} dimensions", from.rank(), to.rank()));
  for (Reduction kind : {Reduction::sum, Reduction::max, Reduction::min}) {
    const AtomSet made = to.pending_of(kind) - from.pending_of(kind);
    if (AtomSet other = made & from.pending_atoms(); !other.empty()) {
      Reduction was = Reduction::sum;
      while ((from.pending_of(was) & other).empty()) was = Reduction{static_cast<uint8_t>(static_cast<int>(was) + 1)};
      return cannot(fmt::format("a pending {} over {} cannot turn into a pending {}", name(was),
                                mesh.atoms_text(from.pending_of(was) & made), name(kind)));
    }
    if (!made.empty())
      return cannot(
          fmt::format("no reshard leaves a {} over {} pending; only an op does, such as a matrix product split along "
                      "the dimension it sums over",
                      name(kind), mesh.atoms_text(made)));
  }
  for (Reduction later : {Reduction::max, Reduction::min}) {
    const AtomSet done = from.pending_of(later) - to.pending_of(later);
    for (Reduction earlier : {Reduction::sum, Reduction::max}) {
      if (done.empty() || earlier >= later || to.pending_of(earlier).empty()) continue;
      return cannot(fmt::format("the {} over {} comes before the {} over {}, so it cannot stay pending alone",
                                name(earlier), mesh.atoms_text(to.pending_of(earlier)), name(later),
                                mesh.atoms_text(done)));
    }
  }
  return "";
}

namespace {

// Whether the atoms stand one after the other, in their order, in a dimension.
bool in_one_row(const Layout& layout, AtomSet over) {
  const Atoms row = over.list();
  for (int d = 0; d < layout.rank(); ++d) {
    const Atoms& atoms = layout.atoms(d);
    if (std::search(atoms.begin(), atoms.end(), row.begin(), row.end()) != atoms.end()) return true;
  }
  return false;
}

}  // namespace

bool step_fits(const Mesh& mesh, const ReshardStep& step) {
  const Layout &from = step.from, &to = step.to;
  if (from.rank() != to.rank() || step.over.empty()) return false;
  const bool moves = from.pending == to.pending && step.over == moved_atoms(from, to);
  switch (step.kind) {
    case Collective::slice:
      return (moves && refines(to, from)) || takes_part(from, to, step.over);
    case Collective::all_gather:
      return moves && refines(from, to);
    case Collective::all_to_all:
      return moves && swaps_suffixes(from, to);
    case Collective::permute:
      return is_turn(step) ? in_one_row(from, step.over) : moves && same_blocks(mesh, from, to);
    case Collective::exchange:
      return moves;
    case Collective::all_reduce:
      return finishes(from, to, step.reduction, step.over) && same_splits(from, to);
    case Collective::reduce_scatter:
      return finishes(from, to, step.reduction, step.over) && refines(to, from) &&
             moved_atoms(from, to).contains(step.over);
    case Collective::broadcast:
    case Collective::barrier:
      return false;
  }
  return false;
}

std::vector<ReshardStep> plan_reshard(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to,
                                      const ReshardOptions& options) {
  if (std::string why = reshard_obstacle(mesh, from, to); !why.empty()) throw UserError(why);
  MESHARD_CHECK(shape.rank() == from.rank(), fmt::format("{} laid out as {}", shape.str(), from.str(mesh)));
  const Planner planner(mesh, shape, from.closed(), to.closed());
  if (options.model == nullptr) return options.exchange ? planner.exchanged(options.search) : planner.sequence();
  std::vector<ReshardStep> best;
  int64_t least = -1;
  const auto offer = [&](std::vector<ReshardStep> steps) {
    const int64_t ns = steps_nanoseconds(*options.model, mesh, shape, steps, options.element_bytes);
    if (least >= 0 && ns >= least) return;
    least = ns;
    best = std::move(steps);
  };
  if (options.exchange) {
    offer(planner.exchanged());
    offer(planner.plain(false));
  }
  offer(planner.sequence());
  return best;
}

}  // namespace meshard
