#include "meshard/collectives/mpi.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <numeric>

#include "meshard/base/error.h"

namespace meshard {
namespace {

constexpr int kTag = 1;                           // messages of a pair arrive in order: one tag is enough
constexpr int64_t kMostBytes = int64_t{1} << 30;  // of one message: MPI counts in int

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

class MpiBootstrap : public Bootstrap {
 public:
  explicit MpiBootstrap(MPI_Comm comm) : comm_(comm) {
    MPI_Comm_size(comm, &size_);
    MPI_Comm_rank(comm, &rank_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view kind() const override { return "mpi"; }

  std::vector<std::string> all_gather(std::string_view bytes, const Watchdog& watchdog) override {
    MESHARD_CHECK(bytes.size() < INT_MAX, fmt::format("a text of {} bytes between ranks", bytes.size()));
    int length = static_cast<int>(bytes.size());
    std::vector<int> lengths(static_cast<size_t>(size_)), offsets(static_cast<size_t>(size_));
    MPI_Request request;
    MPI_Iallgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, comm_.get(), &request);
    finish(request, watchdog);
    int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    MESHARD_CHECK(total < INT_MAX, fmt::format("texts of {} bytes in all between ranks", total));
    std::exclusive_scan(lengths.begin(), lengths.end(), offsets.begin(), 0);
    std::string all(static_cast<size_t>(total), '\0');
    MPI_Iallgatherv(bytes.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, comm_.get(),
                    &request);
    finish(request, watchdog);
    std::vector<std::string> texts;
    for (size_t r = 0; r < lengths.size(); ++r) {
      texts.push_back(all.substr(static_cast<size_t>(offsets[r]), static_cast<size_t>(lengths[r])));
    }
    return texts;
  }

  void barrier(const Watchdog& watchdog) override {
    MPI_Request request;
    MPI_Ibarrier(comm_.get(), &request);
    finish(request, watchdog);
  }

  [[noreturn]] void abort(int status) override {
    MPI_Abort(comm_.get(), status);
    std::_Exit(status);
  }

 private:
  static void finish(MPI_Request& request, const Watchdog& watchdog) {
    watchdog.until([&request] {
      int done = 0;
      MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      return done != 0;
    });
  }

  Comm comm_;
  int size_ = 1, rank_ = 0;
};

class MpiNetwork : public Network {
 public:
  explicit MpiNetwork(MPI_Comm comm) : comm_(comm) {}

  void receive(Rank from, std::byte* data, int64_t bytes) override {
    do {
      int part = static_cast<int>(std::min(bytes, kMostBytes));
      MPI_Irecv(data, part, MPI_BYTE, static_cast<int>(index(from)), kTag, comm_.get(), &receives_.emplace_back());
      data += part;
      bytes -= part;
    } while (bytes > 0);
  }

  void send(Rank to, const std::byte* data, int64_t bytes) override {
    do {
      int part = static_cast<int>(std::min(bytes, kMostBytes));
      MPI_Isend(data, part, MPI_BYTE, static_cast<int>(index(to)), kTag, comm_.get(), &sends_.emplace_back());
      data += part;
      bytes -= part;
    } while (bytes > 0);
  }

  int64_t finish(const Watchdog& watchdog) override {
    statuses_.resize(receives_.size());
    bool received = false;
    watchdog.until([&] {
      int done = 0;
      if (!received) MPI_Testall(static_cast<int>(receives_.size()), receives_.data(), &done, statuses_.data());
      received = received || done != 0;
      MPI_Testall(static_cast<int>(sends_.size()), sends_.data(), &done, MPI_STATUSES_IGNORE);
      return received && done != 0;
    });
    int64_t arrived = 0;
    for (const MPI_Status& status : statuses_) {
      int bytes = 0;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      arrived += bytes;
    }
    receives_.clear();
    sends_.clear();
    return arrived;
  }

 private:
  Comm comm_;
  std::vector<MPI_Request> receives_, sends_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace

bool mpi_available() { return true; }

std::unique_ptr<Communicator> mpi_communicator(const void* comm, const RankOptions& options) {
  if (!mpi_is_up()) throw UserError("MPI is not initialized: call MPI_Init before making a communicator");
  const MPI_Comm from = comm != nullptr ? *static_cast<const MPI_Comm*>(comm) : MPI_COMM_WORLD;
  auto bootstrap = std::make_unique<MpiBootstrap>(from);
  return rank_communicator(std::move(bootstrap), std::make_unique<MpiNetwork>(from), options);
}

}  // namespace meshard
