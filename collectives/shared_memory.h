// Collectives of ranks on one host, through shared memory. A rank posts what others shall read: short blocks in slots
// of a segment that all ranks see, long ones by their address in its own memory, from which the system copies them in
// one pass where it is allowed to. The readers take them straight into their results or sums and acknowledge. All
// counters belong to a pair of ranks, so groups that overlap do not disturb each other, and nothing is set up for a
// group.
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
  static constexpr int kSlots = 4;
  static constexpr int64_t kSlotBytes = 128 << 10;  // a few of them fit in a second-level cache

  // Bytes of a rank's segment on a host with `ranks` ranks; its counters begin as zeros.
  static int64_t counter_bytes(int ranks);
  static int64_t segment_bytes(int ranks);

  // segments[i]: that of local rank i. processes[i]: its process id; empty if addresses cannot be posted.
  Channel(int self, std::vector<std::byte*> segments, std::vector<int> processes, const Watchdog& watchdog);

  bool reads_addresses() const { return !processes_.empty(); }

  // The next slot to write, when all who read its former content have acknowledged that.
  std::byte* open_slot();
  // Shows `bytes` at `offset` of the open slot to a reader. `signature` tells calls apart.
  void post(int reader, int64_t offset, int64_t bytes, uint64_t signature);
  // Shows bytes of this process; they must not change until settle() returns. Stands for the open slot too.
  void post_address(int reader, const std::byte* data, int64_t bytes, uint64_t signature);
  // Waits until all posts have been read.
  void settle();

  // A post of another rank, as it is read.
  struct Arrival {
    const std::byte* data = nullptr;  // in a slot, or at an address of the writer
    int64_t bytes = 0;
    uint64_t signature = 0;
    bool at_address = false;
  };
  Arrival fetch(int writer);     // waits for the next post of that rank
  void acknowledge(int writer);  // that what was fetched has been read
  void read_address(int writer, const std::byte* data, std::byte* to, int64_t bytes) const;

 private:
  struct Post;
  struct Acknowledged;
  Post& post_at(int writer, int reader, uint64_t sequence) const;
  Post& next_post(int reader, uint64_t& sequence);
  std::atomic<uint64_t>& acknowledged(int writer, int reader) const;
  std::byte* slots(int rank) const;
  void wait_for_readers(int slot);

  int self_, ranks_;
  std::vector<std::byte*> segments_;
  std::vector<int> processes_;
  const Watchdog& watchdog_;
  struct Reader {
    int rank;
    uint64_t sequence;
  };
  std::vector<std::vector<Reader>> readers_;  // by slot
  int slot_ = kSlots - 1;                     // the open one
  std::vector<uint64_t> posted_, fetched_;    // by rank
};

// True if this process may read the memory of that one: it tries to, at an address where `expected` lies.
bool can_read(int process, const uint64_t* address, uint64_t expected);

class SharedMemory {
 public:
  SharedMemory(const Host& host, const Board& board, std::vector<std::byte*> segments, std::vector<int> processes,
               const Watchdog& watchdog);

  // Carries out a call whose group is on this host. Returns the bytes that it read from other ranks.
  int64_t carry_out(const CollectiveCall& call);

 private:
  int64_t move(bool one_block);
  int64_t reduce();
  int64_t all_reduce();
  int64_t all_reduce_pair(int64_t bytes);
  void barrier();

  int p() const { return call_->group->size(); }
  int self() const { return call_->group->self(); }
  int local(int member) const { return host_.find((*call_->group)[member]); }
  bool by_address(const Piece& piece) const;
  void post_addresses();

  // What a member sends, as a stream of bytes, whatever posts it comes in.
  int64_t available(int member);  // bytes of the current post, after waiting for one
  const std::byte* next(int member, int64_t bytes,
                        std::byte* room);   // the next bytes, in `room` if they had to be copied
  void advance(int member, int64_t bytes);  // they have been read

  struct Source {
    Channel::Arrival arrival;
    int64_t read = 0;
    bool open = false;
  };

  const Host& host_;
  const Board& board_;
  Channel channel_;
  const CollectiveCall* call_ = nullptr;
  uint64_t signature_ = 0;
  bool posted_addresses_ = false;  // in this call
  std::vector<Piece> pieces_;
  std::vector<Source> sources_;     // by member
  std::vector<int64_t> arrived_;    // by member
  std::vector<const void*> parts_;  // by member
  std::vector<std::byte> rooms_;    // of a sum's parts that come from addresses
};

}  // namespace meshard
