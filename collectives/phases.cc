#include "meshard/collectives/phases.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshard {
namespace {

bool changes_places(Collective kind) {
  return kind == Collective::all_to_all || kind == Collective::permute || kind == Collective::exchange;
}

}  // namespace

void Phases::find_places(const Group& group) {
  host_numbers_.clear();
  for (std::vector<int>& members : places_) members.clear();
  for (int m = 0; m < group.size(); ++m) {
    const int host = host_.number_of(group[m]);
    const auto at = std::find(host_numbers_.begin(), host_numbers_.end(), host) - host_numbers_.begin();
    if (at == static_cast<std::ptrdiff_t>(host_numbers_.size())) host_numbers_.push_back(host);
    if (places_.size() < host_numbers_.size()) places_.emplace_back();
    std::vector<int>& members = places_[static_cast<size_t>(at)];
    if (m == group.self()) {
      mine_ = static_cast<int>(at);
      place_ = static_cast<int>(members.size());
    }
    members.push_back(m);
  }
  places_.resize(host_numbers_.size());
}

bool Phases::takes(Collective kind, const Group& group) {
  find_places(group);
  if (hosts() < 2) return false;
  const auto by_size = [](const auto& a, const auto& b) { return a.size() < b.size(); };
  const auto [least, most] = std::minmax_element(places_.begin(), places_.end(), by_size);
  return most->size() > 1 && (changes_places(kind) || least->size() == most->size());
}

int64_t Phases::carry_out(const CollectiveCall& call) {
  call_ = &call;
  const Group& group = *call.group;
  find_places(group);
  here_ranks_.clear();
  for (const int m : places_[static_cast<size_t>(mine_)]) here_ranks_.push_back(group[m]);
  here_ = {here_ranks_, place_};
  int64_t arrived = 0, expected = received_bytes(call);
  if (changes_places(call.kind)) {
    arrived = change_places();
  } else {
    peer_ranks_.clear();
    for (int h = 0; h < hosts(); ++h) peer_ranks_.push_back(group[member(h, place_)]);
    peers_ = {peer_ranks_, mine_};
    switch (call.kind) {
      case Collective::all_reduce:
        return all_reduce();
      case Collective::reduce_scatter:
        return reduce_scatter();
      case Collective::all_gather:
        arrived = all_gather();
        break;
      case Collective::broadcast:
        arrived = broadcast();
        break;
      case Collective::barrier:
        shared_.barrier(call, here_);
        pieces_.assign(static_cast<size_t>(hosts()), Piece{});
        arrived = messages_.move(call, peers_, pieces_);
        break;
      default:
        MESHARD_CHECK(false, fmt::format("{} has no phases", name(call.kind)));
    }
  }
  MESHARD_CHECK(arrived == expected,
                fmt::format("{}: {} bytes arrived in phases, not {}", call_text(call), arrived, expected));
  return arrived;
}

// In phases a part's blocks are cut anew, so where they are uneven a rank may receive some elements more or less than
// the formula says: each phase is held against its own.
int64_t Phases::all_reduce() {
  const int64_t size = size_bytes(call_->dtype), n = call_->send_elements;
  const int k = per_host();
  const int64_t first = block_begin(n, k, place_), part = block_begin(n, k, place_ + 1) - first;
  std::byte* const mine = static_cast<std::byte*>(call_->receive) + first * size;
  find_blocks_to_reduce(k, place_, call_->send, call_->receive, n, size, pieces_);
  int64_t arrived = shared_.reduce(*call_, here_, pieces_, 1);
  find_blocks_to_reduce(hosts(), mine_, mine, mine, part, size, pieces_);
  arrived += messages_.reduce(*call_, peers_, pieces_);
  find_blocks_to_gather(hosts(), mine_, mine, part, size, pieces_);
  arrived += messages_.move(*call_, peers_, pieces_);
  find_blocks_to_gather(k, place_, call_->receive, n, size, pieces_);
  arrived += shared_.move(*call_, here_, pieces_, true, 2);
  const int64_t block = block_begin(part, hosts(), mine_ + 1) - block_begin(part, hosts(), mine_);
  const int64_t expected = ((k - 1) * part + (hosts() - 2) * block + part + n - part) * size;
  MESHARD_CHECK(arrived == expected,
                fmt::format("{}: {} bytes arrived in phases, not {}", call_text(*call_), arrived, expected));
  return received_bytes(*call_);
}

