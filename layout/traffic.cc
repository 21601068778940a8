// How many elements the steps of a reshard move: by formula where there is one, else by counting over the coordinates
// of the atoms that take part.
#include <algorithm>

#include "meshard/layout/reshard.h"

namespace meshard {
namespace {

// A dimension whose split changes. Atoms are indices into the odometer of Count.
struct ChangedDim {
  int64_t elements = 0;
  int64_t from_parts = 1, to_parts = 1;
  std::vector<int> from, to;
};

int64_t position(const std::vector<int>& atoms, const std::vector<int64_t>& sizes, const std::vector<int64_t>& digits) {
  int64_t at = 0;
  for (int a : atoms) at = at * sizes[static_cast<size_t>(a)] + digits[static_cast<size_t>(a)];
  return at;
}

struct Moved {
  int64_t kept = 0;     // elements that ranks need and hold, over all ranks
  int64_t busiest = 0;  // most that one rank needs and lacks
  int64_t pieces = 0;   // most blocks of other ranks that one rank takes from
};

// How many blocks of `parts` have elements of `wanted`.
int64_t blocks_met(Block wanted, int64_t elements, int64_t parts) {
  if (wanted.size == 0) return 0;
  const auto at = [&](int64_t e) { return static_cast<int64_t>(static_cast<__int128>(e) * parts / elements); };
  return std::min(wanted.size, at(wanted.end() - 1) - at(wanted.begin) + 1);
}

// What changes hands between two layouts of a value, pending axes taken as copies.
Moved count_moved(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  std::vector<ChangedDim> changed;
  Atoms involved;  // the atoms that the count runs over
  const auto index_of = [&](AtomId atom) {
    const auto it = std::find(involved.begin(), involved.end(), atom);
    if (it != involved.end()) return static_cast<int>(it - involved.begin());
    involved.push_back(atom);
    return static_cast<int>(involved.size()) - 1;
  };
  int64_t same_elements = 1, same_parts = 1, same_largest = 1;  // of the dimensions that stay as they are
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms &a = from.atoms(d), &b = to.atoms(d);
    if (a == b) {
      same_elements *= shape[d];
      same_parts *= mesh.parts(a);
      same_largest *= block(shape[d], mesh.parts(a), 0).size;
      continue;
    }
    // Leading atoms that both have and that split evenly make equal copies of one smaller problem.
    ChangedDim dim{.elements = shape[d]};
    size_t skip = 0;
    while (skip < a.size() && skip < b.size() && a[skip] == b[skip] && dim.elements % mesh.atom_size(a[skip]) == 0)
      dim.elements /= mesh.atom_size(a[skip++]);
    for (AtomId atom : std::span(a).subspan(skip)) dim.from.push_back(index_of(atom));
    for (AtomId atom : std::span(b).subspan(skip)) dim.to.push_back(index_of(atom));
    dim.from_parts = mesh.parts(std::span(a).subspan(skip));
    dim.to_parts = mesh.parts(std::span(b).subspan(skip));
    changed.push_back(std::move(dim));
  }

  Moved moved;
  std::vector<int64_t> sizes, digits(involved.size(), 0);
  for (AtomId atom : involved) sizes.push_back(mesh.atom_size(atom));
  const int64_t coordinates = mesh.parts(involved);
  for (int64_t i = 0; i < coordinates; ++i) {
    int64_t need = 1, hold = 1, pieces = 1;
    for (const ChangedDim& dim : changed) {
      const Block wanted = block(dim.elements, dim.to_parts, position(dim.to, sizes, digits));
      need *= wanted.size;
      pieces *= blocks_met(wanted, dim.elements, dim.from_parts);
      hold *= intersect(wanted, block(dim.elements, dim.from_parts, position(dim.from, sizes, digits))).size;
    }
    moved.kept += hold;
    moved.busiest = std::max(moved.busiest, need - hold);
    moved.pieces = std::max(moved.pieces, pieces - (hold > 0 ? 1 : 0));
    for (size_t a = digits.size(); a-- > 0;) {
      if (++digits[a] < sizes[a]) break;
      digits[a] = 0;
    }
  }
  moved.kept *= same_elements * (mesh.size() / (coordinates * same_parts));
  moved.busiest *= same_largest;
  return moved;
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
      return count_moved(mesh, shape, step.from, step.to).busiest;
    case Collective::slice:
    case Collective::broadcast:
    case Collective::barrier:
      return 0;
  }
  return 0;
}

int64_t most_pieces(const Mesh& mesh, const Shape& shape, const ReshardStep& step) {
  return count_moved(mesh, shape, step.from, step.to).pieces;
}

int64_t lower_bound_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  return count_moved(mesh, shape, from, to).busiest;
}

}  // namespace meshard
