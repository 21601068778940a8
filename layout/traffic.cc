// How many elements the steps of a reshard move. Dimensions that share no atom are independent of each other, so each
// group of dimensions is counted for itself and the counts are multiplied: by formula where blocks are even or nested,
// else over the coordinates of the group's own atoms.
#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <numeric>

#include "meshard/layout/reshard.h"

namespace meshard {
namespace {

using Ids = absl::InlinedVector<AtomId, 12>;

// A dimension whose split changes, without the leading atoms that both layouts have and that split it evenly: those
// make equal copies of one smaller problem.
struct ChangedDim {
  int64_t elements = 0;
  int64_t from_parts = 1, to_parts = 1;
  Ids from = {}, to = {};
  AtomSet atoms = {};
};

using ChangedDims = absl::InlinedVector<ChangedDim, 4>;

// What ranks need and hold of some of the dimensions: for each need that occurs, the least that such a rank holds.
struct Case {
  int64_t need = 0, hold = 0;
};

struct Moved {
  int64_t kept = 0;                    // elements that ranks need and hold, summed over the coordinates of `atoms`
  AtomSet atoms = {};                  // that the dimensions' layouts use
  absl::InlinedVector<Case, 4> cases = {};  // one for each need
  int64_t pieces = 0;                  // most blocks that one rank needs parts of
  int64_t foreign = -1;                // the same for ranks that hold nothing of what they need; -1: there are none

