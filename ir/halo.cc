#include "meshard/ir/halo.h"

#include <fmt/format.h>

#include <algorithm>

#include "meshard/base/error.h"

namespace meshard {

HaloFetch::HaloFetch(const Mesh& mesh, const OpDef& def, const Attributes& attributes, const BoundRule& rule,
                     std::span<const Type> operands, const FactorAtoms& atoms, int operand)
    : mesh_(mesh),
      def_(def),
      attributes_(attributes),
      rule_(rule),
      operands_(operands),
      atoms_(atoms),
      operand_(operand),
      layout_(layout_from_factors(rule.operands[static_cast<size_t>(operand)], atoms)) {
  for (const BoundRule::Halo& h : rule.halos) {
    if (h.operand == operand) over_ = over_ | AtomSet::of(atoms[static_cast<size_t>(h.factor)]);
  }
}

Rect HaloFetch::held(Rank rank) const { return local_rect(mesh_, shape(), layout_, rank); }

Rect HaloFetch::wanted(Rank rank) const {
  Rect rect = held(rank);
  for (const BoundRule::Halo& h : rule_.halos) {
    if (h.operand != operand_) continue;
    const Atoms& atoms = atoms_[static_cast<size_t>(h.factor)];
    const int64_t size = rule_.factors[static_cast<size_t>(h.factor)].size;
    const Block mine = block(size, mesh_.parts(atoms), mesh_.position(rank, atoms));
    Block& range = rect.dims[static_cast<size_t>(h.dim)];
    // Where nothing is split the op is given all there is, as when it runs whole.
    if (atoms.empty()) continue;
    range = mine.size == 0 ? Block{} : def_.reach({attributes_, operands_, operand_, h.dim, size, mine});
    MESHARD_CHECK(range.size >= 0 && range.size <= shape()[h.dim], fmt::format("{} reaches for more than there is", def_.name));
  }
  return rect;
}

// What of the reader's range the holder has: in each dimension its block, also where the range lies before or behind the
// ends.
std::vector<HaloPiece> HaloFetch::pieces(Rank holder, Rank reader) const {
  const Rect have = held(holder), want = wanted(reader);
  std::vector<HaloPiece> out{{holder, {}, {}}};
  for (size_t d = 0; d < want.dims.size(); ++d) {
    const int64_t extent = shape().dims[d];
    std::vector<HaloPiece> longer;
    for (const int64_t turn : {-extent, int64_t{0}, extent}) {
      const Block shifted{have.dims[d].begin + turn, have.dims[d].size};
      const Block common = intersect(shifted, want.dims[d]);
      if (common.size == 0) continue;
      for (HaloPiece piece : out) {
        piece.part.dims.push_back({common.begin - turn, common.size});
        piece.wanted.dims.push_back(common);
        longer.push_back(std::move(piece));
      }
      if (extent == 0) break;
    }
    out = std::move(longer);
  }
  return out;
}

HaloTransfer HaloFetch::transfer(Rank self) const {
  HaloTransfer out;
  const Group group(mesh_, over_, self);
  for (Rank peer : group.ranks()) {
    for (HaloPiece& piece : pieces(peer, self)) (peer == self ? out.keeps : out.receives).push_back(std::move(piece));
    if (peer == self) continue;
    for (HaloPiece& piece : pieces(self, peer)) {
      piece.peer = peer;
      out.sends.push_back(std::move(piece));
    }
  }
  return out;
}

bool HaloFetch::moves() const {
  if (!needed()) return false;
  const Group kinds(mesh_, along(), Rank{0});  // one device of each
  return std::any_of(kinds.ranks().begin(), kinds.ranks().end(), [&](Rank r) { return received_elements(r) > 0; });
}

int64_t HaloFetch::received_elements(Rank self) const {
  int64_t kept = 0;
  for (const HaloPiece& piece : pieces(self, self)) kept += piece.part.elements();
  return wanted(self).elements() - kept;
}

PlacedOp::PlacedOp(const Mesh& mesh, const Function& function, const Op& op) : mesh_(mesh), op_(op) {
  std::vector<Type> results;
  std::vector<Layout> operand_layouts, result_layouts;
  for (ValueId v : op.operands) {
    operands_.push_back(function.value(v).type);
    operand_layouts.push_back(*function.value(v).layout);
  }
  for (ValueId v : op.results) {
    results.push_back(function.value(v).type);
    result_layouts.push_back(*function.value(v).layout);
  }
  rule_ = bind_rule(*op.def, op.attributes, operands_, results, op.source);
  std::string why;
  auto split = find_split(mesh, *op.def, rule_, operand_layouts, result_layouts, &why);
  if (!split) throw InternalError(std::string(op.def->name) + ": " + why);
  atoms_ = std::move(split->atoms);
}

HaloFetch PlacedOp::fetch(int operand) const {
  return HaloFetch(mesh_, *op_.def, op_.attributes, rule_, operands_, atoms_, operand);
}

int64_t halo_elements(const Mesh& mesh, const OpDef& def, const Attributes& attributes, const BoundRule& rule,
                      std::span<const Type> operands, const FactorAtoms& atoms, int operand) {
  const HaloFetch fetch(mesh, def, attributes, rule, operands, atoms, operand);
  if (!fetch.needed()) return 0;
  int64_t total = 0;
  const Group group(mesh, fetch.along(), Rank{0});
  for (Rank r : group.ranks()) total += fetch.received_elements(r);
  return total * (mesh.size() / mesh.parts(fetch.along()));
}

}  // namespace meshard
