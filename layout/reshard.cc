#include "meshard/layout/reshard.h"

#include <fmt/format.h>

#include <algorithm>

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

}  // namespace

ReshardStep step_of(Collective kind, AtomSet over, const Layout& from, const Layout& to) {
  ReshardStep step{kind, over, Reduction::sum, from, to};
  for (Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min})
    if (!(from.pending_of(reduction) - to.pending_of(reduction)).empty()) step.reduction = reduction;
  return step;
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
      return moves && same_blocks(mesh, from, to);
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

std::vector<ReshardStep> plan_reshard(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  if (std::string why = reshard_obstacle(mesh, from, to); !why.empty()) throw UserError(why);
  MESHARD_CHECK(shape.rank() == from.rank(), fmt::format("{} laid out as {}", shape.str(), from.str(mesh)));
  std::vector<ReshardStep> steps;
  Layout at = from.closed();
  const Layout target = to.closed();
  const auto go = [&](ReshardStep step) {
    at = step.to;
    steps.push_back(std::move(step));
  };
  const auto slice = [&] {
    if (Layout ahead = slice_ahead(at, target); ahead != at) go(move_step(mesh, at, ahead));
  };

  if (at.pending != target.pending) slice();
  for (Reduction kind : {Reduction::sum, Reduction::max, Reduction::min}) {
    const AtomSet done = at.pending_of(kind) - target.pending_of(kind);
    if (AtomSet scatter = done & target.split(); !scatter.empty())
      go({Collective::reduce_scatter, scatter, kind, at, scatter_over(at, scatter, kind, target)});
    if (AtomSet rest = done - target.split(); !rest.empty()) {
      Layout reduced = at;
      reduced.pending_of(kind) = at.pending_of(kind) - rest;
      go({Collective::all_reduce, rest, kind, at, reduced});
    }
  }

  // An exchange needs no slice before it: each rank receives its own part only, and more ranks hold what it needs.
  const Layout ahead = slice_ahead(at, target);
  if (ahead == target || move_step(mesh, ahead, target).kind != Collective::exchange) slice();
  if (at != target) go(move_step(mesh, at, target));
  return steps;
}

}  // namespace meshard
