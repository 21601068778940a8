// Communicator: how ranks talk. A small abstract class with one queue of calls; behind it lockstep (all devices in one
// process), MPI and NCCL. Counts are per rank, so uneven blocks are native. Each call is started and waited for:
//
//   Ticket t = comm.start({.kind = Collective::all_reduce, .group = &g, .send = x, .receive = x, .send_elements = n});
//   ... work ...
//   comm.wait(t);
//
// All members of a group start the same calls in the same order. Between start and wait nobody touches `receive`, and
// nobody writes `send`. Blocks of a call are contiguous, one after another in the order of the group.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/mesh/group.h"

namespace meshard {

// One collective call. The arrays behind the spans live until wait(); executors make them once, at compile time.
//   all_reduce      send, receive: send_elements each; send == receive allowed
//   all_gather      send: counts[self]; receive: sum of counts, member by member
//   reduce_scatter  send: sum of counts, the block of each member in order; receive: counts[self]
//   all_to_all      send: send_counts[i] elements for member i, in order; receive: counts[i] from member i
//   permute, exchange: the same with most counts zero
//   broadcast       send on member 0, receive on all others; send_elements
struct CollectiveCall {
  Collective kind = Collective::barrier;
  Reduction reduction = Reduction::sum;
  const Group* group = nullptr;
  Dtype dtype = Dtype::f32;
  const void* send = nullptr;
  void* receive = nullptr;
  int64_t send_elements = 0;  // all_reduce, broadcast
  // Per member: what arrives from it (all_gather, all_to_all) or is kept by it (reduce_scatter).
  std::span<const int64_t> counts;
  std::span<const int64_t> send_counts;  // all_to_all, permute, exchange
  std::string_view label;                // the value's name, for records and messages; lives until wait() too
};

// Bytes this rank receives in the call, as section "Cost" of docs/ARCHITECTURE.md defines them.
int64_t received_bytes(const CollectiveCall& call);

// First element of block i when `elements` are cut into `parts`: ceil(i * elements / parts). An all_reduce is a
// reduce_scatter into these blocks of the flat value and an all_gather of them.
int64_t block_begin(int64_t elements, int parts, int i);

using Ticket = int64_t;  // the number of the call on its rank, from 0

// One entry of the record of calls.
struct CallRecord {
  int64_t number = 0;
  Collective kind = Collective::barrier;
  AtomSet over;
  int64_t bytes = 0;  // received
  bool done = false;
  char label[64] = {};
};

// A ring of the last calls of one rank; adds no allocation per call.
class CallLog {
 public:
  explicit CallLog(size_t capacity = 256) : ring_(capacity) {}
  int64_t begin(const CollectiveCall& call);  // number of the call
  void end(int64_t number);
  const CallRecord* find(int64_t number) const;  // nullptr: not in the ring any more, or not yet
  int64_t calls() const { return next_; }
  int64_t bytes() const { return bytes_; }       // received in all, since the start
  std::vector<CallRecord> last(size_t n) const;  // oldest first

 private:
  std::vector<CallRecord> ring_;
  int64_t next_ = 0, bytes_ = 0;
};

// What went between hosts, since the start.
struct HostTraffic {
  int hosts = 1;
  int ranks_here = 1;     // on this rank's host
  int64_t received = 0;   // bytes from ranks of other hosts, counted on arrival
  int64_t in_phases = 0;  // calls over groups on several hosts (collectives/phases.h)
  int64_t flat = 0;       // those that went as messages between all pairs of ranks
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int size() const = 0;
  virtual Rank rank() const = 0;
  virtual std::string_view kind() const = 0;  // "lockstep", "mpi", "tcp", "nccl", "staged"

  // Says that calls over this group will come. All ranks say the same axes in the same order, before the first call.
  virtual void prepare(const Group&) {}
  virtual Ticket start(const CollectiveCall& call) = 0;
  // Waiting twice for a ticket is harmless; tickets may be waited for in any order.
  virtual void wait(Ticket ticket) = 0;
  void run(const CollectiveCall& call) { wait(start(call)); }

  // Bytes that really arrived on this rank from others, counted where the copies are made, not from the formula.
  // (Sums that are made in phases across hosts count as the formula says: each phase is held against its own.)
  virtual int64_t received_bytes() const = 0;
  virtual HostTraffic host_traffic() const { return {.ranks_here = size()}; }
  // Whether calls across hosts go in phases where they can, as they do from the start; all ranks say the same between
  // calls. To compare the two: false where there is nothing to choose.
  virtual bool set_phases(bool) { return false; }
  // The record of calls.
  virtual const CallLog& log() const = 0;
  // Whether calls only put work on a device's stream, so that a step with its collectives can be captured and replayed.
  virtual bool on_stream() const { return false; }
  // A captured step ran again without its calls being made: what they brought, `bytes`, counts again.
  virtual void count_replay(int64_t bytes);

  // Control: small messages between all ranks beside the collectives, not billed. Collective over all ranks.
  // Each rank's text, in rank order, on every rank.
  virtual std::vector<std::string> gather_text(std::string_view text) = 0;
  virtual void barrier() = 0;
  // Ends this process and, as far as they can be reached, the others.
  [[noreturn]] virtual void abort(int status);
};

// Fails on all ranks alike if any rank passes an error: gathers them and throws a UserError with the first, naming its
// ranks.
void agree(Communicator& comm, std::string_view error);

// "rank 1", "ranks 0 and 2", "ranks 0, 1 and 3"; of more than eight the first eight and how many more.
std::string ranks_text(std::span<const Rank> ranks);

// Compares a digest and, where it differs, the lines behind it; the UserError on all ranks names the ranks and the
// first differing line. Runs before the first collective of a program.
void agree_on_text(Communicator& comm, std::string_view what, std::string_view text);

}  // namespace meshard
