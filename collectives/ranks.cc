#include "meshard/collectives/ranks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "meshard/base/error.h"
#include "meshard/base/shared_heap.h"
#include "meshard/collectives/messages.h"
#include "meshard/collectives/phases.h"
#include "meshard/collectives/pieces.h"
#include "meshard/collectives/shared_memory.h"
#include "meshard/collectives/shared_window.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {
namespace {

// Ranks that see the same one share memory: a running system, and its memory for that, which containers have apart.
std::string system_identity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  struct stat shared = {};
  stat("/dev/shm", &shared);
  return fmt::format("{} {} {}", name, boot, static_cast<uint64_t>(shared.st_dev));
}

Host find_host(Bootstrap& bootstrap, const std::string& host_name, const Watchdog& watchdog) {
  const std::vector<std::string> all =
      bootstrap.all_gather(host_name.empty() ? system_identity() : "named " + host_name, watchdog);
  Host host;
  const auto self = static_cast<size_t>(bootstrap.rank());
  int next = 0;
  for (size_t r = 0; r < all.size(); ++r) {
    const size_t first = static_cast<size_t>(std::find(all.begin(), all.end(), all[r]) - all.begin());
    host.numbers.push_back(first < r ? host.numbers[first] : next++);
    const bool here = all[r] == all[self];
    if (r == self) host.self = host.size();
    host.local.push_back(here ? host.size() : -1);
    if (here) host.ranks.push_back(static_cast<Rank>(r));
  }
  return host;
}

// The memory of the host's ranks, if each of them may reach that of all others, else null. The system may forbid it, or
// the ranks may count processes differently (containers).
std::unique_ptr<ProcessMemory> process_memory(Bootstrap& bootstrap, const Host& host, const RankOptions& options,
                                              const Watchdog& watchdog) {
  using Process = ProcessMemory::Process;
  uint64_t value = static_cast<uint64_t>(getpid()) * 0x9e3779b97f4a7c15u;
  value ^= reinterpret_cast<uint64_t>(&value);
  Process mine{.id = getpid(), .proof = &value};
  if (options.share_buffers && SharedHeap::open()) {
    // What stands at its begin stays there: the heap outlives this.
    static std::byte* const first = SharedHeap::find()->allocate(sizeof value);
    uint64_t there = 0;
    std::memcpy(&there, first, sizeof there);
    if (there == 0) std::memcpy(first, &value, sizeof value);
    std::memcpy(&value, first, sizeof value);
    mine.heap = SharedHeap::find()->begin();
    mine.heap_bytes = SharedHeap::find()->bytes();
    mine.heap_file = SharedHeap::find()->file();
  }
  mine.value = value;
  const std::vector<std::string> all =
      bootstrap.all_gather({reinterpret_cast<const char*>(&mine), sizeof mine}, watchdog);
  std::vector<Process> processes;
  for (const Rank r : host.ranks) {
    const std::string& bytes = all[static_cast<size_t>(index(r))];
    MESHARD_CHECK(bytes.size() == sizeof(Process), "a rank tells of itself in another form");
    std::memcpy(&processes.emplace_back(), bytes.data(), sizeof(Process));
  }
  auto memory = std::make_unique<ProcessMemory>(std::move(processes), host.self);
  const std::vector<std::string> reached = bootstrap.all_gather(memory->reaches_all() ? "yes" : "no", watchdog);
  // After that nobody needs `value` any more.
  for (const Rank r : host.ranks) {
    if (reached[static_cast<size_t>(index(r))] != "yes") return nullptr;
  }
  return memory;
}

// A rank that has a core for itself waits some microseconds before it gives the core away; others give it away at once.
int spins_for(int ranks_on_host) { return ranks_on_host <= sysconf(_SC_NPROCESSORS_ONLN) ? 256 : 4; }

class Ranks : public Communicator {
 public:
  Ranks(std::unique_ptr<Bootstrap> bootstrap, std::unique_ptr<Network> network, const RankOptions& options)
      : bootstrap_(std::move(bootstrap)),
        starting_(options.timeout_seconds, 4, [this](double waited) { fail(fmt::format("waited {:.3g} s for the others", waited)); },
                  [this] { look(); }),
        host_(find_host(*bootstrap_, options.host, starting_)),
        window_(*bootstrap_, host_, window_bytes(options), starting_),
        board_(host_, window_.segments()),
        watchdog_(options.timeout_seconds, spins_for(host_.size()), [this](double waited) { expire(waited); }, [this] { look(); }) {
    for (int r = 0; r < size(); ++r) everyone_.push_back(static_cast<Rank>(r));
    if (network != nullptr) {
      messages_ = std::make_unique<Messages>(std::move(network), host_, watchdog_);
    } else if (host_.hosts() > 1 || !options.shared_memory) {
      throw UserError(fmt::format("the ranks are on {} host{}, and there is no network between them", host_.hosts(), host_.hosts() == 1 ? "" : "s"));
    }
    if (options.shared_memory) {
      std::vector<std::byte*> segments = window_.segments();
      for (std::byte*& segment : segments) segment += Board::entry_bytes(host_.size());
      std::unique_ptr<ProcessMemory> memory;
      // All ranks ask for it, since what they tell each other goes to all.
      if (options.read_processes && size() > 1) memory = process_memory(*bootstrap_, host_, options, starting_);
      shared_ = std::make_unique<SharedMemory>(host_, board_, segments, std::move(memory), watchdog_);
      if (options.phases && messages_ != nullptr) phases_ = std::make_unique<Phases>(host_, *shared_, *messages_);
    }
  }

