// Layout: for each dimension of a tensor the ordered mesh axes that split it, and the axes over which its value is a
// pending reduction. One grammar serves C++ strings, plans, program text and messages:
//
//   [data, -, model]            dimension 0 split over data, 1 whole, 2 over model
//   [(data,model), -]           dimension 0 split over both, data major
//   [data, -] + sum(model)      a sum over model that is still to be done; also max, min
//   [data, ?]                   "?": open, propagation may add axes; "data?" is split and open
//   [-, model:2]                the major factor 2 of axis model;  model:(2)4 is the factor 4 below it
//   [-, model, ...]             the dimensions not written are whole (once, anywhere in the list)
//   []                          a scalar
//
// An axis named nowhere holds copies. Layouts change cost, never values.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/mesh/group.h"
#include "meshard/mesh/mesh.h"

namespace meshard {

class Scanner;

struct DimLayout {
  Atoms atoms;        // major first
  bool open = false;  // propagation may append
  bool operator==(const DimLayout&) const = default;
};

struct Layout {
  InlineVector<DimLayout, 4> dims;
  std::array<AtomSet, kReductions> pending;  // indexed by Reduction

  Layout() = default;
  explicit Layout(int rank) : dims(static_cast<size_t>(rank)) {}   // whole everywhere
  static Layout open(int rank);                                    // "?" everywhere

  // `rank` dimensions are expected; -1 takes what is written ("..." is then an error), kAnyRank too, where "..." may stand for
  // nothing. Errors at the place: unknown axis (with a suggestion), an axis used twice, wrong number of entries (layout
  // [data, model, -] has 3 entries, but block.0.up [64,256] has 2 dimensions; `tensor` is what has them).
  static constexpr int kAnyRank = -2;
  static Layout parse(Scanner& in, const Mesh& mesh, int rank, std::string_view tensor = "the tensor");
  static Layout parse(std::string_view text, const Mesh& mesh, int rank = -1, std::string_view file = "layout");
  std::string str(const Mesh& mesh) const;

  int rank() const { return static_cast<int>(dims.size()); }
  const Atoms& atoms(int d) const { return dims[static_cast<size_t>(d)].atoms; }
  AtomSet split() const;         // all atoms that split a dimension
  AtomSet pending_atoms() const; // of any kind
  bool is_pending() const { return !pending_atoms().empty(); }
  AtomSet used() const { return split() | pending_atoms(); }
  bool replicated() const { return used().empty(); }
  bool has_open() const;
  Layout without_pending() const;
  Layout closed() const;         // the same, nothing open
  AtomSet& pending_of(Reduction kind) { return pending[static_cast<size_t>(kind)]; }
  AtomSet pending_of(Reduction kind) const { return pending[static_cast<size_t>(kind)]; }
  bool operator==(const Layout&) const = default;
};

// The same layout written for `to`, a mesh with equal axis names in which the factors may be ordered otherwise.
// Requires that `to` has all parts that `layout` uses.
Layout translate(const Layout& layout, const Mesh& from, const Mesh& to);

}  // namespace meshard