  void add(Case c) {
    for (Case& known : cases)
      if (known.need == c.need) {
        known.hold = std::min(known.hold, c.hold);
        return;
      }
    cases.push_back(c);
  }
};

int64_t position(const Mesh& mesh, const Ids& atoms, const std::array<int64_t, 64>& digits) {
  int64_t at = 0;
  for (AtomId a : atoms) at = at * mesh.atom_size(a) + digits[a];
  return at;
}

// How many blocks of `parts` have elements of `wanted`.
int64_t blocks_met(Block wanted, int64_t elements, int64_t parts) {
  if (wanted.size == 0) return 0;
  const bool fits = elements < int64_t{1} << 31 && parts < int64_t{1} << 31;
  const auto at = [&](int64_t e) {
    return fits ? e * parts / elements : static_cast<int64_t>(static_cast<__int128>(e) * parts / elements);
  };
  return std::min(wanted.size, at(wanted.end() - 1) - at(wanted.begin) + 1);
}

bool begins_with(const Ids& list, const Ids& head) {
  return head.size() <= list.size() && std::equal(head.begin(), head.end(), list.begin());
}

// Even blocks, and atoms of equal sizes level by level: two blocks meet if their digits agree, and then one lies in the
// other.
bool aligned(const Mesh& mesh, const ChangedDim& dim) {
  if (dim.elements % dim.from_parts != 0 || dim.elements % dim.to_parts != 0) return false;
  for (size_t i = 0; i < std::min(dim.from.size(), dim.to.size()); ++i)
    if (mesh.atom_size(dim.from[i]) != mesh.atom_size(dim.to[i])) return false;
  return true;
}

Moved count_aligned(const Mesh& mesh, std::span<const ChangedDim* const> dims) {
  Moved moved;
  std::array<AtomId, 64> root;  // of the atoms that must have equal digits where something is held
  std::iota(root.begin(), root.end(), AtomId{0});
  const auto find = [&](AtomId a) {
    while (root[a] != a) a = root[a];
    return a;
  };
  int64_t need = 1, hold = 1, pieces = 1;
  bool always = true;  // every rank holds something of what it needs
  for (const ChangedDim* dim : dims) {
    moved.atoms = moved.atoms | dim->atoms;
    need *= dim->elements / dim->to_parts;
    hold *= dim->elements / std::max(dim->from_parts, dim->to_parts);
    pieces *= std::max<int64_t>(1, dim->from_parts / dim->to_parts);
    for (size_t i = 0; i < std::min(dim->from.size(), dim->to.size()); ++i) {
      if (dim->from[i] == dim->to[i]) continue;
      always = false;
      root[find(dim->from[i])] = find(dim->to[i]);
    }
  }
  moved.kept = hold;
  for (AtomId a = 0; a < mesh.atom_count(); ++a)
    if (moved.atoms.has(a) && root[a] == a) moved.kept *= mesh.atom_size(a);
  moved.pieces = need > 0 ? pieces : 0;
  if (hold == 0 || !always) moved.foreign = moved.pieces;
  moved.add({need, always ? hold : 0});
  return moved;
}

// One dimension, of which one split is a prefix of the other.
Moved count_nested(const ChangedDim& dim) {
  Moved moved{.kept = dim.elements, .atoms = dim.atoms};
  const auto down = [&](int64_t parts) { return dim.elements / parts; };
  const auto up = [&](int64_t parts) { return (dim.elements + parts - 1) / parts; };
  if (dim.to_parts >= dim.from_parts) {
    for (int64_t size : {up(dim.to_parts), down(dim.to_parts)}) moved.add({size, size});
    moved.pieces = std::min<int64_t>(1, up(dim.to_parts));
    if (down(dim.to_parts) == 0) moved.foreign = 0;
    return moved;
  }
  // A block of `to` is `fine` blocks of `from`; all of them are large only if they fill a large one.
  const int64_t fine = dim.from_parts / dim.to_parts, large = up(dim.to_parts), small = down(dim.to_parts);
  const int64_t least = large == fine * up(dim.from_parts) ? up(dim.from_parts) : down(dim.from_parts);
  moved.add({large, least});
  if (small != large) moved.add({small, down(dim.from_parts)});
  moved.pieces = std::min(large, fine);
  if (least == 0) {
    moved.foreign = moved.pieces;
  } else if (small != large && down(dim.from_parts) == 0) {
    moved.foreign = std::min(small, fine);
  }
  return moved;
}

Moved count_coordinates(const Mesh& mesh, std::span<const ChangedDim* const> dims, bool with_pieces) {
  Moved moved;
  for (const ChangedDim* dim : dims) moved.atoms = moved.atoms | dim->atoms;
  const Atoms atoms = moved.atoms.list();
  std::array<int64_t, 64> digits = {};
  const int64_t coordinates = mesh.parts(atoms);
  for (int64_t i = 0; i < coordinates; ++i) {
    int64_t need = 1, hold = 1, pieces = 1;
    for (const ChangedDim* dim : dims) {
      const Block wanted = block(dim->elements, dim->to_parts, position(mesh, dim->to, digits));
      need *= wanted.size;
      hold *= intersect(wanted, block(dim->elements, dim->from_parts, position(mesh, dim->from, digits))).size;
      if (with_pieces) pieces *= blocks_met(wanted, dim->elements, dim->from_parts);
    }
    moved.kept += hold;
    moved.add({need, hold});
    moved.pieces = std::max(moved.pieces, pieces);
    if (hold == 0) moved.foreign = std::max(moved.foreign, pieces);
    for (size_t a = atoms.size(); a-- > 0;) {
      if (++digits[atoms[a]] < mesh.atom_size(atoms[a])) break;
      digits[atoms[a]] = 0;
    }
  }
  return moved;
}

// One dimension: of each block of `to`, the blocks of `from` that it meets. A rank has such a pair if it stands at one place along the
// atoms that are in both lists, so pairs are counted and not coordinates.
Moved count_pairs(const Mesh& mesh, const ChangedDim& dim, bool with_pieces) {
  Moved moved{.atoms = dim.atoms};
  const AtomSet shared = AtomSet::of(dim.from) & AtomSet::of(dim.to);
  // What a place says of the shared atoms, as one number.
  const auto digits = [&](const Ids& atoms, int64_t at) {
    int64_t number = 0;
    for (size_t a = atoms.size(); a-- > 0; at /= mesh.atom_size(atoms[a])) {
      if (!shared.has(atoms[a])) continue;
      int64_t below = 1;
      for (AtomId b : shared.list()) below *= b < atoms[a] ? mesh.atom_size(b) : 1;
      number += at % mesh.atom_size(atoms[a]) * below;
    }
    return number;
  };
  const int64_t partners = dim.from_parts / mesh.parts(shared);  // ranks with a block of `to` have so many of `from`
  const auto place = [&](int64_t e) { return static_cast<int64_t>(static_cast<__int128>(e) * dim.from_parts / dim.elements); };
  for (int64_t i = 0; i < dim.to_parts; ++i) {
    const Block wanted = block(dim.elements, dim.to_parts, i);
    const int64_t own = shared.empty() ? 0 : digits(dim.to, i);
    int64_t met = 0, least = wanted.size;
    for (int64_t j = wanted.size == 0 ? 1 : place(wanted.begin), last = wanted.size == 0 ? 0 : place(wanted.end() - 1); j <= last; ++j) {
      const int64_t both = intersect(wanted, block(dim.elements, dim.from_parts, j)).size;
      if (both == 0 || (!shared.empty() && digits(dim.from, j) != own)) continue;
      moved.kept += both;
      least = std::min(least, both);
      ++met;
    }
    if (met < partners) least = 0;
    moved.add({wanted.size, least});
    if (!with_pieces) continue;
    const int64_t pieces = blocks_met(wanted, dim.elements, dim.from_parts);
    moved.pieces = std::max(moved.pieces, pieces);
    if (least == 0) moved.foreign = std::max(moved.foreign, pieces);
  }
  return moved;
}

Moved count_group(const Mesh& mesh, std::span<const ChangedDim* const> dims, bool with_pieces) {
  const ChangedDim& first = *dims[0];
  if (dims.size() == 1 && (begins_with(first.from, first.to) || begins_with(first.to, first.from)))
    return count_nested(first);
  if (std::all_of(dims.begin(), dims.end(), [&](const ChangedDim* dim) { return aligned(mesh, *dim); }))
    return count_aligned(mesh, dims);
  if (dims.size() == 1) return count_pairs(mesh, first, with_pieces);
  return count_coordinates(mesh, dims, with_pieces);
}

Moved both(const Moved& a, const Moved& b) {
  Moved moved{.kept = a.kept * b.kept, .atoms = a.atoms | b.atoms, .pieces = a.pieces * b.pieces};
  for (const Case& x : a.cases)
    for (const Case& y : b.cases) moved.add({x.need * y.need, x.hold * y.hold});
  if (a.foreign >= 0) moved.foreign = a.foreign * b.pieces;
  if (b.foreign >= 0) moved.foreign = std::max(moved.foreign, b.foreign * a.pieces);
  return moved;
}

// What changes hands between two layouts of a value, pending axes taken as copies. `kept` is summed over all ranks;
// `pieces` and `foreign` mean something only if asked for.
Moved count_moved(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to,
                  bool with_pieces = false) {
  ChangedDims changed;
  int64_t same_elements = 1, same_largest = 1, parts = 1;
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms &a = from.atoms(d), &b = to.atoms(d);
    if (a == b) {
      same_elements *= shape[d];
      same_largest *= block(shape[d], mesh.parts(a), 0).size;
      parts *= mesh.parts(a);
      continue;
    }
    ChangedDim dim{.elements = shape[d]};
    size_t skip = 0;
    while (skip < a.size() && skip < b.size() && a[skip] == b[skip] && dim.elements % mesh.atom_size(a[skip]) == 0)
      dim.elements /= mesh.atom_size(a[skip++]);
    dim.from.assign(a.begin() + static_cast<ptrdiff_t>(skip), a.end());
    dim.to.assign(b.begin() + static_cast<ptrdiff_t>(skip), b.end());
    dim.from_parts = mesh.parts(dim.from);
    dim.to_parts = mesh.parts(dim.to);
    dim.atoms = AtomSet::of(dim.from) | AtomSet::of(dim.to);
    changed.push_back(std::move(dim));
  }
  Moved moved{.kept = 1, .pieces = 1};
  moved.add({1, 1});
  absl::InlinedVector<bool, 4> done(changed.size(), false);
  for (size_t first = 0; first < changed.size(); ++first) {
    if (done[first]) continue;
    absl::InlinedVector<const ChangedDim*, 4> group = {&changed[first]};
    AtomSet atoms = changed[first].atoms;
    done[first] = true;
    for (size_t d = first + 1; d < changed.size(); ++d) {
      if (done[d] || (changed[d].atoms & atoms).empty()) continue;
      group.push_back(&changed[d]);
      atoms = atoms | changed[d].atoms;
      done[d] = true;
      d = first;  // what this one brought may join an earlier one
    }
    moved = both(moved, count_group(mesh, group, with_pieces));
  }
  moved.kept *= same_elements * (mesh.size() / (mesh.parts(moved.atoms) * parts));
  for (Case& c : moved.cases) c = {c.need * same_largest, c.hold * same_largest};
  if (same_largest == 0) moved.pieces = moved.foreign = 0;
  return moved;
}

int64_t busiest(const Moved& moved) {
  int64_t most = 0;
  for (const Case& c : moved.cases) most = std::max(most, c.need - c.hold);
  return most;
}

// Elements that one rank of a group of `ranks` receives in an all_reduce of n: those of a reduce_scatter of the flat
// value and of an all_gather of it.
int64_t all_reduce_elements(int64_t n, int64_t ranks, int64_t position) {
  return n + (ranks - 2) * block(n, ranks, position).size;
}

}  // namespace

