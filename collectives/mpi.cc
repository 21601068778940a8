#include "meshard/collectives/mpi.h"

#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <exception>
#include <numeric>

#include "meshard/base/shared_heap.h"
#include "meshard/collectives/messages.h"
#include "meshard/collectives/pieces.h"
#include "meshard/collectives/shared_memory.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {
namespace {

bool mpi_is_up() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

class Comm {
 public:
  explicit Comm(MPI_Comm from) { MPI_Comm_dup(from, &comm_); }
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;
  ~Comm() {
    if (mpi_is_up()) MPI_Comm_free(&comm_);
  }
  const MPI_Comm& get() const { return comm_; }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

// One segment of memory for each rank of this host, which all of them can read.
class Window {
 public:
  Window(MPI_Comm host_comm, int64_t bytes) {
    // Each rank's segment on pages of its own: it is the one that writes there.
    MPI_Info info;
    MPI_Info_create(&info);
    MPI_Info_set(info, "alloc_shared_noncontig", "true");
    void* base = nullptr;
    MPI_Win_allocate_shared(static_cast<MPI_Aint>(bytes), 1, info, host_comm, &base, &window_);
    MPI_Info_free(&info);
    int ranks = 0;
    MPI_Comm_size(host_comm, &ranks);
    for (int r = 0; r < ranks; ++r) {
      MPI_Aint size = 0;
      int unit = 0;
      void* segment = nullptr;
      MPI_Win_shared_query(window_, r, &size, &unit, &segment);
      segments_.push_back(static_cast<std::byte*>(segment));
    }
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;
  ~Window() {
    // All ranks must take part in this, and one that is thrown out by an error is likely alone.
    if (mpi_is_up() && std::uncaught_exceptions() == 0) MPI_Win_free(&window_);
  }
  const std::vector<std::byte*>& segments() const { return segments_; }

 private:
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<std::byte*> segments_;
};

Host find_host(MPI_Comm comm, MPI_Comm host_comm) {
  Host host;
  int ranks = 0, on_host = 0, self = 0;
  MPI_Comm_size(comm, &ranks);
  MPI_Comm_size(host_comm, &on_host);
  MPI_Comm_rank(host_comm, &host.self);
  MPI_Comm_rank(comm, &self);
  std::vector<int> members(static_cast<size_t>(on_host));
  MPI_Allgather(&self, 1, MPI_INT, members.data(), 1, MPI_INT, host_comm);
  host.local.assign(static_cast<size_t>(ranks), -1);
  for (int i = 0; i < on_host; ++i) {
    host.local[static_cast<size_t>(members[i])] = i;
    host.ranks.push_back(static_cast<Rank>(members[i]));
  }
  return host;
}

// The memory of the host's ranks, if each of them may reach that of all others, else null. The system may forbid it, or
// the ranks may count processes differently (containers).
std::unique_ptr<ProcessMemory> process_memory(MPI_Comm host_comm, const Host& host, bool share_buffers) {
  using Process = ProcessMemory::Process;
  uint64_t value = static_cast<uint64_t>(getpid()) * 0x9e3779b97f4a7c15u;
  value ^= reinterpret_cast<uint64_t>(&value);
  Process mine{.id = getpid(), .proof = &value};
  if (share_buffers && SharedHeap::open()) {
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
  std::vector<Process> processes(static_cast<size_t>(host.size()));
  MPI_Allgather(&mine, sizeof(Process), MPI_BYTE, processes.data(), sizeof(Process), MPI_BYTE, host_comm);
  auto memory = std::make_unique<ProcessMemory>(std::move(processes), host.self);
  int reached = memory->reaches_all();
  MPI_Allreduce(MPI_IN_PLACE, &reached, 1, MPI_INT, MPI_LAND, host_comm);  // after it, nobody needs `value` any more
  if (!reached) memory.reset();
  return memory;
}

// A rank that has a core for itself waits some microseconds before it gives the core away; others give it away at once.
int spins_for(int ranks_on_host) { return ranks_on_host <= sysconf(_SC_NPROCESSORS_ONLN) ? 256 : 4; }

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, const MpiOptions& options)
      : data_(comm),
        control_(comm),
        host_comm_(split_by_host(comm)),
        host_(find_host(comm, host_comm_)),
        window_(host_comm_, window_bytes(options)),
        board_(host_, window_.segments()),
        watchdog_(options.timeout_seconds, spins_for(host_.size()), [this](double waited) { expire(waited); }),
        messages_(&data_.get(), watchdog_) {
    MPI_Comm_size(comm, &size_);
    MPI_Comm_rank(comm, &rank_);
    for (int r = 0; r < size_; ++r) everyone_.push_back(static_cast<Rank>(r));
    std::byte* mine = window_.segments()[static_cast<size_t>(host_.self)];
    std::memset(mine, 0, static_cast<size_t>(Board::entry_bytes(host_.size())));
    if (options.shared_memory) {
      std::vector<std::byte*> segments = window_.segments();
      for (std::byte*& segment : segments) segment += Board::entry_bytes(host_.size());
      std::memset(segments[static_cast<size_t>(host_.self)], 0,
                  static_cast<size_t>(Channel::counter_bytes(host_.size())));
      std::unique_ptr<ProcessMemory> memory;
      if (options.read_processes && host_.size() > 1) memory = process_memory(host_comm_, host_, options.share_buffers);
      shared_ = std::make_unique<SharedMemory>(host_, board_, segments, std::move(memory), watchdog_);
    }
    MPI_Barrier(host_comm_);  // nobody reads a segment that is not zeros yet
  }

