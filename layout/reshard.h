// Reshard planner: the steps that change one layout of a tensor into another, each one collective (or a free slice), and
// exactly which bytes each device receives in it. What is planned here is what is billed, explained and run.
//
//   auto steps = plan_reshard(mesh, Type::parse("f32[8,4]"), from, to);
//   for (const ReshardStep& s : steps) total += received_bytes(mesh, type, s, rank);
//
// Bytes are received ones, whole numbers: all_gather n - own block; reduce_scatter (p - 1) own block; all_reduce both of
// them over the flat local value, n + (p - 2) own; all_to_all, permute and exchange what arrives.
#pragma once

#include "meshard/base/shape.h"
#include "meshard/layout/block.h"
#include "meshard/layout/layout.h"

namespace meshard {

struct ReshardStep {
  Collective kind = Collective::slice;
  AtomSet over;                            // the ranks that differ along these talk; for slice, the atoms that begin to split
  Reduction reduction = Reduction::sum;    // of all_reduce and reduce_scatter
  Layout from, to;
  bool operator==(const ReshardStep&) const = default;
};

// Why `from` cannot become `to` ("" if it can): a new pending sum can't be made of a whole value (that takes an add), and
// a pending sum cannot turn into a pending max.
std::string reshard_obstacle(const Mesh& mesh, const Layout& from, const Layout& to);

// Right for every pair that reshard_obstacle allows: uneven, sub-axes, moved axes, pending sums. Slices first, reduces what
// is left (scattering where the target is split by the pending axes), gathers last; where one all_gather, all_to_all or
// permute does not do it, one exchange between pairs does.
std::vector<ReshardStep> plan_reshard(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to);

// The single step from -> to classified (kind and over), if one collective of the list does it; used by the verifier.
bool step_fits(const Mesh& mesh, const ReshardStep& step);

// Elements that `rank` receives in a step; and the sum over all ranks (closed forms where there are, so that meshes of
// 16,384 devices cost little).
int64_t received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank);
int64_t all_received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step);
int64_t all_received_elements(const Mesh& mesh, const Shape& shape, const std::vector<ReshardStep>& steps);
// The largest over the ranks.
int64_t busiest_received_elements(const Mesh& mesh, const Shape& shape, const ReshardStep& step);
// Least elements that the busiest rank must receive for from -> to without reductions: what it needs and does not hold.
int64_t lower_bound_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to);

// What `rank` exchanges with whom in an all_gather, all_to_all, permute or exchange: rectangles in global indices. A rank
// takes what it holds itself from itself; among several holders of a piece, one sender is chosen by a fixed rule that
// spreads the load, the same on all ranks.
struct Piece {
  Rank peer;
  Rect part;
};
struct Transfer {
  std::vector<Piece> sends, receives;  // both sorted by (position of the peer in the group, place of the piece); never to or from self
  std::vector<Rect> keeps;             // what stays on this rank
};
Transfer transfer(const Mesh& mesh, const Shape& shape, const ReshardStep& step, Rank rank);

}  // namespace meshard
