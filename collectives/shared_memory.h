// Collectives of ranks on one host, through shared memory. A rank writes what others shall read into slots of its own segment
// and posts each slot to its readers; they read it there, straight into their results or sums, and acknowledge it. All
// counters belong to a pair of ranks, so groups that overlap do not disturb each other, and nothing is set up for a group.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "meshard/collectives/pieces.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {

// A stream of posts from each rank of the host to each other one. The posts of a pair arrive in order.
class Channel {
 public:
  // A large enough number of slots lets ranks that share a core run ahead of each other; small enough slots stay in the
  // second-level cache from writing to reading.
  static constexpr int kSlots = 4;
  static constexpr int64_t kSlotBytes = 256 << 10;

  // Bytes of a rank's part on a host with `ranks` ranks, a multiple of 64; the counters begin as zeros.
  static int64_t counter_bytes(int ranks);
  static int64_t slot_bytes() { return kSlots * kSlotBytes; }

  // counters[i] and slots[i]: the parts of rank i.
  Channel(int self, std::vector<std::byte*> counters, std::vector<std::byte*> slots, const Watchdog& watchdog);

  // The next slot to write, when all who read its former content have acknowledged that.
  std::byte* open_slot();
  // Shows `bytes` at `offset` of the open slot to a reader. `signature` tells calls apart.
  void post(int reader, int64_t offset, int64_t bytes, uint64_t signature);

  struct Arrival {
    const std::byte* data;
    int64_t bytes;
    uint64_t signature;
  };
  Arrival fetch(int writer);       // waits for the next post of that rank
  void acknowledge(int writer);    // that what was fetched has been read

 private:
  struct Post;
  struct Acknowledged;
  Post& post_at(int writer, int reader, uint64_t sequence) const;
  std::atomic<uint64_t>& acknowledged(int writer, int reader) const;

  int self_, ranks_;
  std::vector<std::byte*> counters_, slots_;
  const Watchdog& watchdog_;
  struct Reader {
    int rank;
    uint64_t sequence;
  };
  std::vector<std::vector<Reader>> readers_;  // by slot
  int slot_ = kSlots - 1;                     // the open one
  std::vector<uint64_t> posted_, fetched_;    // by rank
};

class SharedMemory {
 public:
  // Bytes of a rank's segment, which begins as zeros.
  static int64_t segment_bytes(int ranks);
  SharedMemory(const Host& host, const Board& board, std::vector<std::byte*> segments, const Watchdog& watchdog);

  // Carries out a call whose group is on this host. Returns the bytes that it read from others' segments.
  int64_t carry_out(const CollectiveCall& call);

 private:
  int64_t move(bool one_block);
  int64_t reduce_scatter();
  int64_t all_reduce();
  int64_t all_reduce_pair();
  void barrier();

  int p() const { return call_->group->size(); }
  int self() const { return call_->group->self(); }
  int local(int member) const { return host_.find((*call_->group)[member]); }
  const std::byte* fetch(Channel& channel, int member, int64_t& bytes);
  // Puts the blocks of all members together: `own` of this one, of the others what comes through `blocks_`.
  void reduce_arrivals(std::byte* out, const std::byte* own, int64_t bytes);

  const Host& host_;
  const Board& board_;
  Channel blocks_, results_;  // two, so that blocks sent ahead never stand before results
  const CollectiveCall* call_ = nullptr;
  uint64_t signature_ = 0;
  std::vector<Piece> pieces_;
  std::vector<int64_t> arrived_;    // by member
  std::vector<const void*> parts_;  // by member
};

}  // namespace meshard
