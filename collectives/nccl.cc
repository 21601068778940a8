#include "meshard/collectives/nccl.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <thread>
#include <utility>

#include "meshard/collectives/pieces.h"

namespace meshard {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

std::string hex(const ncclUniqueId& id) {
  std::string text;
  for (const char c : id.internal) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}
ncclUniqueId unhex(std::string_view text) {
  ncclUniqueId id;
  MESHARD_CHECK(text.size() == 2 * sizeof id.internal, "rank 0 sent no identifier of NCCL");
  for (size_t i = 0; i < sizeof id.internal; ++i) {
    id.internal[i] = static_cast<char>(std::stoi(std::string(text.substr(2 * i, 2)), nullptr, 16));
  }
  return id;
}

ncclDataType_t type_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64: return ncclFloat64;
    case Dtype::f32: return ncclFloat32;
    case Dtype::bf16: return ncclBfloat16;
    case Dtype::f16: return ncclFloat16;
    case Dtype::i32: return ncclInt32;
  }
  throw InternalError("an unknown dtype");
}
ncclRedOp_t operation_of(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum: return ncclSum;
    case Reduction::max: return ncclMax;
    case Reduction::min: return ncclMin;
  }
  throw InternalError("an unknown reduction");
}

bool all_equal(std::span<const int64_t> counts) {
  for (const int64_t c : counts) {
    if (c != counts[0]) return false;
  }
  return true;
}

class Nccl : public Communicator {
 public:
  Nccl(Communicator& control, Backend& backend, const NcclOptions& options)
      : control_(control),
        backend_(backend),
        options_(options),
        at_(reinterpret_cast<int32_t*>(backend.allocate_pinned(2 * sizeof(int32_t)))) {
    at_[0] = at_[1] = -1;
    ncclUniqueId id;
    std::string mine;
    if (index(rank()) == 0) {
      check(ncclGetUniqueId(&id), "an identifier");
      mine = hex(id);
    }
    id = unhex(control_.gather_text(mine)[0]);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t world = nullptr;
    const ncclResult_t status = ncclCommInitRankConfig(&world, size(), id, static_cast<int>(index(rank())), &config);
    if (status != ncclSuccess && status != ncclInProgress) check(status, "the communicator of all ranks");
    comms_.push_back(world);
    settle(world, "the communicator of all ranks");
    backend_.watch(this, [this](double waited) { look(waited); });
  }

  ~Nccl() override {
    backend_.watch(this, nullptr);
    for (auto it = comms_.rbegin(); it != comms_.rend(); ++it) {
      // Others may not come to the end of a communicator that an error throws this rank out of.
      if (std::uncaught_exceptions() > 0 || !finalized(*it)) {
        ncclCommAbort(*it);
      } else {
        ncclCommDestroy(*it);
      }
    }
    backend_.release_pinned(reinterpret_cast<std::byte*>(at_));
  }

  int size() const override { return control_.size(); }
  Rank rank() const override { return control_.rank(); }
  std::string_view kind() const override { return "nccl"; }
  bool on_stream() const override { return true; }
  void count_replay(int64_t bytes) override { received_ += bytes; }
  int64_t received_bytes() const override { return received_; }
  const CallLog& log() const override { return log_; }
  std::vector<std::string> gather_text(std::string_view text) override { return control_.gather_text(text); }
  void barrier() override { control_.barrier(); }

  void prepare(const Group& group) override { comm_of(group); }

  Ticket start(const CollectiveCall& call) override {
    check_call(call);
    const ncclComm_t comm = comm_of(*call.group);
    const Ticket ticket = log_.begin(call);
    backend_.wait_for(Backend::communication, Backend::compute);
    // Read by the host when nothing moves any more: the call that this rank is in is the one it came to and has not left.
    backend_.store(static_cast<int32_t>(ticket), at_, Backend::communication);
    put(call, comm);
    settle(comm, call_text(call));
    backend_.store(static_cast<int32_t>(ticket), at_ + 1, Backend::communication);
    received_ += meshard::received_bytes(call);
    return ticket;
  }

  void wait(Ticket ticket) override {
    MESHARD_CHECK(ticket >= 0 && ticket < log_.calls(), fmt::format("rank {} has no call {}", index(rank()), ticket));
    log_.end(ticket);
    backend_.wait_for(Backend::compute, Backend::communication);
  }

