#include "meshard/collectives/shared_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "meshard/base/shared_heap.h"

namespace meshard {
namespace {

// Slots that are filled before the first one of others is read. There is one more for posts of addresses, and the slot
// that a rank then waits for was always read at an earlier point of the call: the rank that is furthest behind can
// always go on.
constexpr int64_t kAhead = Channel::kSlots - 2;

// A block is posted by address from here on: below, writing it to a slot costs less than the system call and waiting
// for the readers at the end.
constexpr int64_t kLongBlock = 32 << 10;
// Two ranks exchange an all_reduce of at most this whole, instead of in halves.
constexpr int64_t kShortPair = 32 << 10;

// The part of a slot for each of `parts` readers; whole cache lines, so that no element is cut.
int64_t share_bytes(int parts) { return std::max<int64_t>(Channel::kSlotBytes / std::max(parts, 1) / 64 * 64, 64); }

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Results of this size are stored past the caches, which they would fill without being read from there. Sums are stored so
// earlier than what is copied: a weight that is gathered is read by the next op, a gradient's block is not, and sums from
// several values have read more for each line that they store.
constexpr int64_t kStreamed = 32 << 20, kStreamedSum = 4 << 20, kStreamedBlock = 1 << 20;
// Of an all_reduce, what is put together and stored in all results at a time: it stays in the first-level cache. Where
// blocks must be copied from process to process, more, since each copy is a call of the system.
constexpr int64_t kReduced = 16 << 10, kReducedCopies = 256 << 10;
// A long block is copied in parts of this size.
constexpr int64_t kCopied = 4 << 20;
// What is exchanged in blocks of this size is worth large pages.
constexpr int64_t kOnLargePages = 256 << 10;

Store store_for(int64_t bytes, int64_t streamed = kStreamed) { return bytes >= streamed ? Store::streaming : Store::cached; }

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

}  // namespace

SharedMemory::SharedMemory(const Host& host, const Board& board, std::vector<std::byte*> segments,
                           std::unique_ptr<ProcessMemory> memory, const Watchdog& watchdog)
    : host_(host), board_(board), channel_(host.self, std::move(segments), watchdog), memory_(std::move(memory)) {}

void SharedMemory::enter(const CollectiveCall& call, const Members& members, int phase) {
  call_ = &call;
  members_ = members;
  signature_ = signature_of(call) + static_cast<uint64_t>(phase);
  sources_.assign(static_cast<size_t>(p()), Source{});
  posted_addresses_ = false;
}

// The caller may write its arrays again after this.
void SharedMemory::leave() {
  if (posted_addresses_) channel_.settle();
}

int64_t SharedMemory::carry_out(const CollectiveCall& call) {
  enter(call, members_of(*call.group), 0);
  int64_t read = 0;
  if (call.kind == Collective::barrier) {
    barrier();
  } else if (call.kind == Collective::all_reduce) {
    read = all_reduce();
  } else {
    find_pieces(call, pieces_);
    read = call.kind == Collective::reduce_scatter ? reduce() : move(sends_one_block(call.kind));
  }
  leave();
  return read;
}

int64_t SharedMemory::move(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces,
                           bool one_block, int phase) {
  enter(call, members, phase);
  pieces_.assign(pieces.begin(), pieces.end());
  const int64_t read = move(one_block);
  leave();
  return read;
}

int64_t SharedMemory::reduce(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces,
                             int phase) {
  enter(call, members, phase);
  pieces_.assign(pieces.begin(), pieces.end());
  const int64_t read = reduce();
  leave();
  return read;
}

void SharedMemory::barrier(const CollectiveCall& call, const Members& members) {
  enter(call, members, 0);
  barrier();
}

int64_t SharedMemory::available(int member) {
  Source& source = sources_[member];
  if (!source.open) {
    source = {channel_.fetch(local(member)), 0, true};
    if (source.arrival.signature != signature_) {
      Rank other = members_[member];
      throw InternalError(fmt::format("calls of {} do not match: rank {} starts {}, rank {} {}",
                                      ranks_text(members_.ranks), index(members_[self()]),
                                      call_text(*call_), index(other), board_.where(other)));
    }
  }
  return source.arrival.bytes - source.read;
}

const std::byte* SharedMemory::next(int member, int64_t bytes, std::byte* room) {
  const Source& source = sources_[member];
  const std::byte* data = source.arrival.data + source.read;
  if (!source.arrival.at_address) return data;
  if (const std::byte* here = memory_->find(local(member), data, bytes)) return here;
  memory_->read(local(member), data, room, bytes);
  return room;
}

void SharedMemory::advance(int member, int64_t bytes, int64_t written) {
  Source& source = sources_[member];
  source.read += bytes;
  if (source.read < source.arrival.bytes) return;
  source.open = false;
  channel_.acknowledge(local(member), written);
}

bool SharedMemory::by_address(const Piece& piece) const {
  return memory_ != nullptr && piece.send_bytes >= kLongBlock;
}

void SharedMemory::post_addresses() {
  bool open = false;
  for (int i = 1; i < p(); ++i) {
    int m = (self() + i) % p();
    if (!by_address(pieces_[m])) continue;
    if (!open) channel_.open_slot();
    open = posted_addresses_ = true;
    post_address(m, pieces_[m].send, nullptr, pieces_[m].send_bytes);
  }
}

void SharedMemory::post_address(int member, const std::byte* data, std::byte* room, int64_t bytes) {
  SharedHeap* heap = SharedHeap::find();
  if (heap != nullptr && bytes >= kOnLargePages) {
    heap->use_large_pages(data, bytes);
    if (room != nullptr && room != data) heap->use_large_pages(room, bytes);
  }
  channel_.post_address(local(member), data, room, bytes, signature_);
}

void SharedMemory::barrier() {
  channel_.open_slot();
  for (int m = 0; m < p(); ++m) {
    if (m != self()) channel_.post(local(m), 0, 0, signature_);
  }
  for (int m = 0; m < p(); ++m) {
    if (m == self()) continue;
    available(m);
    advance(m, 0);
  }
}

// Each round fills a slot with the next share for each reader, then takes the next post of each member that still
// sends.
int64_t SharedMemory::move(bool one_block) {
  int64_t longest = 0, read = 0, posted = 0;
  int readers = 0, left = 0;  // of slots; members that still send
  arrived_.assign(static_cast<size_t>(p()), 0);
  for (int m = 0; m < p(); ++m) {
    if (m == self()) continue;
    left += pieces_[m].receive_bytes > 0;
    if (pieces_[m].send_bytes == 0 || by_address(pieces_[m])) continue;
    longest = std::max(longest, pieces_[m].send_bytes);
    ++readers;
  }
  int64_t share = share_bytes(one_block ? 1 : readers), rounds = ceil_div(longest, share);
  auto post_round = [&] {
    std::byte* slot = channel_.open_slot();
    int64_t begin = share * posted++, offset = 0;
    bool written = false;
    for (int i = 1; i < p(); ++i) {
      int m = (self() + i) % p();
      int64_t bytes = std::min(share, pieces_[m].send_bytes - begin);
      if (bytes <= 0 || by_address(pieces_[m])) continue;
      if (!written) copy_block(slot + offset, pieces_[m].send + begin, bytes);
      channel_.post(local(m), offset, bytes, signature_);
      written = one_block;
      if (!one_block) offset += share;
    }
  };
  post_addresses();
  while (posted < std::min(rounds, kAhead)) post_round();
  int64_t result = 0;
  for (const Piece& piece : pieces_) result += piece.receive_bytes;
  const Store store = store_for(result);
  copy_block(pieces_[self()].receive, pieces_[self()].send, pieces_[self()].receive_bytes, store);
  while (posted < rounds || left > 0) {
    if (posted < rounds) post_round();
    for (int i = 1; i < p(); ++i) {
      int m = (self() + p() - i) % p();
      const Piece& piece = pieces_[m];
      if (arrived_[m] == piece.receive_bytes) continue;
      int64_t bytes = available(m);
      MESHARD_CHECK(bytes <= piece.receive_bytes - arrived_[m],
                    fmt::format("{}: rank {} sends more than {} bytes", call_text(*call_), index(members_[m]),
                                piece.receive_bytes));
      // In parts, so that few pages of the other process are mapped at a time.
      for (int64_t part = 0; bytes > 0; bytes -= part) {
        part = std::min(bytes, kCopied);
        std::byte* to = piece.receive + arrived_[m];
        copy_block(to, next(m, part, to), part, store);
        advance(m, part);
        arrived_[m] += part;
        read += part;
      }
      left -= arrived_[m] == piece.receive_bytes;
    }
  }
  return read;
}

// Each round fills a slot with the next share of each member's block, then puts together the same share of the own one.
int64_t SharedMemory::reduce() {
  const Piece& own = pieces_[self()];
  int64_t longest = 0, posted = 0, done = 0;
  for (int m = 0; m < p(); ++m) {
    if (m != self() && !by_address(pieces_[m])) longest = std::max(longest, pieces_[m].send_bytes);
  }
  int64_t share = share_bytes(p() - 1), rounds = ceil_div(longest, share);
  auto post_round = [&] {
    std::byte* slot = channel_.open_slot();
    int64_t begin = share * posted++, offset = 0;
    for (int i = 1; i < p(); ++i) {
      int m = (self() + i) % p();
      int64_t bytes = std::min(share, pieces_[m].send_bytes - begin);
      if (bytes <= 0 || by_address(pieces_[m])) continue;
      copy_block(slot + offset, pieces_[m].send + begin, bytes);
      channel_.post(local(m), offset, bytes, signature_);
      offset += share;
    }
  };
  parts_.resize(static_cast<size_t>(p()));
  size_t room = static_cast<size_t>(share) * static_cast<size_t>(p());
  if (rooms_.size() < room && memory_ != nullptr) rooms_.resize(room);
  const Store store = own.send == own.receive ? Store::cached : store_for(own.receive_bytes, kStreamedBlock);
  post_addresses();
  while (posted < std::min(rounds, kAhead)) post_round();
  for (int64_t round = 0; posted < rounds || done < own.receive_bytes; ++round) {
    if (posted < rounds) post_round();
    int64_t end = std::min(own.receive_bytes, (round + 1) * share);
    while (done < end) {
      int64_t bytes = end - done;
      for (int m = 0; m < p(); ++m) {
        if (m != self()) bytes = std::min(bytes, available(m));
      }
      for (int m = 0; m < p(); ++m) {
        parts_[m] = m == self() ? own.send + done : next(m, bytes, rooms_.data() + m * share);
      }
      reduce_blocks(call_->reduction, call_->dtype, own.receive + done, parts_, bytes / size_bytes(call_->dtype), store);
      for (int m = 0; m < p(); ++m) {
        if (m != self()) advance(m, bytes);
      }
      done += bytes;
    }
  }
  return (p() - 1) * own.receive_bytes;
}

// In place, a member's block i is overwritten only when the result of block i has been posted, and so when it has been
// read.
int64_t SharedMemory::all_reduce() {
  int64_t bytes = call_->send_elements * size_bytes(call_->dtype);
  if (p() == 2 && bytes > 0 && bytes <= kShortPair) return all_reduce_pair(bytes);
  if (p() > 1 && memory_ != nullptr && bytes / p() >= kLongBlock) return all_reduce_blocks(bytes);
  find_blocks_to_reduce(*call_, pieces_);
  int64_t read = reduce();
  find_blocks_to_gather(*call_, pieces_);
  return read + move(true);
}

// Two members: each reads all of the other's value, which is as many bytes as scattering and gathering, in one round.
int64_t SharedMemory::all_reduce_pair(int64_t bytes) {
  int other = 1 - self();
  const std::byte* own = static_cast<const std::byte*>(call_->send);
  copy_block(channel_.open_slot(), own, bytes);
  channel_.post(local(other), 0, bytes, signature_);
  MESHARD_CHECK(available(other) == bytes, "the other rank's value has another size");
  parts_.resize(2);
  parts_[self()] = own;
  parts_[other] = next(other, bytes, nullptr);
  reduce_blocks(call_->reduction, call_->dtype, call_->receive, parts_, call_->send_elements);
  advance(other, bytes);
  return bytes;
}

// Each member puts its block together and stores it in the results of all: in place, what it stores to was just read, so
// it costs no more than that. A member's block of all values is read and written by that member alone.
int64_t SharedMemory::all_reduce_blocks(int64_t bytes) {
  const int64_t size = size_bytes(call_->dtype);
  const auto* send = static_cast<const std::byte*>(call_->send);
  auto* receive = static_cast<std::byte*>(call_->receive);
  channel_.open_slot();
  posted_addresses_ = true;
  for (int i = 1; i < p(); ++i) post_address((self() + i) % p(), send, receive, bytes);
  for (int m = 0; m < p(); ++m) {
    if (m == self()) continue;
    MESHARD_CHECK(available(m) == bytes, "another rank's value has another size");
  }
  const int64_t begin = block_begin(call_->send_elements, p(), self()) * size;
  const int64_t end = block_begin(call_->send_elements, p(), self() + 1) * size;
  bool mapped = true;
  for (int m = 0; m < p(); ++m) {
    const Channel::Arrival& other = sources_[m].arrival;
    mapped = mapped && (m == self() || (memory_->find(local(m), other.data, 0) != nullptr &&
                                        memory_->find(local(m), other.room, 0) != nullptr));
  }
  const int64_t chunk = mapped ? kReduced : kReducedCopies;
  parts_.resize(static_cast<size_t>(p()));
  if (rooms_.size() < static_cast<size_t>(chunk * p())) rooms_.resize(static_cast<size_t>(chunk * p()));
  const auto store = [&](const std::byte* from, const std::byte* to) {
    return from == to ? Store::cached : store_for(bytes, kStreamedSum);
  };
  const Store own_store = store(send, receive);
  for (int64_t at = begin; at < end; at += chunk) {
    const int64_t n = std::min(chunk, end - at);
    for (int m = 0; m < p(); ++m) {
      if (m == self()) {
        parts_[m] = send + at;
        continue;
      }
      std::byte* room = rooms_.data() + m * chunk;
      const std::byte* data = sources_[m].arrival.data + at;
      parts_[m] = memory_->find(local(m), data, n);
      if (parts_[m] != nullptr) continue;
      memory_->read(local(m), data, room, n);
      parts_[m] = room;
    }
    // What goes past the caches is put together in them first.
    std::byte* result = own_store == Store::cached ? receive + at : rooms_.data() + self() * chunk;
    reduce_blocks(call_->reduction, call_->dtype, result, parts_, n / size);
    copy_block(receive + at, result, n, own_store);
    for (int m = 0; m < p(); ++m) {
      if (m == self()) continue;
      const Channel::Arrival& other = sources_[m].arrival;
      if (std::byte* here = memory_->find(local(m), other.room + at, n)) {
        copy_block(here, result, n, store(other.data, other.room));
      } else {
        memory_->write(local(m), result, other.room + at, n);
      }
    }
  }
  for (int m = 0; m < p(); ++m) {
    if (m != self()) advance(m, bytes, end - begin);
  }
  channel_.settle();
  int64_t came = (p() - 1) * (end - begin);
  for (int m = 0; m < p(); ++m) {
    if (m != self()) came += channel_.take_written(local(m));
  }
  return came;
}

}  // namespace meshard