int64_t received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank) {
  const int64_t ranks = mesh.parts(step.over);
  switch (step.kind) {
    case Collective::all_gather:
      return local_elements(mesh, shape, step.to, rank) - local_elements(mesh, shape, step.from, rank);
    case Collective::reduce_scatter:
      return (ranks - 1) * local_elements(mesh, shape, step.to, rank);
    case Collective::all_reduce:
      return all_reduce_elements(local_elements(mesh, shape, step.from, rank), ranks,
                                 mesh.position(rank, step.over.list()));
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange: {
      if (is_turn(step)) return local_elements(mesh, shape, step.to, rank);
      const Rect wanted = local_rect(mesh, shape, step.to, rank);
      return wanted.elements() - intersect(wanted, local_rect(mesh, shape, step.from, rank)).elements();
    }
    case Collective::slice:
    case Collective::broadcast:
    case Collective::barrier:
      return 0;
  }
  return 0;
}

int64_t all_received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step) {
  const int64_t ranks = mesh.parts(step.over);
  switch (step.kind) {
    case Collective::all_gather:
      return all_local_elements(mesh, shape, step.to) - all_local_elements(mesh, shape, step.from);
    case Collective::reduce_scatter:
      return (ranks - 1) * all_local_elements(mesh, shape, step.to);
    // The n of a group's ranks are equal and their flat blocks make n up: ranks * n + (ranks - 2) * n.
    case Collective::all_reduce:
      return all_local_elements(mesh, shape, step.from) / ranks * (2 * ranks - 2);
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      if (is_turn(step)) return all_local_elements(mesh, shape, step.to);
      return all_local_elements(mesh, shape, step.to) - count_moved(mesh, shape, step.from, step.to).kept;
    case Collective::slice:
    case Collective::broadcast:
    case Collective::barrier:
      return 0;
  }
  return 0;
}

