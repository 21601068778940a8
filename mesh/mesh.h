// Mesh: the devices of a job as a grid with named axes. A mesh is virtual: 16,384 devices are planned in one process.
//
//   Mesh mesh = Mesh::parse("data=2, model=4");
//   mesh.size() == 8;  mesh.rank({1, 3}) == 7;  mesh.coordinate(Rank{7}) == {1, 3}
//
// Ranks count row-major: the last axis varies fastest. Inside, each axis is split into its prime factors, its atoms,
// major first, numbered over the whole mesh; a layout is lists of atoms, so "model:2" of an 8-way axis is an ordinary
// list. The order of an axis's factors is one per mesh: with_cuts() fixes it from what the layouts of a program name.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/error.h"
#include "meshard/base/inline_vector.h"

namespace meshard {

class Scanner;

enum class Rank : int32_t {};
constexpr int64_t index(Rank r) { return static_cast<int64_t>(r); }

using AtomId = uint8_t;
using Atoms = FixedVector<AtomId, 24>;  // ordered, major first; 2^24 devices have no more

// A set of atoms of one mesh.
struct AtomSet {
  uint64_t bits = 0;

  static AtomSet of(std::span<const AtomId> atoms);
  bool has(AtomId a) const { return bits >> a & 1; }
  void add(AtomId a) { bits |= uint64_t{1} << a; }
  bool empty() const { return bits == 0; }
  int size() const { return std::popcount(bits); }
  Atoms list() const;  // ascending, which is mesh order
  AtomSet operator|(AtomSet o) const { return {bits | o.bits}; }
  AtomSet operator&(AtomSet o) const { return {bits & o.bits}; }
  AtomSet operator-(AtomSet o) const { return {bits & ~o.bits}; }
  bool contains(AtomSet o) const { return (o.bits & ~bits) == 0; }
  bool operator==(const AtomSet&) const = default;
};

struct Axis {
  std::string name;
  int64_t size = 1;
  Atoms atoms;  // major first; empty for size 1
};

// That a text names a part of an axis: `at` is the product of the factors before the cut ("model:2" cuts at 2).
struct AxisCut {
  std::string axis;
  int64_t at = 1;
  Place place;
};

// A part of an axis as a text names it: the factors from one cut to another, 1 and the axis's size for the whole axis. An axis
// of size 1 has no atoms, yet its name must not stand twice in a layout: so texts are compared as parts, not as atoms.
struct AxisPart {
  const Axis* axis = nullptr;
  int64_t from = 1, to = 1;
  Place place;

  bool overlaps(const AxisPart& other) const;
  std::string str() const;  // "model", "model:2", "model:(2)4"
};

class Mesh {
 public:
  Mesh() = default;  // one device, no axes

  // "data=2, model=4"; "" is one device. Errors: a name twice, a size below 1, more than 2^24 devices or 64 axes.
  static Mesh parse(std::string_view text, std::string_view file = "mesh");
  static Mesh parse(Scanner& in);  // up to the end of the line

  std::string str() const;  // "data=2, model=4"
  bool operator==(const Mesh& other) const;

  std::span<const Axis> axes() const { return axes_; }
  const Axis* find(std::string_view name) const;  // nullptr: there is none
  // The axis, or UserError at `place`: no axis "modle" in mesh data=2, model=4; did you mean "model"?
  const Axis& axis(std::string_view name, const Place& place) const;

  int64_t size() const { return size_; }  // devices
  int atom_count() const { return static_cast<int>(atom_sizes_.size()); }
  int64_t atom_size(AtomId atom) const { return atom_sizes_[atom]; }
  const Axis& axis_of(AtomId atom) const { return axes_[static_cast<size_t>(atom_axis_[atom])]; }
  int64_t parts(std::span<const AtomId> atoms) const;  // product of their sizes
  int64_t parts(AtomSet atoms) const;
  AtomSet all() const;

  std::vector<int64_t> coordinate(Rank rank) const;  // one entry per axis
  Rank rank(std::span<const int64_t> coordinate) const;
  std::string coordinate_text(Rank rank) const;      // "data=0, model=3"
  // Position of `rank` along the atoms, taken major first: 0 .. parts(atoms) - 1.
  int64_t position(Rank rank, std::span<const AtomId> atoms) const;
  int64_t digit(Rank rank, AtomId atom) const { return index(rank) / atom_stride_[atom] % atom_sizes_[atom]; }
  int64_t stride(AtomId atom) const { return atom_stride_[atom]; }

  // The same mesh with the factors of its axes in an order that has every cut; cuts of one axis must divide one another,
  // else UserError naming both places ("model:2" and "model:3" of a 6-way axis would both lead).
  Mesh with_cuts(std::span<const AxisCut> cuts) const;

  // Atoms as text: whole axes by name, parts as "model:2" or "model:(2)4"; several in parentheses: "(data,model)".
  std::string atoms_text(std::span<const AtomId> atoms) const;
  std::string atoms_text(AtomSet atoms) const { return atoms_text(atoms.list()); }
  // Parses what atoms_text prints, with or without parentheses around one axis. Errors: unknown axis, a part that does
  // not divide, an axis twice (also twice with what `used` holds, to which the parts are added).
  Atoms parse_atoms(Scanner& in, std::vector<AxisPart>* used = nullptr) const;

 private:
  AxisPart parse_part(Scanner& in) const;
  AxisPart parse_part(Scanner& in, const Axis& axis, const Place& place) const;  // what follows "model:"
  Atoms atoms_of(const AxisPart& part) const;
  void set_factors(const std::vector<std::vector<int64_t>>& factors);  // one list per axis
  friend std::vector<AxisCut> find_cuts(std::string_view text, std::string_view file, const Mesh& mesh);

  std::vector<Axis> axes_;
  std::vector<int64_t> atom_sizes_, atom_stride_;
  std::vector<int> atom_axis_;
  int64_t size_ = 1;
};

// The axis parts a text names ("model:2", "model:(2)4"), found by a scan for NAME:INTEGER and NAME:(INTEGER)INTEGER with the
// name of an axis of the mesh. A part that does not divide its axis is an error; one of an axis of size 1 is nothing.
std::vector<AxisCut> find_cuts(std::string_view text, std::string_view file, const Mesh& mesh);

}  // namespace meshard
