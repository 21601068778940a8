// Board and Watchdog: what the ranks of one host show each other about where they are, in shared memory, and the
// waiting loop that turns a hang into a message made from it:
//
//   rank 3: all_gather f32 (block.7.down) over ranks 0, 1, 2 and 3, call 1204, waited 60 s; ranks 0 and 2 are there,
//   rank 1 is at call 1203 (all_reduce, block.6.up)
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/collectives/communicator.h"

namespace meshard {

// Ranks of the job -> index among the ranks of this host, -1: on another host.
struct Host {
  std::vector<int> local;   // by rank
  std::vector<Rank> ranks;  // by local index
  std::vector<int> numbers;  // by rank: of its host, in the order of their first ranks
  int self = 0;             // local index of this rank

  int size() const { return static_cast<int>(ranks.size()); }
  int find(Rank rank) const { return local[static_cast<size_t>(index(rank))]; }
  int number_of(Rank rank) const { return numbers[static_cast<size_t>(index(rank))]; }
  int hosts() const;
  bool has_all(const Group& group) const;
};

// A rank writes its own entry and reads the others'.
class Board {
 public:
  // Bytes of a rank's entry on a host with `ranks` ranks, a multiple of 64; they begin as zeros.
  static int64_t entry_bytes(int ranks);
  // One entry for each rank of the host.
  Board(const Host& host, std::vector<std::byte*> entries);

  void enter(const CollectiveCall& call, int64_t number);
  void leave();
  void enter_control(std::string_view what);  // gather_text, barrier
  void leave_control() { leave(); }

  // Who of the group's ranks has come to the call that this rank is in, where the others are, and of which nothing is
  // known.
  std::string news(std::span<const Rank> ranks) const;
  std::string where(Rank rank) const;  // "is at call 7 (all_reduce, h)"

 private:
  struct Entry;
  struct Meeting;
  Entry& entry(int local) const;
  Meeting& meeting(int local, int other) const;
  void show(std::string_view what, std::string_view label, int64_t number, bool control);

  const Host& host_;
  std::vector<std::byte*> entries_;
  bool control_ = false;  // this rank is in a control message: all ranks are meant
};

// Waits by polling. Ranks may outnumber cores, so after a short spin each poll gives the core away.
class Watchdog {
 public:
  // `seconds` of one wait, 0 or less: for ever. `expired` makes the message known and ends the job. `look` is called now
  // and then in a long wait.
  Watchdog(double seconds, int spins, std::function<void(double waited)> expired, std::function<void()> look = {})
      : seconds_(seconds), spins_(spins), expired_(std::move(expired)), look_(std::move(look)) {}

  template <class Ready>
  void until(Ready ready) const {
    for (int i = 0; i < spins_; ++i) {
      if (ready()) return;
      pause();
    }
    if (!ready()) wait_long(std::function<bool()>(std::ref(ready)));
  }

 private:
  static void pause();
  void wait_long(const std::function<bool()>& ready) const;

  double seconds_;
  int spins_;
  std::function<void(double)> expired_;
  std::function<void()> look_;
};

}  // namespace meshard
