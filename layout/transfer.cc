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

}  // namespace meshard
