#include "meshard/launch/job.h"

#include <absl/strings/numbers.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <new>
#include <vector>

#include "meshard/base/error.h"
#include "meshard/collectives/lockstep.h"
#include "meshard/collectives/mpi.h"
#include "meshard/collectives/nccl.h"
#include "meshard/collectives/staged.h"
#include "meshard/launch/meeting.h"
#include "meshard/launch/process.h"

namespace meshard {
namespace {

// A signal handler can reach nothing but globals of such types.
volatile std::sig_atomic_t stop_signal = 0;
std::atomic<int64_t> stop_second = 0;
static_assert(std::atomic<int64_t>::is_always_lock_free);

constexpr size_t kHandlerStack = 256 << 10;  // a frame of wide registers takes some KiB

void on_stop(int signal) {
  const int64_t now = std::time(nullptr);
  if (stop_signal == 0) {
    stop_second = now;
    stop_signal = signal;
  } else if (now - stop_second >= 2) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // delivered when this handler returns
  }
}

int64_t read_number(const char* path) {
  std::ifstream in(path);
  int64_t value = -1;
  return in >> value ? value : -1;
}

// The environment variables by which MPI's launchers say how many processes there are. Of Slurm's only those of a step
// count: SLURM_NTASKS and even SLURM_PROCID are set in a batch script too, which is one process.
int launched_size() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (const char* value = std::getenv(name)) return std::atoi(value);
  }
  return 1;
}

// The seconds that a rank waits for others, before it says where it stands and ends the job.
double patience() {
  const char* text = std::getenv("MESHARD_TIMEOUT");
  double seconds = 60;
  if (text != nullptr && (!absl::SimpleAtod(text, &seconds) || !(seconds >= 0))) {
    throw UserError(fmt::format("MESHARD_TIMEOUT is \"{}\", not a number of seconds; 0 waits for ever", text));
  }
  return seconds;
}

RankOptions rank_options() {
  RankOptions options;
  options.timeout_seconds = patience();
  if (const char* host = std::getenv("MESHARD_HOST_ID")) options.host = host;
  return options;
}

}  // namespace

Job::Job(int* argc, char*** argv) {
  const int launched = launched_size();
  const auto meeting = meeting_place([](const char* name) -> const char* { return std::getenv(name); }, mpi_available());
  if (meeting) {
    world_ = rendezvous_communicator(*meeting, rank_options());
  } else if (launched > 1 || std::getenv("OMPI_COMM_WORLD_RANK") != nullptr) {
    if (!mpi_available()) {
      throw UserError(fmt::format("{} processes were started, but this meshard was built without MPI; start them with meshard launch --ranks {} -- ..., "
                                  "say by MESHARD_RENDEZVOUS where they meet, or use --lockstep in one process", launched, launched));
    }
    process_start(argc, argv);
    mpi_ = true;
    world_ = mpi_communicator(nullptr, rank_options());
    if (world_->size() != launched && std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) {
      throw UserError(fmt::format("the launcher started {} processes, but MPI sees {}; with Slurm use srun --mpi=pmix, or mpirun inside the allocation", launched, world_->size()));
    }
  } else {
    owned_ = lockstep_communicators(1);
    return;
  }
  rank_ = static_cast<int>(index(world_->rank()));
  size_ = world_->size();
  if (size_ > 1) agree_on_text(*world_, "meshard", running_program());
}

Job::~Job() {
  between_.reset();
  owned_.clear();
  world_.reset();
  if (mpi_) process_end();
}

std::string Job::starter() const { return mpi_ || (!world_ && mpi_available()) ? "mpirun" : "meshard launch"; }

std::string Job::start_text(int64_t ranks) const { return fmt::format("{} {} {}", starter(), starter() == "mpirun" ? "-n" : "--ranks", ranks); }

