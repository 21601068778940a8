// Reshard planner: the steps that change one layout of a tensor into another, each one collective (or a free slice),
// and exactly which bytes each device receives in it. What is planned here is what is billed, explained and run.
//
//   auto steps = plan_reshard(mesh, {8, 4}, from, to);
//   for (const ReshardStep& s : steps) total += received_elements(mesh, {8, 4}, s, rank);
//
// Bytes are received ones, whole numbers: all_gather n - own block; reduce_scatter (p - 1) own block; all_reduce both
// of them over the flat local value, n + (p - 2) own; all_to_all, permute and exchange what arrives.
#pragma once

#include "meshard/base/shape.h"
#include "meshard/layout/block.h"
#include "meshard/layout/layout.h"

namespace meshard {

struct ReshardStep {
  Collective kind = Collective::slice;
  AtomSet over;  // the ranks that differ along these talk; for slice, the atoms that begin to split
                 // (reduce_scatter may slice by further atoms in the same step: they are not in over)
  Reduction reduction = Reduction::sum;  // of all_reduce and reduce_scatter
  Layout from, to;
  bool operator==(const ReshardStep&) const = default;
};

// A permute between equal layouts changes no layout but the value: along the axes of `over`, which stand one after the
// other in a dimension, each rank gets the block of the one before it, and the first that of the last. Blocks are even.
// No plan has one; products that are made block by block do (sharding/optimize/ring.cc).
bool is_turn(const ReshardStep& step);

// The step that a collective op is: `reduction` follows from what stops being pending.
ReshardStep step_of(Collective kind, AtomSet over, const Layout& from, const Layout& to);

// The atoms that stand elsewhere in the split lists of `to` than in those of `from`: for each dimension those behind
// what the two lists begin with in common.
AtomSet moved_atoms(const Layout& from, const Layout& to);

// Why `from` cannot become `to` ("" if it can): a new pending sum can't be made of a whole value (that takes an add),
// and a pending sum cannot turn into a pending max. Where a value is pending in several ways, sums come first, then
// max, then min: a max cannot be done while a sum stays.
std::string reshard_obstacle(const Mesh& mesh, const Layout& from, const Layout& to);

struct CostModel;

struct ReshardOptions {
  bool exchange = true;              // whether an exchange is a step
  bool search = true;                // false: by rule alone, in microseconds; where the rules do not reach the least, not the cheapest
  const CostModel* model = nullptr;  // set: the least estimated time (layout/cost.h), of the cheapest steps with and
                                     // without an exchange; else the fewest bytes
  int64_t element_bytes = 4;         // for the estimate
};

// The steps that receive the fewest elements over all ranks; among those, few steps. The last step's `to` is the `to`
// asked for, closed; no step where nothing changes. Right for every pair that reshard_obstacle allows (UserError for the
// others): uneven, sub-axes, moved axes, pending sums. Without a reduction every rank receives what it needs and lacks,
// and no more: one all_gather, all_to_all or permute where that does it, else one exchange between pairs.
//
// A reduction is made on as small a part as the free axes allow: the value is sliced first, scattered where the target
// is split by the pending axes, and gathered last. Where the axes stand in each other's way the places to scatter to are
// searched (layout/shortest.h); on very large meshes on which many axes go separate ways the search ends early, and
// the steps are right but may not be the cheapest.
std::vector<ReshardStep> plan_reshard(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to,
                                      const ReshardOptions& options = {});

// Whether the one collective step.kind over step.over (and step.reduction) makes step.to of step.from; used by the
// verifier.
bool step_fits(const Mesh& mesh, const ReshardStep& step);

// Elements that `rank` receives in a step; and the sum over all ranks (closed forms where there are, so that meshes of
// 16,384 devices cost little).
int64_t received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank);
int64_t all_received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step);
int64_t all_received_elements(const Mesh& mesh, const Shape& shape, const std::vector<ReshardStep>& steps);
// The largest over the ranks.
int64_t busiest_received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step);
// The most pieces that one rank takes from other ranks in an all_to_all, permute or exchange.
int64_t most_pieces(const Mesh& mesh, const Shape& shape, const ReshardStep& step);
// Elements that ranks need of `to` and hold of `from`, over all ranks, pending axes taken as copies.
int64_t kept_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to);
// Least elements that the busiest rank must receive for from -> to without reductions: what it needs and does not hold.
// Pending axes count as copies.
int64_t lower_bound_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to);

// What `rank` exchanges with whom in an all_gather, all_to_all, permute or exchange: rectangles in global indices. A
// rank takes what it holds itself from itself; who else needs a piece that several ranks hold takes turns over them, in
// the order of the group, so that each sends about as often as the next. A slice only keeps.
struct Piece {
  Rank peer;
  Rect part;
};
struct Transfer {
  // Never to or from self; both sorted by the position of the peer in the group. A peer has one piece at most.
  std::vector<Piece> sends, receives;
  std::vector<Rect> keeps;  // what stays on this rank
};
Transfer transfer(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank);
// Elements of its sends and of its receives, without visiting those who need nothing of `rank`.
struct Exchanged {
  int64_t sends = 0, receives = 0;
};
Exchanged exchanged_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank);

}  // namespace meshard
