// Who sends which rectangle to whom in a step that moves elements.
#include <algorithm>

#include "meshard/layout/reshard.h"

namespace meshard {
namespace {

// The ranks that agree outside step.over. Within them a piece, one block of `from`, is held by all ranks with the same
// position along the atoms that split `from`; they differ along the others, which only hold copies.
class Exchange {
 public:
  Exchange(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank self)
      : mesh_(mesh),
        shape_(shape),
        step_(step),
        splits_((step.over & step.from.split()).list()),
        copies_((step.over - step.from.split()).list()),
        holders_(mesh.parts(copies_)) {
    const Group group(mesh, step.over, self);
    for (Rank r : group.ranks())
      members_.push_back({r, local_rect(mesh, shape, step.to, r), mesh.position(r, splits_)});
  }

  Transfer of(Rank self) const {
    Transfer result;
    const Rect wanted = local_rect(mesh_, shape_, step_.to, self), held = local_rect(mesh_, shape_, step_.from, self);
    const Group holders(mesh_, AtomSet::of(splits_), self);
    for (Rank holder : holders.ranks()) {
      const Rect piece = holder == self ? held : local_rect(mesh_, shape_, step_.from, holder);
      const Rect part = intersect(wanted, piece);
      if (part.elements() == 0) continue;
      if (holder == self) {
        result.keeps.push_back(part);
      } else {
        result.receives.push_back({sender(piece, holder, self), part});
      }
    }
    const Atoms over = step_.over.list();
    std::sort(result.receives.begin(), result.receives.end(), [&](const Piece& a, const Piece& b) {
      return mesh_.position(a.peer, over) < mesh_.position(b.peer, over);
    });

    const int64_t mine = mesh_.position(self, splits_), turn = mesh_.position(self, copies_);
    int64_t seen = 0;
    for (const Member& m : members_) {
      if (m.position == mine) continue;
      Rect part = intersect(m.wanted, held);
      if (part.elements() != 0 && seen++ % holders_ == turn) result.sends.push_back({m.rank, std::move(part)});
    }
    return result;
  }

 private:
  struct Member {
    Rank rank;
    Rect wanted;
    int64_t position;  // along splits_: which piece it holds
  };

  // Among the ranks that hold `piece`, as `holder` does, the one that sends it to `receiver`: those that need a part of
  // it and hold none take turns over the holders.
  Rank sender(const Rect& piece, Rank holder, Rank receiver) const {
    if (holders_ == 1) return holder;
    const int64_t at = mesh_.position(holder, splits_);
    int64_t seen = 0;
    for (const Member& m : members_) {
      if (m.rank == receiver) break;
      if (m.position != at && intersect(m.wanted, piece).elements() != 0) ++seen;
    }
    return Group(mesh_, AtomSet::of(copies_), holder)[static_cast<int>(seen % holders_)];
  }

  const Mesh& mesh_;
  const Shape& shape_;
  const ReshardStep& step_;
  Atoms splits_, copies_;
  int64_t holders_;  // of each piece
  std::vector<Member> members_;
};

}  // namespace

Transfer transfer(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank) {
  MESHARD_CHECK(step.kind != Collective::all_reduce && step.kind != Collective::reduce_scatter,
                "a reduction has no transfer");
  return Exchange(mesh, shape, step, rank).of(rank);
}

// Ranks of the group that need a part of what `rank` holds are found dimension by dimension: the blocks of `to` that meet the held
// block, and the ranks that have each. A rank is named by how far it is from `rank`.
Exchanged exchanged_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank) {
  const Rect held = local_rect(mesh, shape, step.from, rank), wanted = local_rect(mesh, shape, step.to, rank);
  const int64_t own = intersect(wanted, held).elements();
  Exchanged out{0, wanted.elements() - own};
  if (held.elements() == 0) return out;
  struct Part {
    int64_t away = 0, elements = 1;
  };
  std::vector<std::vector<Part>> met;
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms& atoms = step.to.atoms(d);
    const int64_t parts = mesh.parts(atoms);
    const Block mine = held.dims[static_cast<size_t>(d)];
    const auto block_of = [&](int64_t e) { return static_cast<int64_t>(static_cast<__int128>(e) * parts / shape[d]); };
    std::vector<Part>& list = met.emplace_back();
    for (int64_t i = block_of(mine.begin), last = block_of(mine.end() - 1); i <= last; ++i) {
      Part part{0, intersect(block(shape[d], parts, i), mine).size};
      bool in_group = part.elements > 0;
      int64_t left = i;
      for (size_t a = atoms.size(); a-- > 0; left /= mesh.atom_size(atoms[a])) {
        const int64_t ahead = left % mesh.atom_size(atoms[a]) - mesh.digit(rank, atoms[a]);
        in_group &= ahead == 0 || step.over.has(atoms[a]);
        part.away += ahead * mesh.stride(atoms[a]);
      }
      if (in_group) list.push_back(part);
    }
  }
  const Atoms splits = (step.over & step.from.split()).list(), copies = (step.over - step.from.split()).list();
  const AtomSet alike = step.over - step.to.split();  // ranks that differ along these need the same
  const int64_t holders = mesh.parts(copies);
  if (holders == 1) {
    int64_t all = mesh.parts(alike);
    for (const auto& list : met) {
      int64_t sum = 0;
      for (const Part& p : list) sum += p.elements;
      all *= sum;
    }
    out.sends = all - own;
    return out;
  }
  // They take turns over the holders, in the order of the group.
  std::vector<Part> ranks = {{0, 1}};
  const auto extend = [&](const std::vector<Part>& list) {
    std::vector<Part> more;
    for (const Part& r : ranks) {
      for (const Part& p : list) more.push_back({r.away + p.away, r.elements * p.elements});
    }
    ranks = std::move(more);
  };
  for (const auto& list : met) extend(list);
  for (AtomId a : alike.list()) {
    std::vector<Part> list;
    for (int64_t digit = 0; digit < mesh.atom_size(a); ++digit) list.push_back({(digit - mesh.digit(rank, a)) * mesh.stride(a), 1});
    extend(list);
  }
  std::sort(ranks.begin(), ranks.end(), [](const Part& a, const Part& b) { return a.away < b.away; });
  const int64_t mine = mesh.position(rank, splits), turn = mesh.position(rank, copies);
  int64_t seen = 0;
  for (const Part& r : ranks) {
    if (mesh.position(Rank{static_cast<int32_t>(index(rank) + r.away)}, splits) == mine) continue;
    if (seen++ % holders == turn) out.sends += r.elements;
  }
  return out;
}

}  // namespace meshard
