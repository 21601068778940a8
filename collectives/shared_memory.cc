#include "meshard/collectives/shared_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "meshard/collectives/reduce.h"

namespace meshard {
namespace {

// Slots that are filled before the first one of others is read. One less than there are, so that the slot a rank waits for
// was always read at an earlier point of the call: then the rank that is furthest behind can always go on.
constexpr int64_t kAhead = Channel::kSlots - 1;

// The part of a slot for each of `parts` readers; whole cache lines, so that no element is cut.
int64_t share_bytes(int parts) { return std::max<int64_t>(Channel::kSlotBytes / std::max(parts, 1) / 64 * 64, 64); }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

// What the members of a call must have in common, in 64 bits.
uint64_t signature_of(const CollectiveCall& call) {
  uint64_t hash = 0xcbf29ce484222325u;
  auto mix = [&hash](int64_t value) { hash = (hash ^ static_cast<uint64_t>(value)) * 0x100000001b3u; };
  mix(static_cast<int64_t>(call.kind));
  if (call.kind == Collective::barrier) return hash;
  mix(static_cast<int64_t>(call.dtype));
  bool reduces = call.kind == Collective::all_reduce || call.kind == Collective::reduce_scatter;
  if (reduces) mix(static_cast<int64_t>(call.reduction));
  if (call.kind == Collective::all_reduce || call.kind == Collective::broadcast) mix(call.send_elements);
  if (call.kind == Collective::all_gather || call.kind == Collective::reduce_scatter) {
    for (int64_t count : call.counts) mix(count);
  }
  return hash;
}

// The same part of each rank's segment.
std::vector<std::byte*> parts_of(const std::vector<std::byte*>& segments, int64_t offset) {
  std::vector<std::byte*> parts = segments;
  for (std::byte*& part : parts) part += offset;
  return parts;
}

int64_t page_up(int64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

int64_t slots_begin(int ranks) { return page_up(2 * Channel::counter_bytes(ranks)); }

}  // namespace

int64_t SharedMemory::segment_bytes(int ranks) { return slots_begin(ranks) + 2 * Channel::slot_bytes(); }

SharedMemory::SharedMemory(const Host& host, const Board& board, std::vector<std::byte*> segments, const Watchdog& watchdog)
    : host_(host),
      board_(board),
      blocks_(host.self, segments, parts_of(segments, slots_begin(host.size())), watchdog),
      results_(host.self, parts_of(segments, Channel::counter_bytes(host.size())),
               parts_of(segments, slots_begin(host.size()) + Channel::slot_bytes()), watchdog) {}

int64_t SharedMemory::carry_out(const CollectiveCall& call) {
  call_ = &call;
  signature_ = signature_of(call);
  if (call.kind == Collective::all_reduce) {
    if (p() == 1) copy_bytes(static_cast<std::byte*>(call.receive), static_cast<const std::byte*>(call.send),
                       call.send_elements * size_bytes(call.dtype));
    return p() == 1 ? 0 : p() == 2 ? all_reduce_pair() : all_reduce();
  }
  if (call.kind == Collective::barrier) {
    barrier();
    return 0;
  }
  find_pieces(call, pieces_);
  return call.kind == Collective::reduce_scatter ? reduce_scatter() : move(sends_one_block(call.kind));
}

const std::byte* SharedMemory::fetch(Channel& channel, int member, int64_t& bytes) {
  Channel::Arrival arrival = channel.fetch(local(member));
  if (arrival.signature != signature_) {
    Rank other = (*call_->group)[member];
    throw InternalError(fmt::format("calls of {} do not match: rank {} starts {}, rank {} {}", ranks_text(call_->group->ranks()),
                                    index((*call_->group)[self()]), call_text(*call_), index(other), board_.where(other)));
  }
  bytes = arrival.bytes;
  return arrival.data;
}

void SharedMemory::barrier() {
  blocks_.open_slot();
  for (int m = 0; m < p(); ++m) {
    if (m != self()) blocks_.post(local(m), 0, 0, signature_);
  }
  for (int m = 0; m < p(); ++m) {
    if (m == self()) continue;
    int64_t bytes = 0;
    fetch(blocks_, m, bytes);
    blocks_.acknowledge(local(m));
  }
}

int64_t SharedMemory::move(bool one_block) {
  int64_t longest = 0, read = 0;
  int readers = 0, left = 0;  // members that still send
  arrived_.assign(static_cast<size_t>(p()), 0);
  for (int m = 0; m < p(); ++m) {
    if (m == self()) continue;
    longest = std::max(longest, pieces_[m].send_bytes);
    readers += pieces_[m].send_bytes > 0;
    left += pieces_[m].receive_bytes > 0;
  }
  int64_t share = share_bytes(one_block ? 1 : readers), rounds = ceil_div(longest, share), posted = 0;
  auto post_round = [&] {
    std::byte* slot = blocks_.open_slot();
    int64_t begin = share * posted++, offset = 0;
    bool written = false;
    for (int i = 1; i < p(); ++i) {
      int m = (self() + i) % p();
      int64_t bytes = std::min(share, pieces_[m].send_bytes - begin);
      if (bytes <= 0) continue;
      if (!written) copy_bytes(slot + offset, pieces_[m].send + begin, bytes);
      blocks_.post(local(m), offset, bytes, signature_);
      if (one_block) written = true; else offset += share;
    }
  };
  while (posted < std::min(rounds, kAhead)) post_round();
  copy_bytes(pieces_[self()].receive, pieces_[self()].send, pieces_[self()].receive_bytes);
  while (posted < rounds || left > 0) {
    if (posted < rounds) post_round();
    for (int i = 1; i < p(); ++i) {
      int m = (self() + p() - i) % p();
      const Piece& piece = pieces_[m];
      int64_t& arrived = arrived_[m];
      if (arrived == piece.receive_bytes) continue;
      int64_t bytes = 0;
      const std::byte* data = fetch(blocks_, m, bytes);
      MESHARD_CHECK(bytes <= piece.receive_bytes - arrived,
                    fmt::format("{}: rank {} sends more than {} bytes", call_text(*call_), index((*call_->group)[m]),
                                piece.receive_bytes));
      copy_bytes(piece.receive + arrived, data, bytes);
      blocks_.acknowledge(local(m));
      arrived += bytes;
      read += bytes;
      left -= arrived == piece.receive_bytes;
    }
  }
  return read;
}

void SharedMemory::reduce_arrivals(std::byte* out, const std::byte* own, int64_t bytes) {
  parts_.resize(static_cast<size_t>(p()));
  for (int m = 0; m < p(); ++m) {
    int64_t arrived = bytes;
    parts_[m] = m == self() ? own : fetch(blocks_, m, arrived);
    MESHARD_CHECK(arrived == bytes, fmt::format("{}: {} bytes from rank {} where {} were expected", call_text(*call_), arrived,
                                                index((*call_->group)[m]), bytes));
  }
  reduce_blocks(call_->reduction, call_->dtype, out, parts_, bytes / size_bytes(call_->dtype));
  for (int m = 0; m < p(); ++m) {
    if (m != self()) blocks_.acknowledge(local(m));
  }
}

int64_t SharedMemory::reduce_scatter() {
  int64_t longest = 0, own = pieces_[self()].receive_bytes;
  for (const Piece& piece : pieces_) longest = std::max(longest, piece.send_bytes);
  int64_t share = share_bytes(p() - 1), rounds = ceil_div(longest, share), posted = 0;
  auto post_round = [&] {
    std::byte* slot = blocks_.open_slot();
    int64_t begin = share * posted++, offset = 0;
    for (int i = 1; i < p(); ++i) {
      int m = (self() + i) % p();
      int64_t bytes = std::min(share, pieces_[m].send_bytes - begin);
      if (bytes <= 0) continue;
      copy_bytes(slot + offset, pieces_[m].send + begin, bytes);
      blocks_.post(local(m), offset, bytes, signature_);
      offset += share;
    }
  };
  if (p() == 1) {
    copy_bytes(pieces_[0].receive, pieces_[0].send, own);
    return 0;
  }
  while (posted < std::min(rounds, kAhead)) post_round();
  for (int64_t round = 0; round < rounds; ++round) {
    if (posted < rounds) post_round();
    int64_t begin = round * share;
    if (begin < own) {
      reduce_arrivals(pieces_[self()].receive + begin, pieces_[self()].send + begin, std::min(share, own - begin));
    }
  }
  return (p() - 1) * own;
}

// Two members: each reads all of the other's value, which is as many bytes as scattering and gathering, in one round.
int64_t SharedMemory::all_reduce_pair() {
  const std::byte* send = static_cast<const std::byte*>(call_->send);
  int64_t n = call_->send_elements * size_bytes(call_->dtype), share = Channel::kSlotBytes;
  int64_t rounds = ceil_div(n, share), posted = 0;
  int other = local(1 - self());
  auto post_round = [&] {
    int64_t begin = share * posted++, bytes = std::min(share, n - begin);
    copy_bytes(blocks_.open_slot(), send + begin, bytes);
    blocks_.post(other, 0, bytes, signature_);
  };
  while (posted < std::min(rounds, kAhead)) post_round();
  for (int64_t round = 0; round < rounds; ++round) {
    if (posted < rounds) post_round();
    int64_t begin = round * share;
    reduce_arrivals(static_cast<std::byte*>(call_->receive) + begin, send + begin, std::min(share, n - begin));
  }
  return n;
}

// The value goes through in stretches of `p` shares; each stretch is cut into blocks as the whole value would be. Since all
// stretches but the last divide by p, the sizes add up to those of the whole value's blocks.
int64_t SharedMemory::all_reduce() {
  const std::byte* send = static_cast<const std::byte*>(call_->send);
  std::byte* receive = static_cast<std::byte*>(call_->receive);
  int64_t size = size_bytes(call_->dtype), share = share_bytes(p() - 1) / size;  // elements
  int64_t n = call_->send_elements, rounds = ceil_div(n, share * p()), posted = 0, read = 0;
  auto begin_of = [&](int64_t round, int m) {  // bytes
    int64_t begin = round * share * p();
    return (begin + block_begin(std::min(share * p(), n - begin), p(), m)) * size;
  };
  auto post_round = [&] {
    std::byte* slot = blocks_.open_slot();
    int64_t offset = 0;
    for (int i = 1; i < p(); ++i) {
      int m = (self() + i) % p();
      int64_t begin = begin_of(posted, m), bytes = begin_of(posted, m + 1) - begin;
      if (bytes == 0) continue;
      copy_bytes(slot + offset, send + begin, bytes);
      blocks_.post(local(m), offset, bytes, signature_);
      offset += share * size;
    }
    ++posted;
  };
  auto gather_round = [&](int64_t round) {
    for (int i = 1; i < p(); ++i) {
      int m = (self() + p() - i) % p();
      int64_t begin = begin_of(round, m), bytes = begin_of(round, m + 1) - begin;
      if (bytes == 0) continue;
      copy_bytes(receive + begin, fetch(results_, m, bytes), bytes);
      results_.acknowledge(local(m));
      read += bytes;
    }
  };
  while (posted < std::min(rounds, kAhead)) post_round();
  for (int64_t round = 0; round < rounds; ++round) {
    if (posted < rounds) post_round();
    int64_t begin = begin_of(round, self()), bytes = begin_of(round, self() + 1) - begin;
    if (bytes > 0) {
      reduce_arrivals(receive + begin, send + begin, bytes);
      read += (p() - 1) * bytes;
      copy_bytes(results_.open_slot(), receive + begin, bytes);
      for (int m = 0; m < p(); ++m) {
        if (m != self()) results_.post(local(m), 0, bytes, signature_);
      }
    }
    if (round > 0) gather_round(round - 1);
  }
  if (rounds > 0) gather_round(rounds - 1);
  return read;
}

}  // namespace meshard