  int size() const override { return bootstrap_->size(); }
  Rank rank() const override { return static_cast<Rank>(bootstrap_->rank()); }
  std::string_view kind() const override { return bootstrap_->kind(); }
  int64_t received_bytes() const override { return received_; }
  HostTraffic host_traffic() const override {
    return {host_.hosts(), host_.size(), messages_ != nullptr ? messages_->from_other_hosts() : 0, in_phases_, flat_};
  }
  bool set_phases(bool on) override {
    use_phases_ = on;
    return phases_ != nullptr && host_.hosts() > 1;
  }
  const CallLog& log() const override { return log_; }

  // A call is carried out when it, or a later one, is waited for: the order is that of the program, so one rank's call
  // meets the same call of the others.
  Ticket start(const CollectiveCall& call) override {
    check_call(call);
    MESHARD_CHECK((*call.group)[call.group->self()] == rank(),
                  fmt::format("rank {} starts {} with the group of rank {}", index(rank()), call_text(call),
                              index((*call.group)[call.group->self()])));
    Ticket ticket = log_.begin(call);
    queue_.push_back(call);
    return ticket;
  }

  void wait(Ticket ticket) override {
    MESHARD_CHECK(ticket >= 0 && ticket < log_.calls(), fmt::format("rank {} has no call {}", index(rank()), ticket));
    for (; ended_ <= ticket; ++ended_) carry_out(queue_[next_++]);
    // Calls leave the queue in bulk: the array is not moved for each of them.
    if (next_ == queue_.size() || next_ > 1024) {
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(next_));
      next_ = 0;
    }
  }

  std::vector<std::string> gather_text(std::string_view text) override {
    enter_control("gather_text");
    std::vector<std::string> texts = bootstrap_->all_gather(text, watchdog_);
    board_.leave_control();
    return texts;
  }

  void barrier() override {
    enter_control("barrier");
    bootstrap_->barrier(watchdog_);
    board_.leave_control();
  }

  [[noreturn]] void abort(int status) override {
    bootstrap_->abort(status);
    std::_Exit(status);  // the attribute of a virtual function is not known here
  }

 private:
  int64_t window_bytes(const RankOptions& options) const {
    return Board::entry_bytes(host_.size()) + (options.shared_memory ? Channel::segment_bytes(host_.size()) : 0);
  }

  void carry_out(const CollectiveCall& call) {
    board_.enter(call, ended_);
    now_ = &call;
    if (shared_ != nullptr && host_.has_all(*call.group)) {
      received_ += shared_->carry_out(call);
    } else if (phases_ != nullptr && use_phases_ && phases_->takes(call.kind, *call.group)) {
      received_ += phases_->carry_out(call);
      ++in_phases_;
    } else {
      flat_ += !host_.has_all(*call.group);
      received_ += messages_->carry_out(call);
    }
    now_ = nullptr;
    board_.leave();
    log_.end(ended_);
  }

  void enter_control(std::string_view what) {
    board_.enter_control(what);
    control_now_ = what;
  }

  // "all_reduce sum f32 (h) over ranks 0 and 1, call 7", "barrier of all ranks".
  std::string place() const {
    if (now_ != nullptr) return fmt::format("{} over {}, call {}", call_text(*now_), ranks_text(now_->group->ranks()), ended_);
    return fmt::format("{} of all ranks", control_now_.empty() ? "the start" : control_now_);
  }

  // The other ranks cannot go on either.
  [[noreturn]] void fail(const std::string& why) {
    std::string text = fmt::format("rank {}: {}, {}\n", bootstrap_->rank(), place(), why);
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
    abort(3);
  }

  void look() {
    if (const std::string lost = bootstrap_->look(); !lost.empty()) fail(lost);
  }

  // Nothing comes any more: says who is missing.
  void expire(double waited) {
    std::span<const Rank> ranks = now_ != nullptr ? now_->group->ranks() : std::span<const Rank>(everyone_);
    fail(fmt::format("waited {:.3g} s; {}", waited, board_.news(ranks)));
  }

  std::unique_ptr<Bootstrap> bootstrap_;
  const CollectiveCall* now_ = nullptr;  // the one being carried out
  std::string_view control_now_;         // the last control message
  Watchdog starting_;                    // before there is a board
  Host host_;
  SharedWindow window_;
  Board board_;
  Watchdog watchdog_;
  std::unique_ptr<Messages> messages_;
  std::unique_ptr<SharedMemory> shared_;
  std::unique_ptr<Phases> phases_;
  bool use_phases_ = true;
  std::vector<Rank> everyone_;
  CallLog log_;
  std::vector<CollectiveCall> queue_;  // started; those before next_ are carried out
  size_t next_ = 0;
  Ticket ended_ = 0;  // calls that are carried out
  int64_t received_ = 0, in_phases_ = 0, flat_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> rank_communicator(std::unique_ptr<Bootstrap> bootstrap, std::unique_ptr<Network> network,
                                                const RankOptions& options) {
  return std::make_unique<Ranks>(std::move(bootstrap), std::move(network), options);
}

}  // namespace meshard
