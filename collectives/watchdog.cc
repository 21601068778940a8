#include "meshard/collectives/watchdog.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <new>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace meshard {
namespace {

constexpr int kWords = 12;  // of text, 8 bytes each

}  // namespace

int Host::hosts() const { return numbers.empty() ? 0 : 1 + *std::max_element(numbers.begin(), numbers.end()); }

bool Host::has_all(const Group& group) const {
  return std::all_of(group.ranks().begin(), group.ranks().end(), [&](Rank r) { return find(r) >= 0; });
}

// Where a rank is. The text is read while its owner may write it, so it lies in atomic words; a torn one does no harm.
struct alignas(64) Board::Entry {
  enum State : uint64_t { nowhere, in_call, after_call, in_control, after_control };
  std::atomic<uint64_t> state;
  std::atomic<int64_t> number;
  std::atomic<uint64_t> controls;  // control messages begun
  std::atomic<uint64_t> words[kWords];
};

// How many calls a rank has come to that another rank is a member of: both count the same ones, whatever else they do.
struct Board::Meeting {
  std::atomic<uint64_t> calls;
};

int64_t Board::entry_bytes(int ranks) {
  int64_t bytes = static_cast<int64_t>(sizeof(Entry)) + ranks * static_cast<int64_t>(sizeof(Meeting));
  return (bytes + 63) / 64 * 64;
}

Board::Board(const Host& host, std::vector<std::byte*> entries) : host_(host), entries_(std::move(entries)) {}

Board::Entry& Board::entry(int local) const {
  return *std::launder(reinterpret_cast<Entry*>(entries_[static_cast<size_t>(local)]));
}

Board::Meeting& Board::meeting(int local, int other) const {
  std::byte* first = entries_[static_cast<size_t>(local)] + sizeof(Entry);
  return *std::launder(reinterpret_cast<Meeting*>(first) + other);
}

void Board::show(std::string_view what, std::string_view label, int64_t number, bool control) {
  char text[kWords * 8] = {};
  size_t length = std::min(what.size(), sizeof(text) - 1);
  std::memcpy(text, what.data(), length);
  if (!label.empty() && length + 2 < sizeof(text)) {
    std::memcpy(text + length, ", ", 2);
    std::memcpy(text + length + 2, label.data(), std::min(label.size(), sizeof(text) - length - 3));
  }
  Entry& mine = entry(host_.self);
  for (size_t w = 0; w < kWords; ++w) {
    uint64_t word;
    std::memcpy(&word, text + 8 * w, 8);
    mine.words[w].store(word, std::memory_order_relaxed);
  }
  mine.number.store(number, std::memory_order_relaxed);
  mine.state.store(control ? Entry::in_control : Entry::in_call, std::memory_order_relaxed);
  control_ = control;
}

void Board::enter(const CollectiveCall& call, int64_t number) {
  show(name(call.kind), call.label, number, false);
  for (Rank r : call.group->ranks()) {
    int other = host_.find(r);
    if (other < 0 || other == host_.self) continue;
    std::atomic<uint64_t>& calls = meeting(host_.self, other).calls;
    calls.store(calls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
}

void Board::leave() {
  std::atomic<uint64_t>& state = entry(host_.self).state;
  state.store(state.load(std::memory_order_relaxed) == Entry::in_call ? Entry::after_call : Entry::after_control,
              std::memory_order_relaxed);
}

void Board::enter_control(std::string_view what) {
  std::atomic<uint64_t>& controls = entry(host_.self).controls;
  controls.store(controls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  show(what, "", 0, true);
}

std::string Board::where(Rank rank) const {
  const Entry& theirs = entry(host_.find(rank));
  char text[kWords * 8];
  for (size_t w = 0; w < kWords; ++w) {
    uint64_t word = theirs.words[w].load(std::memory_order_relaxed);
    std::memcpy(text + 8 * w, &word, 8);
  }
  text[sizeof(text) - 1] = '\0';
  int64_t number = theirs.number.load(std::memory_order_relaxed);
  switch (theirs.state.load(std::memory_order_relaxed)) {
    case Entry::in_call:
      return fmt::format("is at call {} ({})", number, text);
    case Entry::after_call:
      return fmt::format("has left call {} ({}) and come to no other", number, text);
    case Entry::in_control:
      return fmt::format("is in {}", text);
    case Entry::after_control:
      return fmt::format("has left {} and come to no call", text);
    default:
      return "has come to no call yet";
  }
}

std::string Board::news(std::span<const Rank> ranks) const {
  std::vector<Rank> there, unknown;
  std::string missing;
  for (Rank r : ranks) {
    int other = host_.find(r);
    if (other == host_.self) continue;
    if (other < 0) {
      unknown.push_back(r);
      continue;
    }
    auto value = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
    bool come = control_ ? value(entry(other).controls) >= value(entry(host_.self).controls)
                         : value(meeting(other, host_.self).calls) >= value(meeting(host_.self, other).calls);
    if (come) {
      there.push_back(r);
    } else {
      missing += fmt::format("{}rank {} {}", missing.empty() ? "" : ", ", index(r), where(r));
    }
  }
  std::string text;
  auto add = [&](std::string part) { text += (text.empty() ? "" : ", ") + part; };
  if (!there.empty()) add(fmt::format("{} {} there", ranks_text(there), there.size() == 1 ? "is" : "are"));
  if (!missing.empty()) add(missing);
  if (!unknown.empty()) add(fmt::format("nothing is known of {} on another host", ranks_text(unknown)));
  return text;
}

void Watchdog::pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#endif
}

void Watchdog::wait_long(const std::function<bool()>& ready) const {
  using Clock = std::chrono::steady_clock;
  constexpr double kLook = 0.05;  // seconds between two looks
  const Clock::time_point begin = Clock::now();
  double looked = 0;
  for (int64_t polls = 1; !ready(); ++polls) {
    sched_yield();
    if (polls % 64 != 0) continue;
    const double waited = std::chrono::duration<double>(Clock::now() - begin).count();
    if (look_ && waited - looked > kLook) {
      looked = waited;
      look_();
    }
    if (seconds_ > 0 && waited > seconds_) return expired_(waited);
  }
}

}  // namespace meshard
