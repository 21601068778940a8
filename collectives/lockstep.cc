#include "meshard/collectives/lockstep.h"

#include <fmt/format.h>

#include <cstring>
#include <deque>
#include <map>

#include "meshard/collectives/pieces.h"
#include "meshard/collectives/reduce.h"

namespace meshard {
namespace {

// One collective of a group, from its first member's start to its last one's.
struct Round {
  std::vector<CollectiveCall> calls;  // by member
  std::vector<bool> here;
  int arrived = 0;
  bool done = false;

  int first_here() const {
    int m = 0;
    while (!here[m]) ++m;
    return m;
  }
};

// The rounds of the devices of one group. Members start them in the same order, so they end in that order too.
struct GroupRounds {
  std::vector<int64_t> started;  // by member
  int64_t ended = 0;
  std::deque<std::shared_ptr<Round>> open;  // rounds ended, ended + 1, ...
};

[[noreturn]] void fail_mismatch(const Round& round, int a, int b, std::string_view what) {
  const Group& group = *round.calls[a].group;
  throw InternalError(fmt::format("calls of {} do not match: rank {} starts {} where rank {} starts {}{}",
                                  ranks_text(group.ranks()), index(group[a]), call_text(round.calls[a]),
                                  index(group[b]), call_text(round.calls[b]), what));
}

bool exchanges(Collective kind) {
  return kind == Collective::all_to_all || kind == Collective::permute || kind == Collective::exchange;
}

// Member `m` has just come: does its call go with that of the first who came?
void check_match(const Round& round, int m) {
  int first = round.first_here();
  const CollectiveCall &a = round.calls[first], &b = round.calls[m];
  bool reduces = a.kind == Collective::all_reduce || a.kind == Collective::reduce_scatter;
  if (a.kind != b.kind) fail_mismatch(round, first, m, "");
  if (a.kind != Collective::barrier && a.dtype != b.dtype) fail_mismatch(round, first, m, "");
  if (reduces && a.reduction != b.reduction) fail_mismatch(round, first, m, "");
  if (a.kind == Collective::all_reduce || a.kind == Collective::broadcast) {
    if (a.send_elements != b.send_elements) {
      fail_mismatch(round, first, m, fmt::format(", with {} and {} elements", a.send_elements, b.send_elements));
    }
  } else if (a.kind == Collective::all_gather || a.kind == Collective::reduce_scatter) {
    for (size_t i = 0; i < a.counts.size(); ++i) {
      if (a.counts[i] != b.counts[i]) {
        fail_mismatch(round, first, m,
                      fmt::format(", with {} and {} elements for member {}", a.counts[i], b.counts[i], i));
      }
    }
  }
}

class Hub {
 public:
  Hub(int size, Backend* backend) : backend_(backend), received_(static_cast<size_t>(size)) {}

  int size() const { return static_cast<int>(received_.size()); }
  Backend* backend() const { return backend_; }
  void count_replay(Rank rank, int64_t bytes) { received_[static_cast<size_t>(index(rank))] += bytes; }
  int64_t received(Rank rank) const { return received_[static_cast<size_t>(index(rank))]; }

  std::shared_ptr<Round> start(const CollectiveCall& call) {
    const Group& group = *call.group;
    size_t p = static_cast<size_t>(group.size()), self = static_cast<size_t>(group.self());
    GroupRounds& rounds = groups_[std::vector<Rank>(group.ranks().begin(), group.ranks().end())];
    rounds.started.resize(p);
    size_t nth = static_cast<size_t>(rounds.started[self]++ - rounds.ended);
    if (nth == rounds.open.size()) {
      rounds.open.push_back(std::make_shared<Round>());
      rounds.open.back()->calls.resize(p);
      rounds.open.back()->here.resize(p);
    }
    std::shared_ptr<Round> round = rounds.open[nth];
    round->calls[self] = call;
    round->here[self] = true;
    ++round->arrived;
    check_match(*round, group.self());
    if (round->arrived == group.size()) {
      carry_out(*round);
      round->done = true;
      rounds.open.pop_front();
      ++rounds.ended;
    }
    return round;
  }

 private:
  void carry_out(const Round& round) {
    if (backend_ != nullptr) backend_->wait_for(Backend::communication, Backend::compute);
    if (round.calls[0].kind == Collective::all_reduce) return all_reduce(round);
    size_t p = round.calls.size();
    std::vector<std::vector<Piece>> pieces(p);
    for (size_t i = 0; i < p; ++i) find_pieces(round.calls[i], pieces[i]);
    if (round.calls[0].kind == Collective::reduce_scatter) {
      for (size_t i = 0; i < p; ++i) {
        std::vector<const void*> blocks(p);
        for (size_t j = 0; j < p; ++j) blocks[j] = pieces[j][i].send;
        reduce(round, i, pieces[i][i].receive, blocks, round.calls[i].counts[i]);
      }
      return;
    }
    for (size_t i = 0; i < p; ++i) {
      for (size_t j = 0; j < p; ++j) {
        const Piece &from = pieces[j][i], &to = pieces[i][j];
        if (exchanges(round.calls[0].kind) && from.send_bytes != to.receive_bytes) {
          fail_mismatch(round, static_cast<int>(j), static_cast<int>(i),
                        fmt::format(", which expects {} bytes from it and gets {}", to.receive_bytes, from.send_bytes));
        }
        copy(round, i, j, to.receive, from.send, to.receive_bytes);
      }
    }
  }