 private:
  static bool finalized(ncclComm_t comm) {
    const ncclResult_t status = ncclCommFinalize(comm);
    if (status != ncclSuccess && status != ncclInProgress) return false;
    const auto begin = Clock::now();
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress && seconds_since(begin) < 10) {
      if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) return false;
      std::this_thread::yield();
    }
    return state == ncclSuccess;
  }

  void check(ncclResult_t status, const std::string& what) const {
    if (status == ncclSuccess) return;
    const char* last = comms_.empty() ? "" : ncclGetLastError(comms_[0]);
    throw InternalError(fmt::format("rank {}: NCCL: {}: {} {}", index(rank()), what, ncclGetErrorString(status), last));
  }

  // Waits until what was asked of a communicator is under way: it is one that does not block.
  void settle(ncclComm_t comm, const std::string& what) const {
    const auto begin = Clock::now();
    while (true) {
      ncclResult_t state = ncclSuccess;
      check(ncclCommGetAsyncError(comm, &state), what);
      if (state != ncclInProgress) return check(state, what);
      if (options_.timeout_seconds > 0 && seconds_since(begin) > options_.timeout_seconds) {
        fail(fmt::format("rank {}: NCCL: {}, waited {:.3g} s for other ranks to come to it", index(rank()), what, seconds_since(begin)));
      }
      std::this_thread::yield();
    }
  }

  // All ranks come here with the same axes in the same order, each with its own group.
  ncclComm_t comm_of(const Group& group) {
    if (group.size() == size()) return comms_[0];
    ncclComm_t& comm = by_axes_[group.over().bits];
    if (comm != nullptr) return comm;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t status = ncclCommSplit(comms_[0], static_cast<int>(index(group[0])), group.self(), &comm, &config);
    if (status != ncclSuccess && status != ncclInProgress) check(status, "a group's communicator");
    settle(comms_[0], "a group's communicator");
    settle(comm, "a group's communicator");
    comms_.push_back(comm);
    return comm;
  }

  void put(const CollectiveCall& call, ncclComm_t comm) {
    const auto stream = static_cast<cudaStream_t>(backend_.native(Backend::communication));
    const ncclDataType_t type = type_of(call.dtype);
    const auto count = [](int64_t n) { return static_cast<size_t>(n); };
    const auto accept = [&](ncclResult_t status) {
      if (status != ncclInProgress) check(status, call_text(call));
    };
    const int self = call.group->self(), p = call.group->size();
    switch (call.kind) {
      case Collective::all_reduce:
        return accept(ncclAllReduce(call.send, call.receive, count(call.send_elements), type, operation_of(call.reduction), comm, stream));
      case Collective::broadcast:
        return accept(ncclBroadcast(call.send, self == 0 ? const_cast<void*>(call.send) : call.receive, count(call.send_elements), type, 0, comm, stream));
      case Collective::all_gather:
        if (all_equal(call.counts)) return accept(ncclAllGather(call.send, call.receive, count(call.counts[0]), type, comm, stream));
        break;
      case Collective::reduce_scatter:
        if (all_equal(call.counts)) {
          return accept(ncclReduceScatter(call.send, call.receive, count(call.counts[0]), type, operation_of(call.reduction), comm, stream));
        }
        break;
      case Collective::all_to_all:
      case Collective::permute:
      case Collective::exchange: break;
      case Collective::barrier:
      case Collective::slice: return;
    }
    // Uneven blocks: one call for each, all in one group.
    find_pieces(call, pieces_);
    const int64_t size = size_bytes(call.dtype);
    accept(ncclGroupStart());
    for (int m = 0; m < p; ++m) {
      const Piece& piece = pieces_[static_cast<size_t>(m)];
      if (call.kind == Collective::all_gather) {
        if (piece.receive_bytes > 0) accept(ncclBroadcast(call.send, piece.receive, count(piece.receive_bytes / size), type, m, comm, stream));
      } else if (call.kind == Collective::reduce_scatter) {
        if (piece.send_bytes > 0) {
          accept(ncclReduce(piece.send, call.receive, count(piece.send_bytes / size), type, operation_of(call.reduction), m, comm, stream));
        }
      } else {
        if (piece.send_bytes > 0) accept(ncclSend(piece.send, count(piece.send_bytes / size), type, m, comm, stream));
        if (piece.receive_bytes > 0) accept(ncclRecv(piece.receive, count(piece.receive_bytes / size), type, m, comm, stream));
      }
    }
    accept(ncclGroupEnd());
  }

  // While the host waits for the device: has a communicator failed, or do the others not come to a call? A device that
  // computes may take as long as it wants.
  void look(double waited) {
    const volatile int32_t* at = at_;
    const std::pair<int32_t, int32_t> now{at[0], at[1]};
    if (now != seen_ || waited < seen_after_) {
      seen_ = now;
      seen_after_ = waited;
    }
    const bool inside = now.first != now.second;
    for (const ncclComm_t comm : comms_) {
      ncclResult_t state = ncclSuccess;
      if (ncclCommGetAsyncError(comm, &state) == ncclSuccess && state != ncclSuccess && state != ncclInProgress) {
        fail(fmt::format("rank {}: {}: {} {}", index(rank()), inside ? place(now.first) : "after its collectives", ncclGetErrorString(state),
                         ncclGetLastError(comm)));
      }
    }
    const double stood = waited - seen_after_;
    if (inside && options_.timeout_seconds > 0 && stood > options_.timeout_seconds) {
      fail(fmt::format("rank {}: {}, waited {:.3g} s for other ranks to come to it", index(rank()), place(now.first), stood));
    }
  }

  std::string place(int32_t call) const {
    const CallRecord* record = log_.find(call);
    if (record == nullptr) return fmt::format("collective number {}", call);
    return fmt::format("{} ({}), call {}", name(record->kind), static_cast<const char*>(record->label), record->number);
  }

  [[noreturn]] void fail(const std::string& text) const {
    std::fprintf(stderr, "%s\n", text.c_str());
    std::fflush(stderr);
    for (const ncclComm_t comm : comms_) ncclCommAbort(comm);
    if (options_.abort) options_.abort(3);
    throw InternalError(text);
  }

  Communicator& control_;
  Backend& backend_;
  NcclOptions options_;
  int32_t* at_;  // in pinned memory: the last call that the device came to, and the last that it has done
  std::pair<int32_t, int32_t> seen_{-1, -1};
  double seen_after_ = 0;  // seconds of the host's wait until it saw them last change
  std::vector<ncclComm_t> comms_;  // that of all ranks first
  std::map<uint64_t, ncclComm_t> by_axes_;
  std::vector<Piece> pieces_;
  CallLog log_{4096};
  int64_t received_ = 0;
};

}  // namespace

bool nccl_available() { return true; }

std::unique_ptr<Communicator> nccl_communicator(Communicator& control, Backend& backend, const NcclOptions& options) {
  return std::make_unique<Nccl>(control, backend, options);
}

}  // namespace meshard