std::span<Communicator* const> Job::devices(int64_t devices, bool lockstep, const std::string& mesh_text, Backend* backend) {
  devices_.clear();
  if (lockstep) {
    if (size_ > 1) throw UserError(fmt::format("--lockstep runs all devices in one process, but {} were started; leave out {} or --lockstep", size_, starter()));
    owned_ = lockstep_communicators(static_cast<int>(devices), backend);
    for (auto& c : owned_) devices_.push_back(c.get());
    return devices_;
  }
  if (devices != size_) {
    throw UserError(fmt::format("the mesh {} has {} device{}, but {} {} running; start {} ({}), change --mesh, or add --lockstep to run all in one process",
                                mesh_text.empty() ? "of one device" : mesh_text, devices, devices == 1 ? "" : "s", size_,
                                size_ == 1 ? "rank is" : "ranks are", devices, start_text(devices)));
  }
  if (backend != nullptr && world_) {
    const NcclOptions options{.timeout_seconds = patience(), .abort = [this](int status) { world_->abort(status); }};
    const bool nccl = nccl_available() && backend->kind() == "cuda";
    between_ = nccl ? nccl_communicator(*world_, *backend, options) : staged_communicator(*world_, *backend);
    devices_.push_back(between_.get());
    return devices_;
  }
  if (backend != nullptr) owned_ = lockstep_communicators(1, backend);
  devices_.push_back(world_ ? world_.get() : owned_.front().get());
  return devices_;
}

void Job::abort(int status) {
  if (world_) world_->abort(status);
  std::_Exit(status);
}

void Job::drop_devices() {
  devices_.clear();
  between_.reset();
  if (!world_) owned_ = lockstep_communicators(1);
}

void Job::agree(const std::string& error) {
  if (world_) return meshard::agree(*world_, error);
  if (!error.empty()) throw UserError(error);
}

std::vector<std::string> Job::gather(const std::string& text) {
  if (world_) return world_->gather_text(text);
  return {text};
}

void Job::stop_on_signals() {
  // On a stack of its own: generated code of matrix products keeps data below the stack pointer, further than the
  // system keeps clear of, and a handler on that stack writes over it.
  static std::vector<char> memory(kHandlerStack);
  const stack_t stack{.ss_sp = memory.data(), .ss_flags = 0, .ss_size = memory.size()};
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_handler = on_stop;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  // mpirun hands SIGUSR1 on and waits, where SIGINT and SIGTERM make it end its ranks; Slurm sends it before a limit.
  for (int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaction(signal, &action, nullptr);
}

bool Job::any_stop() {
  for (const std::string& s : gather(stop_signal != 0 ? "stop" : "")) {
    if (!s.empty()) return true;
  }
  return false;
}

int64_t Job::available_bytes() {
  int64_t least = INT64_MAX;
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  for (int64_t value; in >> key >> value; std::getline(in, unit)) {
    if (key == "MemAvailable:") least = value * 1024;
  }
  const auto group = [&](const char* limit_path, const char* used_path) {
    const int64_t limit = read_number(limit_path), used = read_number(used_path);
    if (limit > 0 && used >= 0 && limit < (int64_t{1} << 60)) least = std::min(least, std::max<int64_t>(0, limit - used));
  };
  group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
  group("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes");
  return least;
}

std::string Job::host() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

int run_job(int argc, char** argv, const std::function<int(Job&, std::span<const std::string>)>& body) {
  // Before there is a communicator, the launcher's variables say who prints.
  bool speaker = true;
  for (const char* name : {"MESHARD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", "RANK"}) {
    if (const char* value = std::getenv(name)) {
      speaker = std::atoi(value) <= 0;  // a number that is none is said too
      break;
    }
  }
  try {
    Job job(&argc, &argv);
    const std::vector<std::string> words(argv + 1, argv + argc);
    try {
      return body(job, words);
    } catch (const UserError& e) {
      // Said while the other ranks still wait for this one: the first to leave with a status makes mpirun end the rest.
      if (job.first()) std::fprintf(stderr, "meshard: %s\n", e.what());
      return 2;
    } catch (const std::exception& e) {
      // What one rank alone runs into must not leave the others waiting.
      std::fprintf(stderr, "meshard: rank %d: %s%s\n", job.rank(), dynamic_cast<const InternalError*>(&e) ? "internal error: " : "",
                   dynamic_cast<const std::bad_alloc*>(&e) ? "out of memory" : e.what());
      if (job.size() > 1) job.abort(3);
      return 3;
    }
  } catch (const UserError& e) {
    if (speaker) std::fprintf(stderr, "meshard: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "meshard: internal error: %s\n", e.what());
    return 3;
  }
}

}  // namespace meshard
