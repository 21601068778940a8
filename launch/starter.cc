#include "meshard/launch/starter.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>

namespace meshard {
namespace {

constexpr double kMostRanks = 4096;
constexpr int64_t kGraceSeconds = 5;  // for ranks to see that another has failed, and again after SIGTERM

struct Start {
  int ranks = 0, first = 0, size = 0, hosts = 1;
  std::string place;
  std::vector<std::string> program;
};

// A folder that is gone with this object: where the ranks of one host meet.
class MeetingFolder {
 public:
  MeetingFolder() {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/meshard-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) throw UserError(fmt::format("cannot make a folder {}: {}; set TMPDIR to one that can be written", path_, std::strerror(errno)));
  }
  MeetingFolder(const MeetingFolder&) = delete;
  ~MeetingFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string place() const { return path_ + "/meet"; }

 private:
  std::string path_;
};

Start parse(std::span<const std::string> words, std::span<const std::string> commands) {
  const auto dashes = std::find(words.begin(), words.end(), "--");
  const auto flags = words.first(static_cast<size_t>(dashes - words.begin()));
  const Args args = Args::parse(flags, launch_flags());
  if (dashes == words.end() || dashes + 1 == words.end() || !args.positional().empty()) {
    throw UserError("what shall the ranks run? Write it behind --, as in meshard launch --ranks 4 -- train --text FILE");
  }
  Start start;
  if (!args.has("ranks")) throw UserError("how many ranks shall this host run? Say it with --ranks N");
  start.ranks = static_cast<int>(args.integer("ranks", 1));
  start.first = static_cast<int>(args.integer("first", 0));
  start.size = static_cast<int>(args.integer("size", start.ranks));
  start.hosts = static_cast<int>(args.integer("pretend-hosts", 1));
  start.place = args.text("rendezvous");
  if (start.first + start.ranks > start.size) {
    throw UserError(fmt::format("--first {} and --ranks {} make rank {} the last here, but --size says {} ranks in all", start.first, start.ranks,
                                start.first + start.ranks - 1, start.size));
  }
  if (start.ranks < start.size && start.place.empty()) {
    throw UserError(fmt::format("{} of {} ranks start here: say by --rendezvous HOST:PORT, or a path on a shared folder, where they meet the others", start.ranks, start.size));
  }
  start.program.assign(dashes + 1, words.end());
  if (std::find(commands.begin(), commands.end(), start.program[0]) != commands.end()) {
    start.program.insert(start.program.begin(), std::filesystem::read_symlink("/proc/self/exe").string());
  }
  return start;
}

[[noreturn]] void become(const Start& start, int rank, pid_t parent, const sigset_t& signals) {
  // Ranks that nobody looks after would wait for each other; this one may have lost its parent already.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  setenv("MESHARD_RENDEZVOUS", start.place.c_str(), 1);
  setenv("MESHARD_RANK", std::to_string(rank).c_str(), 1);
  setenv("MESHARD_SIZE", std::to_string(start.size).c_str(), 1);
  if (start.hosts > 1) setenv("MESHARD_HOST_ID", fmt::format("pretended-{}", int64_t{rank} * start.hosts / start.size).c_str(), 1);
  std::vector<char*> words;
  for (const std::string& word : start.program) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  sigprocmask(SIG_SETMASK, &signals, nullptr);
  execvp(words[0], words.data());
  std::fprintf(stderr, "meshard: cannot start %s: %s\n", words[0], std::strerror(errno));
  _exit(127);
}

std::string how_text(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was ended by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

class Children {
 public:
  Children(const Start& start, const sigset_t& signals) : first_(start.first) {
    const pid_t parent = getpid();
    for (int r = 0; r < start.ranks; ++r) {
      const pid_t child = fork();
      if (child == 0) become(start, start.first + r, parent, signals);
      if (child < 0) {
        const int error = errno;
        send(SIGKILL);
        throw UserError(fmt::format("cannot start rank {}: {}", start.first + r, std::strerror(error)));
      }
      ids_.push_back(child);
    }
    statuses_.resize(ids_.size());
    alive_ = static_cast<int>(ids_.size());
  }

  int alive() const { return alive_; }
  bool failed() const { return failed_ >= 0; }

  void send(int signal) const {
    for (const pid_t id : ids_) {
      if (id > 0) kill(id, signal);
    }
  }

  void collect() {
    int status = 0;
    for (pid_t id; (id = waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto at = std::find(ids_.begin(), ids_.end(), id);
      if (at == ids_.end()) continue;
      *at = 0;
      --alive_;
      const auto r = static_cast<size_t>(at - ids_.begin());
      statuses_[r] = status;
      if (status != 0 && failed_ < 0) failed_ = static_cast<int>(r);
    }
  }

  int result() const {
    if (failed_ < 0) return 0;
    const int status = statuses_[static_cast<size_t>(failed_)];
    const bool alike = std::all_of(statuses_.begin(), statuses_.end(), [&](int s) { return s == status; });
    if (!alike || WIFSIGNALED(status)) std::fprintf(stderr, "meshard: rank %d %s\n", first_ + failed_, how_text(status).c_str());
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  int first_;
  std::vector<pid_t> ids_;  // 0: it has ended
  std::vector<int> statuses_;
  int alive_ = 0;
  int failed_ = -1;  // the first
};

}  // namespace

std::vector<Flag> launch_flags() {
  return {{Flag::integer, "ranks", "N", "how many this host runs", 1, kMostRanks},
          {Flag::integer, "first", "R", "the first of them; otherwise 0", 0, kMostRanks * kMostRanks},
          {Flag::integer, "size", "S", "ranks on all hosts; otherwise those of this one", 1, kMostRanks * kMostRanks},
          {Flag::text, "rendezvous", "PLACE", "where all meet: HOST:PORT of rank 0, or a path on a shared folder"},
          {Flag::integer, "pretend-hosts", "K", "ranks behave as on so many hosts, for tests", 1, kMostRanks}};
}

int launch_ranks(std::span<const std::string> words, std::span<const std::string> commands) {
  if (std::getenv("OMPI_COMM_WORLD_RANK") != nullptr) throw UserError("meshard launch starts ranks itself: run it without mpirun");
  Start start = parse(words, commands);
  std::unique_ptr<MeetingFolder> folder;
  if (start.place.empty()) {
    folder = std::make_unique<MeetingFolder>();
    start.place = folder->place();
  }
  sigset_t signals, before;
  sigemptyset(&signals);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, &before);
  Children children(start, before);
  time_t since = 0;  // when a rank had failed, or SIGTERM was sent
  bool told = false;
  while (children.alive() > 0) {
    const timespec second = {1, 0};
    siginfo_t info = {};
    const int signal = sigtimedwait(&signals, &info, &second);
    children.collect();
    // A terminal sends its signals to the ranks too.
    if (signal > 0 && signal != SIGCHLD && info.si_code != SI_KERNEL) children.send(signal);
    if (!children.failed()) continue;
    const time_t now = std::time(nullptr);
    if (since == 0) since = now;
    if (now - since < kGraceSeconds) continue;
    children.send(told ? SIGKILL : SIGTERM);
    told = true;
    since = now;
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return children.result();
}

}  // namespace meshard
