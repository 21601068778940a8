#include "meshard/mesh/group.h"

#include <array>

#include "meshard/base/error.h"

namespace meshard {

std::string_view name(Reduction kind) {
  constexpr std::array<std::string_view, kReductions> kNames = {"sum", "max", "min"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view name(Collective kind) {
  constexpr std::array<std::string_view, 9> kNames = {"slice",          "all_gather", "all_reduce",
                                                      "reduce_scatter", "all_to_all", "permute",
                                                      "exchange",       "broadcast",  "barrier"};
  return kNames[static_cast<size_t>(kind)];
}

Group::Group(const Mesh& mesh, AtomSet over, Rank self) : over_(over) {
  MESHARD_CHECK(mesh.all().contains(over), "a group over atoms that the mesh does not have");
  const Atoms atoms = over.list();
  int64_t first = index(self);
  for (AtomId atom : atoms) first -= mesh.digit(self, atom) * mesh.stride(atom);
  // Position p of the group differs from position 0 by its digits, the last atom being the minor one.
  const int64_t size = mesh.parts(over);
  ranks_.reserve(static_cast<size_t>(size));
  for (int64_t position = 0; position < size; ++position) {
    int64_t rank = first, rest = position;
    for (size_t i = atoms.size(); i-- > 0;) {
      rank += rest % mesh.atom_size(atoms[i]) * mesh.stride(atoms[i]);
      rest /= mesh.atom_size(atoms[i]);
    }
    ranks_.push_back(Rank{static_cast<int32_t>(rank)});
  }
  self_ = static_cast<int>(mesh.position(self, atoms));
}

}  // namespace meshard