  void all_reduce(const Round& round) {
    size_t p = round.calls.size();
    int64_t n = round.calls[0].send_elements, size = size_bytes(round.calls[0].dtype);
    auto begin = [&](size_t i) { return block_begin(n, static_cast<int>(p), static_cast<int>(i)); };
    // In place, device i writes only block i here, which no other device reads before the gather below.
    for (size_t i = 0; i < p; ++i) {
      std::vector<const void*> blocks(p);
      for (size_t j = 0; j < p; ++j) blocks[j] = static_cast<const std::byte*>(round.calls[j].send) + begin(i) * size;
      reduce(round, i, static_cast<std::byte*>(round.calls[i].receive) + begin(i) * size, blocks,
             begin(i + 1) - begin(i));
    }
    for (size_t i = 0; i < p; ++i) {
      for (size_t j = 0; j < p; ++j) {
        if (i == j) continue;
        copy(round, i, j, static_cast<std::byte*>(round.calls[i].receive) + begin(j) * size,
             static_cast<const std::byte*>(round.calls[j].receive) + begin(j) * size, (begin(j + 1) - begin(j)) * size);
      }
    }
  }

  // Member i reads `bytes` from member j.
  void copy(const Round& round, size_t i, size_t j, std::byte* to, const std::byte* from, int64_t bytes) {
    if (backend_ != nullptr) {
      backend_->copy(to, from, bytes, Backend::communication);
    } else if (bytes > 0 && to != from) {
      std::memcpy(to, from, static_cast<size_t>(bytes));
    }
    if (i != j) count(round, i, bytes);
  }

  // Member i reads the others' blocks as it puts them together with its own.
  void reduce(const Round& round, size_t i, void* out, std::span<const void* const> blocks, int64_t elements) {
    const CollectiveCall& call = round.calls[i];
    if (backend_ != nullptr) {
      backend_->fold(fold_of(call.reduction), call.dtype, out, blocks, elements, Backend::communication);
    } else {
      reduce_blocks(call.reduction, call.dtype, out, blocks, elements);
    }
    count(round, i, static_cast<int64_t>(blocks.size() - 1) * elements * size_bytes(round.calls[i].dtype));
  }

  void count(const Round& round, size_t member, int64_t bytes) {
    received_[static_cast<size_t>(index((*round.calls[member].group)[static_cast<int>(member)]))] += bytes;
  }

  static DeviceKernels::Fold fold_of(Reduction reduction) {
    switch (reduction) {
      case Reduction::sum: return DeviceKernels::Fold::sum;
      case Reduction::max: return DeviceKernels::Fold::max;
      case Reduction::min: return DeviceKernels::Fold::min;
    }
    throw InternalError("an unknown reduction");
  }

  Backend* backend_;
  std::map<std::vector<Rank>, GroupRounds> groups_;
  std::vector<int64_t> received_;  // by device
};

class LockstepCommunicator : public Communicator {
 public:
  LockstepCommunicator(std::shared_ptr<Hub> hub, Rank rank) : hub_(std::move(hub)), rank_(rank) {}

  int size() const override { return hub_->size(); }
  Rank rank() const override { return rank_; }
  std::string_view kind() const override { return "lockstep"; }

  Ticket start(const CollectiveCall& call) override {
    check_call(call);
    MESHARD_CHECK((*call.group)[call.group->self()] == rank_,
                  fmt::format("rank {} starts {} with the group of rank {}", index(rank_), call_text(call),
                              index((*call.group)[call.group->self()])));
    Ticket ticket = log_.begin(call);
    open_.emplace(ticket, hub_->start(call));
    return ticket;
  }

  void wait(Ticket ticket) override {
    MESHARD_CHECK(ticket >= 0 && ticket < log_.calls(), fmt::format("rank {} has no call {}", index(rank_), ticket));
    auto it = open_.find(ticket);
    if (it == open_.end()) return;
    const Round& round = *it->second;
    if (!round.done) fail_incomplete(ticket, round);
    open_.erase(it);
    log_.end(ticket);
    if (hub_->backend() != nullptr) hub_->backend()->wait_for(Backend::compute, Backend::communication);
  }

  int64_t received_bytes() const override { return hub_->received(rank_); }
  const CallLog& log() const override { return log_; }
  bool on_stream() const override { return hub_->backend() != nullptr; }
  void count_replay(int64_t bytes) override { hub_->count_replay(rank_, bytes); }

  std::vector<std::string> gather_text(std::string_view text) override {
    return std::vector<std::string>(static_cast<size_t>(size()), std::string(text));
  }
  void barrier() override {}

 private:
  [[noreturn]] void fail_incomplete(Ticket ticket, const Round& round) const {
    const CollectiveCall& call = round.calls[static_cast<size_t>(round.first_here())];
    std::vector<Rank> missing;
    for (int m = 0; m < call.group->size(); ++m) {
      if (!round.here[m]) missing.push_back((*call.group)[m]);
    }
    throw InternalError(fmt::format("rank {} waits for {}, call {} over {}, which {} {} not started", index(rank_),
                                    call_text(call), ticket, ranks_text(call.group->ranks()), ranks_text(missing),
                                    missing.size() == 1 ? "has" : "have"));
  }

  std::shared_ptr<Hub> hub_;
  Rank rank_;
  CallLog log_;
  std::map<Ticket, std::shared_ptr<Round>> open_;  // started and not waited for
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> lockstep_communicators(int size, Backend* backend) {
  auto hub = std::make_shared<Hub>(size, backend);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int r = 0; r < size; ++r)
    communicators.push_back(std::make_unique<LockstepCommunicator>(hub, static_cast<Rank>(r)));
  return communicators;
}

}  // namespace meshard
