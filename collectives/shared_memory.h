// Collectives of ranks on one host, through shared memory. A rank posts what others shall read: short blocks in slots
// of a segment that all ranks see, long ones by their address in its own memory (process_memory.h). The readers take
// them straight into their results or sums and acknowledge. Of a long all_reduce each rank puts one block together and
// stores it in the results of all. All counters belong to a pair of ranks, so groups that overlap do not disturb each
// other, and nothing is set up for a group.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "meshard/collectives/pieces.h"
#include "meshard/collectives/process_memory.h"
#include "meshard/collectives/reduce.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {

// A stream of posts from each rank of the host to each other one. The posts of a pair arrive in order.
class Channel {
 public:
  static constexpr int kSlots = 4;
  static constexpr int64_t kSlotBytes = 128 << 10;  // a few of them fit in a second-level cache

  // Bytes of a rank's segment on a host with `ranks` ranks; its counters begin as zeros.
  static int64_t counter_bytes(int ranks);
  static int64_t segment_bytes(int ranks);

  // segments[i]: that of local rank i.
  Channel(int self, std::vector<std::byte*> segments, const Watchdog& watchdog);

  // The next slot to write, when all who read its former content have acknowledged that.
  std::byte* open_slot();
  // Shows `bytes` at `offset` of the open slot to a reader. `signature` tells calls apart.
  void post(int reader, int64_t offset, int64_t bytes, uint64_t signature);
  // Shows bytes of this process; they must not change until settle() returns. Stands for the open slot too. The reader
  // may write to `room`, if that is not null.
  void post_address(int reader, const std::byte* data, std::byte* room, int64_t bytes, uint64_t signature);
  // Waits until all posts have been read.
  void settle();
  // After settle(): bytes that the reader has written to rooms since this was asked before.
  int64_t take_written(int reader);

  // A post of another rank, as it is read.
  struct Arrival {
    const std::byte* data = nullptr;  // in a slot, or at an address of the writer
    int64_t bytes = 0;
    uint64_t signature = 0;
    bool at_address = false;
    std::byte* room = nullptr;
  };
  Arrival fetch(int writer);  // waits for the next post of that rank
  // That what was fetched has been read, and that `written` bytes are in its room.
  void acknowledge(int writer, int64_t written = 0);

 private:
  struct Post;
  struct Acknowledged;
  Post& post_at(int writer, int reader, uint64_t sequence) const;
  Post& next_post(int reader, uint64_t& sequence);
  Acknowledged& acknowledged(int writer, int reader) const;
  std::byte* slots(int rank) const;
  void wait_for_readers(int slot);

  int self_, ranks_;
  std::vector<std::byte*> segments_;
  const Watchdog& watchdog_;
  struct Reader {
    int rank;
    uint64_t sequence;
  };
  std::vector<std::vector<Reader>> readers_;  // by slot
  int slot_ = kSlots - 1;                     // the open one
  std::vector<uint64_t> posted_, fetched_;    // by rank
  std::vector<int64_t> counted_;              // bytes written by each rank
};

class SharedMemory {
 public:
  // `memory` of the other ranks; null: no addresses are posted.
  SharedMemory(const Host& host, const Board& board, std::vector<std::byte*> segments,
               std::unique_ptr<ProcessMemory> memory, const Watchdog& watchdog);

  // Carries out a call whose group is on this host. Returns the bytes that came from other ranks.
  int64_t carry_out(const CollectiveCall& call);

  // A part of a call, between those members of its group that are on this host, with a piece for each of them.
  // `one_block`: each sends the same bytes to all others that it sends to. reduce: the pieces of all are put together at
  // the own one's place. `phase` tells parts of a call apart.
  int64_t move(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces, bool one_block,
               int phase);
  int64_t reduce(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces, int phase);
  void barrier(const CollectiveCall& call, const Members& members);

 private:
  void enter(const CollectiveCall& call, const Members& members, int phase);
  void leave();
  int64_t move(bool one_block);
  int64_t reduce();
  int64_t all_reduce();
  int64_t all_reduce_pair(int64_t bytes);
  int64_t all_reduce_blocks(int64_t bytes);
  void barrier();

  int p() const { return members_.size(); }
  int self() const { return members_.self; }
  int local(int member) const { return host_.find(members_[member]); }
  bool by_address(const Piece& piece) const;
  void post_addresses();
  void post_address(int member, const std::byte* data, std::byte* room, int64_t bytes);

  // What a member sends, as a stream of bytes, whatever posts it comes in.
  int64_t available(int member);  // bytes of the current post, after waiting for one
  const std::byte* next(int member, int64_t bytes,
                        std::byte* room);   // the next bytes, in `room` if they had to be copied
  void advance(int member, int64_t bytes, int64_t written = 0);  // they have been read

  struct Source {
    Channel::Arrival arrival;
    int64_t read = 0;
    bool open = false;
  };

  const Host& host_;
  const Board& board_;
  Channel channel_;
  std::unique_ptr<ProcessMemory> memory_;
  const CollectiveCall* call_ = nullptr;
  Members members_;
  uint64_t signature_ = 0;
  bool posted_addresses_ = false;  // in this call
  std::vector<Piece> pieces_;
  std::vector<Source> sources_;     // by member
  std::vector<int64_t> arrived_;    // by member
  std::vector<const void*> parts_;  // by member
  std::vector<std::byte> rooms_;    // of a sum's parts that come from addresses
};

}  // namespace meshard