int64_t all_received_elements(const Mesh& mesh, const Shape& shape, const std::vector<ReshardStep>& steps) {
  int64_t sum = 0;
  for (const ReshardStep& step : steps) sum += all_received_elements(mesh, shape, step);
  return sum;
}

int64_t busiest_received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step) {
  const int64_t ranks = mesh.parts(step.over);
  switch (step.kind) {
    case Collective::reduce_scatter:
      return (ranks - 1) * largest_local_elements(mesh, shape, step.to);
    // Block 0 is as large as any, and some group holds the largest value.
    case Collective::all_reduce:
      return all_reduce_elements(largest_local_elements(mesh, shape, step.from), ranks, 0);
    case Collective::all_gather:
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      if (is_turn(step)) return largest_local_elements(mesh, shape, step.to);
      return busiest(count_moved(mesh, shape, step.from, step.to));
    case Collective::slice:
    case Collective::broadcast:
    case Collective::barrier:
      return 0;
  }
  return 0;
}

int64_t most_pieces(const Mesh& mesh, const Shape& shape, const ReshardStep& step) {
  const Moved moved = count_moved(mesh, shape, step.from, step.to, true);
  return std::max(moved.pieces - 1, moved.foreign);  // of its own block a rank takes no piece
}

int64_t kept_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  return count_moved(mesh, shape, from, to).kept;
}

int64_t lower_bound_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  return busiest(count_moved(mesh, shape, from, to));
}

}  // namespace meshard
