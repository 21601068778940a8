#include <fmt/format.h>

#include <cstring>
#include <new>
#include <utility>

#include "meshard/collectives/shared_memory.h"

namespace meshard {

// What a writer shows to one reader. Short content lies in the post itself: one cache line then carries it all.
struct alignas(64) Channel::Post {
  static constexpr int64_t kShort = 24;
  std::atomic<uint64_t> sequence;  // 1, 2, ...: stored last
  uint64_t signature;
  uint64_t place;           // offset from the first slot of the writer, or its address
  uint64_t bytes_and_kind;  // twice the bytes, and one more for an address
  std::byte content[kShort];
};

// How many posts of a writer the reader has read, and how many bytes it has written to the places they named.
struct alignas(64) Channel::Acknowledged {
  std::atomic<uint64_t> count;
  std::atomic<int64_t> written;
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);

// A rank's segment: for each reader kSlots posts, then for each writer what it acknowledged, then its slots.
int64_t Channel::counter_bytes(int ranks) {
  int64_t bytes = ranks * static_cast<int64_t>(kSlots * sizeof(Post) + sizeof(Acknowledged));
  return (bytes + 4095) / 4096 * 4096;
}

int64_t Channel::segment_bytes(int ranks) { return counter_bytes(ranks) + kSlots * kSlotBytes; }

Channel::Channel(int self, std::vector<std::byte*> segments, const Watchdog& watchdog)
    : self_(self),
      ranks_(static_cast<int>(segments.size())),
      segments_(std::move(segments)),
      watchdog_(watchdog),
      readers_(kSlots),
      posted_(segments_.size()),
      fetched_(segments_.size()),
      counted_(segments_.size()) {
  for (std::vector<Reader>& readers : readers_) readers.reserve(segments_.size());
}

// No more posts of a pair are open than the writer has slots, so kSlots of them are enough.
Channel::Post& Channel::post_at(int writer, int reader, uint64_t sequence) const {
  auto* posts = std::launder(reinterpret_cast<Post*>(segments_[static_cast<size_t>(writer)]));
  return posts[static_cast<uint64_t>(reader) * kSlots + sequence % kSlots];
}

Channel::Acknowledged& Channel::acknowledged(int writer, int reader) const {
  std::byte* first = segments_[static_cast<size_t>(reader)] + static_cast<size_t>(ranks_) * kSlots * sizeof(Post);
  return *(std::launder(reinterpret_cast<Acknowledged*>(first)) + writer);
}

std::byte* Channel::slots(int rank) const { return segments_[static_cast<size_t>(rank)] + counter_bytes(ranks_); }

void Channel::wait_for_readers(int slot) {
  std::vector<Reader>& readers = readers_[static_cast<size_t>(slot)];
  for (const Reader& reader : readers) {
    watchdog_.until(
        [&] { return acknowledged(self_, reader.rank).count.load(std::memory_order_acquire) >= reader.sequence; });
  }
  readers.clear();
}

std::byte* Channel::open_slot() {
  slot_ = (slot_ + 1) % kSlots;
  wait_for_readers(slot_);
  return slots(self_) + slot_ * kSlotBytes;
}

void Channel::settle() {
  for (int slot = 0; slot < kSlots; ++slot) wait_for_readers(slot);
}

Channel::Post& Channel::next_post(int reader, uint64_t& sequence) {
  sequence = ++posted_[static_cast<size_t>(reader)];
  readers_[static_cast<size_t>(slot_)].push_back({reader, sequence});
  return post_at(self_, reader, sequence);
}

void Channel::post(int reader, int64_t offset, int64_t bytes, uint64_t signature) {
  uint64_t sequence;
  Post& post = next_post(reader, sequence);
  post.signature = signature;
  post.place = static_cast<uint64_t>(slot_ * kSlotBytes + offset);
  post.bytes_and_kind = static_cast<uint64_t>(bytes) * 2;
  if (bytes <= Post::kShort) std::memcpy(post.content, slots(self_) + post.place, static_cast<size_t>(bytes));
  post.sequence.store(sequence, std::memory_order_release);
}

void Channel::post_address(int reader, const std::byte* data, std::byte* room, int64_t bytes, uint64_t signature) {
  uint64_t sequence;
  Post& post = next_post(reader, sequence);
  post.signature = signature;
  post.place = reinterpret_cast<uint64_t>(data);
  post.bytes_and_kind = static_cast<uint64_t>(bytes) * 2 + 1;
  static_assert(sizeof room <= Post::kShort);
  std::memcpy(post.content, &room, sizeof room);
  post.sequence.store(sequence, std::memory_order_release);
}

Channel::Arrival Channel::fetch(int writer) {
  uint64_t sequence = fetched_[static_cast<size_t>(writer)] + 1;
  Post& post = post_at(writer, self_, sequence);
  watchdog_.until([&] { return post.sequence.load(std::memory_order_acquire) == sequence; });
  Arrival arrival;
  arrival.bytes = static_cast<int64_t>(post.bytes_and_kind / 2);
  arrival.signature = post.signature;
  arrival.at_address = post.bytes_and_kind % 2 == 1;
  if (arrival.at_address) {
    arrival.data = reinterpret_cast<const std::byte*>(post.place);
    std::memcpy(&arrival.room, post.content, sizeof arrival.room);
  } else {
    arrival.data = arrival.bytes <= Post::kShort ? post.content : slots(writer) + post.place;
  }
  return arrival;
}

void Channel::acknowledge(int writer, int64_t written) {
  uint64_t sequence = ++fetched_[static_cast<size_t>(writer)];
  Acknowledged& mine = acknowledged(writer, self_);
  if (written > 0) mine.written.store(mine.written.load(std::memory_order_relaxed) + written, std::memory_order_relaxed);
  mine.count.store(sequence, std::memory_order_release);
}

int64_t Channel::take_written(int reader) {
  int64_t written = acknowledged(self_, reader).written.load(std::memory_order_relaxed);
  return written - std::exchange(counted_[static_cast<size_t>(reader)], written);
}

}  // namespace meshard
