#include "meshard/collectives/messages.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "meshard/collectives/reduce.h"

namespace meshard {

Messages::Messages(std::unique_ptr<Network> network, const Host& host, const Watchdog& watchdog)
    : network_(std::move(network)), host_(host), watchdog_(watchdog) {}

int64_t Messages::carry_out(const CollectiveCall& call) {
  const Members members = members_of(*call.group);
  if (call.kind == Collective::all_reduce) {
    find_blocks_to_reduce(call, pieces_);
    const int64_t arrived = reduce(call, members, pieces_);
    find_blocks_to_gather(call, pieces_);
    return arrived + move(call, members, pieces_);
  }
  find_pieces(call, pieces_);
  return call.kind == Collective::reduce_scatter ? reduce(call, members, pieces_) : move(call, members, pieces_);
}

void Messages::begin(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces) {
  call_ = &call;
  expected_ = expected_from_others_ = 0;
  const bool empty_too = call.kind == Collective::barrier;
  const int p = members.size(), self = members.self;
  for (int i = 1; i < p; ++i) {
    const int m = (self + p - i) % p;
    const Piece& piece = pieces[static_cast<size_t>(m)];
    if (piece.receive_bytes > 0 || empty_too) network_->receive(members[m], piece.receive, piece.receive_bytes);
    expected_ += piece.receive_bytes;
    if (host_.find(members[m]) < 0) expected_from_others_ += piece.receive_bytes;
  }
  for (int i = 1; i < p; ++i) {
    const int m = (self + i) % p;
    const Piece& piece = pieces[static_cast<size_t>(m)];
    if (piece.send_bytes > 0 || empty_too) network_->send(members[m], piece.send, piece.send_bytes);
  }
  const Piece& own = pieces[static_cast<size_t>(self)];
  if (own.receive_bytes > 0 && own.receive != own.send) {
    std::memcpy(own.receive, own.send, static_cast<size_t>(own.receive_bytes));
  }
}

int64_t Messages::finish() {
  const int64_t arrived = network_->finish(watchdog_);
  MESHARD_CHECK(arrived == expected_,
                fmt::format("{}: {} bytes arrived where {} were expected: other ranks made another call",
                            call_text(*call_), arrived, expected_));
  from_other_hosts_ += expected_from_others_;
  return arrived;
}

int64_t Messages::move(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces) {
  begin(call, members, pieces);
  return finish();
}

// Each member's piece has a place of its own until all are there.
int64_t Messages::reduce(const CollectiveCall& call, const Members& members, std::span<const Piece> pieces) {
  const auto p = static_cast<size_t>(members.size()), self = static_cast<size_t>(members.self);
  std::byte* const out = pieces[self].receive;
  const int64_t bytes = pieces[self].receive_bytes;
  if (staging_.size() < (p - 1) * static_cast<size_t>(bytes)) staging_.resize((p - 1) * static_cast<size_t>(bytes));
  staged_.assign(pieces.begin(), pieces.end());
  parts_.resize(p);
  std::byte* next = staging_.data();
  for (size_t m = 0; m < p; ++m) {
    parts_[m] = m == self ? pieces[m].send : next;
    if (m == self) continue;
    staged_[m].receive = next;
    next += bytes;
  }
  staged_[self].receive_bytes = 0;  // its own block is read where it lies
  const int64_t arrived = move(call, members, staged_);
  reduce_blocks(call.reduction, call.dtype, out, parts_, bytes / size_bytes(call.dtype));
  return arrived;
}

}  // namespace meshard
