#include "meshard/collectives/messages.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstring>

#include "meshard/collectives/reduce.h"

namespace meshard {
namespace {

constexpr int kTag = 1;                           // messages of a pair arrive in order: one tag is enough
constexpr int64_t kMostBytes = int64_t{1} << 30;  // of one message: MPI counts in int

}  // namespace

struct Messages::Requests {
  MPI_Comm comm;
  std::vector<MPI_Request> open;  // receives, then sends
  std::vector<MPI_Status> statuses;
  size_t receives = 0;

  void receive(Rank from, std::byte* data, int64_t bytes) {
    do {
      int part = static_cast<int>(std::min(bytes, kMostBytes));
      MPI_Irecv(data, part, MPI_BYTE, static_cast<int>(index(from)), kTag, comm, &open.emplace_back());
      data += part;
      bytes -= part;
      ++receives;
    } while (bytes > 0);
  }
  void send(Rank to, const std::byte* data, int64_t bytes) {
    do {
      int part = static_cast<int>(std::min(bytes, kMostBytes));
      MPI_Isend(data, part, MPI_BYTE, static_cast<int>(index(to)), kTag, comm, &open.emplace_back());
      data += part;
      bytes -= part;
    } while (bytes > 0);
  }
  // Waits for all of them and returns the bytes that arrived.
  int64_t finish(const Watchdog& watchdog) {
    statuses.resize(open.size());
    watchdog.until([this] {
      int done = 0;
      MPI_Testall(static_cast<int>(open.size()), open.data(), &done, statuses.data());
      return done != 0;
    });
    int64_t arrived = 0;
    for (size_t i = 0; i < receives; ++i) {
      int bytes = 0;
      MPI_Get_count(&statuses[i], MPI_BYTE, &bytes);
      arrived += bytes;
    }
    open.clear();
    receives = 0;
    return arrived;
  }
};

Messages::Messages(const void* comm, const Watchdog& watchdog)
    : watchdog_(watchdog),
      requests_(std::make_unique<Requests>(Requests{*static_cast<const MPI_Comm*>(comm), {}, {}})) {}

Messages::~Messages() = default;

int64_t Messages::carry_out(const CollectiveCall& call) {
  if (call.kind == Collective::all_reduce) return all_reduce(call);
  find_pieces(call, pieces_);
  if (call.kind != Collective::reduce_scatter) return move(call);
  const Piece& own = pieces_[static_cast<size_t>(call.group->self())];
  return reduce(call, own.receive, own.receive_bytes);
}

int64_t Messages::move(const CollectiveCall& call) {
  const Group& group = *call.group;
  int64_t expected = 0;
  bool empty_too = call.kind == Collective::barrier;
  for (int i = 1; i < group.size(); ++i) {
    int m = (group.self() + group.size() - i) % group.size();
    if (pieces_[m].receive_bytes > 0 || empty_too)
      requests_->receive(group[m], pieces_[m].receive, pieces_[m].receive_bytes);
    expected += pieces_[m].receive_bytes;
  }
  for (int i = 1; i < group.size(); ++i) {
    int m = (group.self() + i) % group.size();
    if (pieces_[m].send_bytes > 0 || empty_too) requests_->send(group[m], pieces_[m].send, pieces_[m].send_bytes);
  }
  const Piece& own = pieces_[group.self()];
  if (own.receive_bytes > 0 && own.receive != own.send) {
    std::memcpy(own.receive, own.send, static_cast<size_t>(own.receive_bytes));
  }
  int64_t arrived = requests_->finish(watchdog_);
  MESHARD_CHECK(arrived == expected,
                fmt::format("{}: {} bytes arrived where {} were expected: other ranks made another call",
                            call_text(call), arrived, expected));
  return arrived;
}

int64_t Messages::reduce(const CollectiveCall& call, std::byte* out, int64_t bytes) {
  const Group& group = *call.group;
  size_t p = static_cast<size_t>(group.size()), self = static_cast<size_t>(group.self());
  if (staging_.size() < (p - 1) * static_cast<size_t>(bytes)) staging_.resize((p - 1) * static_cast<size_t>(bytes));
  parts_.resize(p);
  std::byte* next = staging_.data();
  for (size_t m = 0; m < p; ++m) {
    parts_[m] = m == self ? pieces_[m].send : next;
    if (m == self) continue;
    pieces_[m].receive = next;
    next += bytes;
  }
  pieces_[self].receive_bytes = 0;  // its own block is read where it lies
  int64_t arrived = move(call);
  reduce_blocks(call.reduction, call.dtype, out, parts_, bytes / size_bytes(call.dtype));
  return arrived;
}

int64_t Messages::all_reduce(const CollectiveCall& call) {
  find_blocks_to_reduce(call, pieces_);
  const Piece own = pieces_[static_cast<size_t>(call.group->self())];
  int64_t arrived = reduce(call, own.receive, own.receive_bytes);
  find_blocks_to_gather(call, pieces_);
  return arrived + move(call);
}

}  // namespace meshard
