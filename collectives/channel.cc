#include <algorithm>
#include <cstring>
#include <new>

#include "meshard/collectives/shared_memory.h"

namespace meshard {

// What a writer shows to one reader. Short content lies in the post itself: one cache line then carries it all.
struct alignas(64) Channel::Post {
  static constexpr size_t kShort = 32;
  std::atomic<uint64_t> sequence;  // 1, 2, ...: stored last
  uint64_t signature;
  uint32_t slot_offset;            // from the first slot of the writer
  uint32_t bytes;
  std::byte content[kShort];
};

// How many posts of a writer the reader has read.
struct alignas(64) Channel::Acknowledged {
  std::atomic<uint64_t> count;
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);

// A rank's counters: for each reader kSlots posts, then for each writer what it acknowledged.
int64_t Channel::counter_bytes(int ranks) {
  return ranks * static_cast<int64_t>(kSlots * sizeof(Post) + sizeof(Acknowledged));
}

Channel::Channel(int self, std::vector<std::byte*> counters, std::vector<std::byte*> slots, const Watchdog& watchdog)
    : self_(self),
      ranks_(static_cast<int>(counters.size())),
      counters_(std::move(counters)),
      slots_(std::move(slots)),
      watchdog_(watchdog),
      readers_(kSlots),
      posted_(counters_.size()),
      fetched_(counters_.size()) {
  for (std::vector<Reader>& readers : readers_) readers.reserve(counters_.size());
}

// No more posts of a pair are open than the writer has slots, so kSlots of them are enough.
Channel::Post& Channel::post_at(int writer, int reader, uint64_t sequence) const {
  auto* posts = std::launder(reinterpret_cast<Post*>(counters_[static_cast<size_t>(writer)]));
  return posts[static_cast<uint64_t>(reader) * kSlots + sequence % kSlots];
}

std::atomic<uint64_t>& Channel::acknowledged(int writer, int reader) const {
  std::byte* first = counters_[static_cast<size_t>(reader)] + static_cast<size_t>(ranks_) * kSlots * sizeof(Post);
  return (std::launder(reinterpret_cast<Acknowledged*>(first)) + writer)->count;
}

std::byte* Channel::open_slot() {
  slot_ = (slot_ + 1) % kSlots;
  std::vector<Reader>& readers = readers_[static_cast<size_t>(slot_)];
  for (const Reader& reader : readers) {
    watchdog_.until([&] { return acknowledged(self_, reader.rank).load(std::memory_order_acquire) >= reader.sequence; });
  }
  readers.clear();
  return slots_[static_cast<size_t>(self_)] + slot_ * kSlotBytes;
}

void Channel::post(int reader, int64_t offset, int64_t bytes, uint64_t signature) {
  uint64_t sequence = ++posted_[static_cast<size_t>(reader)];
  readers_[static_cast<size_t>(slot_)].push_back({reader, sequence});
  Post& post = post_at(self_, reader, sequence);
  post.signature = signature;
  post.slot_offset = static_cast<uint32_t>(slot_ * kSlotBytes + offset);
  post.bytes = static_cast<uint32_t>(bytes);
  if (bytes <= static_cast<int64_t>(Post::kShort)) {
    std::memcpy(post.content, slots_[static_cast<size_t>(self_)] + post.slot_offset, static_cast<size_t>(bytes));
  }
  post.sequence.store(sequence, std::memory_order_release);
}

Channel::Arrival Channel::fetch(int writer) {
  uint64_t sequence = fetched_[static_cast<size_t>(writer)] + 1;
  Post& post = post_at(writer, self_, sequence);
  watchdog_.until([&] { return post.sequence.load(std::memory_order_acquire) == sequence; });
  const std::byte* data = post.bytes <= Post::kShort ? post.content : slots_[static_cast<size_t>(writer)] + post.slot_offset;
  return {data, post.bytes, post.signature};
}

void Channel::acknowledge(int writer) {
  uint64_t sequence = ++fetched_[static_cast<size_t>(writer)];
  acknowledged(writer, self_).store(sequence, std::memory_order_release);
}

}  // namespace meshard
