// Collectives through messages between pairs of ranks: the way between hosts, and the slow twin of shared memory on one.
// Every block goes straight from its owner to its reader, so what arrives is what is billed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "meshard/collectives/network.h"
#include "meshard/collectives/pieces.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {

class Messages {
 public:
  Messages(std::unique_ptr<Network> network, const Host& host, const Watchdog& watchdog);

  // Returns the bytes that arrived from other ranks.
  int64_t carry_out(const CollectiveCall& call);

  // The parts of a call, between some members of its group, one piece for each of them. move: begin and finish.
  void begin(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces);
  int64_t finish();
  int64_t move(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces);
  // Puts the pieces of all members together at the own one's place.
  int64_t reduce(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces);

  // Bytes that arrived from ranks of other hosts, since the start.
  int64_t from_other_hosts() const { return from_other_hosts_; }

 private:
  std::unique_ptr<Network> network_;
  const Host& host_;
  const Watchdog& watchdog_;
  const CollectiveCall* call_ = nullptr;  // that is begun
  int64_t expected_ = 0, expected_from_others_ = 0;
  int64_t from_other_hosts_ = 0;
  std::vector<Piece> pieces_, staged_;
  std::vector<std::byte> staging_;  // pieces of the other members
  std::vector<const void*> parts_;  // by member
};

}  // namespace meshard
