// Collectives through non-blocking MPI messages between pairs of ranks: across hosts, and as the slow twin of shared
// memory on one. Every block goes straight from its owner to its reader, so what arrives is what is billed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "meshard/collectives/pieces.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {

class Messages {
 public:
  // `comm` points to an MPI_Comm that only these messages use.
  Messages(const void* comm, const Watchdog& watchdog);
  ~Messages();

  // Returns the bytes that arrived from other ranks.
  int64_t carry_out(const CollectiveCall& call);

 private:
  struct Requests;
  // Sends and receives all pieces, of other members by message. Returns the bytes that arrived from them.
  int64_t move(const CollectiveCall& call);
  // The same with a place of its own for each member's piece, which are then put together in `out`.
  int64_t reduce(const CollectiveCall& call, std::byte* out, int64_t bytes);
  int64_t all_reduce(const CollectiveCall& call);

  const Watchdog& watchdog_;
  std::unique_ptr<Requests> requests_;
  std::vector<Piece> pieces_;
  std::vector<std::byte> staging_;  // pieces of the other members
  std::vector<const void*> parts_;  // by member
};

}  // namespace meshard