  ~MpiCommunicator() override {
    if (mpi_is_up()) MPI_Comm_free(&host_comm_);
  }

  int size() const override { return size_; }
  Rank rank() const override { return static_cast<Rank>(rank_); }
  std::string_view kind() const override { return "mpi"; }
  int64_t received_bytes() const override { return received_; }
  const CallLog& log() const override { return log_; }

  // A call is carried out when it, or a later one, is waited for: the order is that of the program, so one rank's call
  // meets the same call of the others.
  Ticket start(const CollectiveCall& call) override {
    check_call(call);
    MESHARD_CHECK((*call.group)[call.group->self()] == rank(),
                  fmt::format("rank {} starts {} with the group of rank {}", rank_, call_text(call),
                              index((*call.group)[call.group->self()])));
    Ticket ticket = log_.begin(call);
    queue_.push_back(call);
    return ticket;
  }

  void wait(Ticket ticket) override {
    MESHARD_CHECK(ticket >= 0 && ticket < log_.calls(), fmt::format("rank {} has no call {}", rank_, ticket));
    for (; ended_ <= ticket; ++ended_) carry_out(queue_[next_++]);
    // Calls leave the queue in bulk: the array is not moved for each of them.
    if (next_ == queue_.size() || next_ > 1024) {
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(next_));
      next_ = 0;
    }
  }

  std::vector<std::string> gather_text(std::string_view text) override {
    MESHARD_CHECK(text.size() < INT_MAX, fmt::format("a text of {} bytes between ranks", text.size()));
    int length = static_cast<int>(text.size());
    std::vector<int> lengths(static_cast<size_t>(size_)), offsets(static_cast<size_t>(size_));
    MPI_Request request;
    enter_control("gather_text");
    MPI_Iallgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, control_.get(), &request);
    finish(request);
    int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    MESHARD_CHECK(total < INT_MAX, fmt::format("texts of {} bytes in all between ranks", total));
    std::exclusive_scan(lengths.begin(), lengths.end(), offsets.begin(), 0);
    std::string all(static_cast<size_t>(total), '\0');
    MPI_Iallgatherv(text.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, control_.get(),
                    &request);
    finish(request);
    board_.leave_control();
    std::vector<std::string> texts;
    for (size_t r = 0; r < lengths.size(); ++r) {
      texts.push_back(all.substr(static_cast<size_t>(offsets[r]), static_cast<size_t>(lengths[r])));
    }
    return texts;
  }

  void barrier() override {
    MPI_Request request;
    enter_control("barrier");
    MPI_Ibarrier(control_.get(), &request);
    finish(request);
    board_.leave_control();
  }

 private:
  static MPI_Comm split_by_host(MPI_Comm comm) {
    MPI_Comm host_comm;
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host_comm);
    return host_comm;
  }

  int64_t window_bytes(const MpiOptions& options) const {
    return Board::entry_bytes(host_.size()) + (options.shared_memory ? Channel::segment_bytes(host_.size()) : 0);
  }

  void carry_out(const CollectiveCall& call) {
    board_.enter(call, ended_);
    now_ = &call;
    bool shared = shared_ != nullptr && host_.has_all(*call.group);
    received_ += shared ? shared_->carry_out(call) : messages_.carry_out(call);
    now_ = nullptr;
    board_.leave();
    log_.end(ended_);
  }

  void enter_control(std::string_view what) {
    board_.enter_control(what);
    control_now_ = what;
  }

  void finish(MPI_Request& request) {
    watchdog_.until([&request] {
      int done = 0;
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      return done != 0;
    });
  }

  // Nothing comes any more: says who is missing and ends the job, since the other ranks cannot go on either.
  [[noreturn]] void expire(double waited) {
    std::string text = fmt::format("rank {}: ", rank_);
    if (now_ != nullptr) {
      text += fmt::format("{} over {}, call {}", call_text(*now_), ranks_text(now_->group->ranks()), ended_);
    } else {
      text += fmt::format("{} of all ranks", control_now_);
    }
    std::span<const Rank> ranks = now_ != nullptr ? now_->group->ranks() : std::span<const Rank>(everyone_);
    text += fmt::format(", waited {:.3g} s; {}\n", waited, board_.news(ranks));
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
    MPI_Abort(data_.get(), 3);
    throw InternalError(text);
  }

  Comm data_, control_;
  MPI_Comm host_comm_;
  Host host_;
  Window window_;
  Board board_;
  Watchdog watchdog_;
  Messages messages_;
  std::unique_ptr<SharedMemory> shared_;
  int size_ = 1, rank_ = 0;
  std::vector<Rank> everyone_;
  CallLog log_;
  std::vector<CollectiveCall> queue_;  // started; those before next_ are carried out
  size_t next_ = 0;
  Ticket ended_ = 0;                     // calls that are carried out
  const CollectiveCall* now_ = nullptr;  // the one being carried out
  std::string_view control_now_;         // the last control message
  int64_t received_ = 0;
};

}  // namespace

bool mpi_available() { return true; }

std::unique_ptr<Communicator> mpi_communicator(const void* comm, const MpiOptions& options) {
  if (!mpi_is_up()) throw UserError("MPI is not initialized: call MPI_Init before making a communicator");
  return std::make_unique<MpiCommunicator>(comm != nullptr ? *static_cast<const MPI_Comm*>(comm) : MPI_COMM_WORLD,
                                           options);
}

}  // namespace meshard