int64_t Phases::reduce_scatter() {
  const int64_t size = size_bytes(call_->dtype);
  const auto bytes = [&](int m) { return call_->counts[static_cast<size_t>(m)] * size; };
  begins_.assign(1, 0);
  for (int m = 0; m < call_->group->size(); ++m) begins_.push_back(begins_.back() + bytes(m));
  int64_t room = 0;
  for (int h = 0; h < hosts(); ++h) room += bytes(member(h, place_));
  if (scratch_.bytes() < room) scratch_ = Buffer(room);
  const auto* send = static_cast<const std::byte*>(call_->send);
  std::byte* sum = scratch_.data();
  here_pieces_.resize(static_cast<size_t>(hosts()));  // what goes to the peers
  int64_t arrived = 0;
  for (int h = 0; h < hosts(); ++h) {
    const int64_t own = bytes(member(h, place_));
    pieces_.resize(static_cast<size_t>(per_host()));
    for (int j = 0; j < per_host(); ++j) {
      const int m = member(h, j);
      pieces_[static_cast<size_t>(j)] = {send + begins_[static_cast<size_t>(m)], bytes(m), sum, own};
    }
    arrived += shared_.reduce(*call_, here_, pieces_, 1 + h);
    here_pieces_[static_cast<size_t>(h)] = {sum, own, static_cast<std::byte*>(call_->receive), bytes(call_->group->self())};
    sum += own;
  }
  arrived += messages_.reduce(*call_, peers_, here_pieces_);
  const int64_t expected = (per_host() - 1) * room + (hosts() - 1) * bytes(call_->group->self());
  MESHARD_CHECK(arrived == expected,
                fmt::format("{}: {} bytes arrived in phases, not {}", call_text(*call_), arrived, expected));
  return received_bytes(*call_);
}

int64_t Phases::all_gather() {
  const int64_t size = size_bytes(call_->dtype);
  const auto bytes = [&](int m) { return call_->counts[static_cast<size_t>(m)] * size; };
  auto* receive = static_cast<std::byte*>(call_->receive);
  begins_.assign(1, 0);
  for (int m = 0; m < call_->group->size(); ++m) begins_.push_back(begins_.back() + bytes(m));
  const auto at = [&](int m) { return receive + begins_[static_cast<size_t>(m)]; };
  pieces_.resize(static_cast<size_t>(hosts()));
  for (int h = 0; h < hosts(); ++h) {
    const int m = member(h, place_);
    pieces_[static_cast<size_t>(h)] = {static_cast<const std::byte*>(call_->send), bytes(call_->group->self()), at(m), bytes(m)};
  }
  messages_.begin(*call_, peers_, pieces_);
  int64_t arrived = 0;
  // This host's own blocks are exchanged while those of the others travel.
  for (int i = 0; i < hosts(); ++i) {
    const int h = (mine_ + i) % hosts();
    if (i == 1) arrived += messages_.finish();
    const int own = member(h, place_);
    pieces_.resize(static_cast<size_t>(per_host()));
    for (int j = 0; j < per_host(); ++j) {
      const int m = member(h, j);
      pieces_[static_cast<size_t>(j)] = {at(own), bytes(own), at(m), bytes(m)};
    }
    arrived += shared_.move(*call_, here_, pieces_, true, 1 + h);
  }
  return arrived;
}

int64_t Phases::broadcast() {
  const int64_t size = size_bytes(call_->dtype), n = call_->send_elements;
  const int k = per_host();
  const bool root = call_->group->self() == 0, with_root = mine_ == 0;
  const auto begin = [&](int j) { return block_begin(n, k, j) * size; };
  const auto length = [&](int j) { return begin(j + 1) - begin(j); };
  // The root only sends, so its value is never written.
  auto* data = root ? const_cast<std::byte*>(static_cast<const std::byte*>(call_->send)) : static_cast<std::byte*>(call_->receive);
  const std::byte* const part = data + begin(place_);
  int64_t arrived = 0;
  if (with_root) {
    pieces_.assign(static_cast<size_t>(k), Piece{});
    for (int j = 1; root && j < k; ++j) pieces_[static_cast<size_t>(j)] = {data + begin(j), length(j), nullptr, 0};
    if (!root) pieces_[0] = {nullptr, 0, data + begin(place_), length(place_)};
    arrived += shared_.move(*call_, here_, pieces_, false, 1);
  }
  pieces_.assign(static_cast<size_t>(hosts()), Piece{});
  for (int h = 1; with_root && h < hosts(); ++h) pieces_[static_cast<size_t>(h)] = {part, length(place_), nullptr, 0};
  if (!with_root) pieces_[0] = {nullptr, 0, data + begin(place_), length(place_)};
  arrived += messages_.move(*call_, peers_, pieces_);
  pieces_.assign(static_cast<size_t>(k), Piece{});
  for (int j = 0; j < k; ++j) {
    const bool to_root = with_root && j == 0;
    pieces_[static_cast<size_t>(j)] = {part, to_root ? 0 : length(place_), data + begin(j), root ? 0 : length(j)};
  }
  return arrived + shared_.move(*call_, here_, pieces_, true, 2);
}

int64_t Phases::change_places() {
  find_pieces(*call_, pieces_);
  here_pieces_.clear();
  for (const int m : places_[static_cast<size_t>(mine_)]) {
    here_pieces_.push_back(pieces_[static_cast<size_t>(m)]);
    pieces_[static_cast<size_t>(m)] = Piece{};
  }
  messages_.begin(*call_, members_of(*call_->group), pieces_);
  const int64_t arrived = shared_.move(*call_, here_, here_pieces_, false, 1);
  return arrived + messages_.finish();
}

}  // namespace meshard
