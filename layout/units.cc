#include "meshard/layout/units.h"

namespace meshard {
namespace {

// Where an atom stands in a layout.
struct Standing {
  int place = -1;  // the dimension, -1 free, -2 - kind pending
  int next = -1;   // the atom behind it in the dimension; -1: none
};

std::vector<Standing> standings(const Mesh& mesh, const Layout& layout) {
  std::vector<Standing> all(static_cast<size_t>(mesh.atom_count()));
  for (int d = 0; d < layout.rank(); ++d) {
    const Atoms& atoms = layout.atoms(d);
    for (size_t i = 0; i < atoms.size(); ++i) all[atoms[i]] = {d, i + 1 < atoms.size() ? atoms[i + 1] : -1};
  }
  for (int k = 0; k < kReductions; ++k)
    for (AtomId a : layout.pending_of(static_cast<Reduction>(k)).list()) all[a].place = -2 - k;
  return all;
}

bool follows(const Standing& a, const Standing& b, AtomId id) {
  return a.place == b.place && (a.place < 0 || a.next == id);
}

}  // namespace

std::vector<Atoms> find_units(const Mesh& mesh, const Layout& from, const Layout& to, int few) {
  const std::vector<Standing> before = standings(mesh, from), after = standings(mesh, to);
  const int count = mesh.atom_count();
  // For each atom the one that comes behind it in its unit, and whether it comes behind one.
  std::vector<int> next(static_cast<size_t>(count), -1);
  std::vector<bool> led(static_cast<size_t>(count), false);
  for (AtomId a = 0; a < count && count > few; ++a) {
    const bool loose = before[a].place < 0 && after[a].place < 0;
    for (AtomId b = loose ? static_cast<AtomId>(a + 1) : AtomId{0}; b < count; ++b) {
      if (b == a || !follows(before[a], before[b], b) || !follows(after[a], after[b], b)) continue;
      next[a] = b;
      led[b] = true;
      break;
    }
  }
  std::vector<Atoms> units;
  for (AtomId first = 0; first < count; ++first) {
    if (led[first]) continue;
    Atoms unit;
    for (int a = first; a >= 0; a = next[static_cast<size_t>(a)]) unit.push_back(static_cast<AtomId>(a));
    units.push_back(std::move(unit));
  }
  return units;
}

}  // namespace meshard
