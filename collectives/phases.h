// Phases: calls of a group that lies on several hosts, as many ranks on each. A rank's place is its number among the
// members of its host; ranks of one place are peers. What all ranks of a host need crosses between hosts once, in as
// many parts as a host has ranks, each between peers, so that all links are used:
//
//   all_reduce      k parts of the value put together within each host, each all-reduced between peers, gathered within
//   reduce_scatter  within each host for every host in turn, then between peers
//   all_gather      between peers, then within each host
//   broadcast       parts from the root to its host's ranks, to their peers, gathered within
//   all_to_all, permute, exchange   within a host by shared memory, while blocks for others travel to their readers
//
// Sums are made within hosts first, then over the hosts, both in the order of the group: the same bits on all ranks and
// in every run, but not those that the ranks would get on one host.
#pragma once

#include <cstdint>
#include <vector>

#include "meshard/collectives/messages.h"
#include "meshard/collectives/pieces.h"
#include "meshard/collectives/shared_memory.h"

namespace meshard {

class Phases {
 public:
  Phases(const Host& host, SharedMemory& shared, Messages& messages)
      : host_(host), shared_(shared), messages_(messages) {}

  // Whether a call of this kind between these members goes in phases: they are on several hosts, at least two of them
  // on this rank's, and, unless only pieces change place, as many on each. The same answer on all members: `kind` of
  // calls that change places asks for two members on any host.
  bool takes(Collective kind, const Group& group);

  // Returns the bytes of the formula (docs/ARCHITECTURE.md, "Cost"), after each phase brought what its own formula says.
  int64_t carry_out(const CollectiveCall& call);

 private:
  void find_places(const Group& group);
  int member(int host, int place) const { return places_[static_cast<size_t>(host)][static_cast<size_t>(place)]; }
  int hosts() const { return static_cast<int>(places_.size()); }
  int per_host() const { return static_cast<int>(places_[static_cast<size_t>(mine_)].size()); }

  int64_t all_reduce();
  int64_t reduce_scatter();
  int64_t all_gather();
  int64_t broadcast();
  int64_t change_places();

  const Host& host_;
  SharedMemory& shared_;
  Messages& messages_;
  const CollectiveCall* call_ = nullptr;
  std::vector<std::vector<int>> places_;  // by host of the group, in order of their first members: members on it
  std::vector<int> host_numbers_;         // of places_
  int mine_ = 0, place_ = 0;              // this rank's host and place
  Members here_, peers_;
  std::vector<Rank> here_ranks_, peer_ranks_;
  std::vector<Piece> pieces_, here_pieces_;
  std::vector<int64_t> begins_;  // bytes, by member
  Buffer scratch_;               // sums of this host for the peers
};

}  // namespace meshard
