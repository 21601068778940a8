// Pieces: how a call lies in memory, seen from one member: what it sends to each member and what it gets from each. The
// backends share this, so that they move the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "meshard/collectives/communicator.h"

namespace meshard {

// Between this member and another one (or itself: a local copy). In a reduction all `receive` are the same place: the
// pieces of all members are put together there.
struct Piece {
  const std::byte* send = nullptr;
  int64_t send_bytes = 0;
  std::byte* receive = nullptr;
  int64_t receive_bytes = 0;
};

// Those who take part in a call or in a phase of it, and which of them this rank is.
struct Members {
  std::span<const Rank> ranks;
  int self = 0;

  int size() const { return static_cast<int>(ranks.size()); }
  Rank operator[](int m) const { return ranks[static_cast<size_t>(m)]; }
};
inline Members members_of(const Group& group) { return {group.ranks(), group.self()}; }

// InternalError unless the call is complete: a group, as many counts as members, none negative, pointers where there
// are bytes.
void check_call(const CollectiveCall& call);

// One piece for each member, in group order; `pieces` is reused. Not for all_reduce, which is a reduce_scatter and an
// all_gather of its blocks, nor for slice, which moves nothing.
void find_pieces(const CollectiveCall& call, std::vector<Piece>& pieces);

// The two halves of an all_reduce of `elements` between p members, over the blocks of the flat value: what is put
// together, then what is gathered.
void find_blocks_to_reduce(int p, int self, const void* send, void* receive, int64_t elements, int64_t element_bytes,
                           std::vector<Piece>& pieces);
void find_blocks_to_gather(int p, int self, void* receive, int64_t elements, int64_t element_bytes,
                           std::vector<Piece>& pieces);
// Of a call between all members of its group.
void find_blocks_to_reduce(const CollectiveCall& call, std::vector<Piece>& pieces);
void find_blocks_to_gather(const CollectiveCall& call, std::vector<Piece>& pieces);

// True if every member gets the same bytes from this one (all_gather, broadcast): a backend needs one copy of them
// only.
bool sends_one_block(Collective kind);

// "all_gather f32 (block.7.down)", for messages.
std::string call_text(const CollectiveCall& call);

}  // namespace meshard
