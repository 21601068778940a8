#include "meshard/collectives/shared_window.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "meshard/base/error.h"

namespace meshard {
namespace {

std::string own_name() {
  static std::atomic<int> made = 0;
  return fmt::format("/meshard-{}-{}-{:x}", getpid(), made++, std::chrono::steady_clock::now().time_since_epoch().count());
}

// Maps a file by its name, of `bytes` that are made if it is to be a new one; what went wrong goes to `error`.
std::byte* map(const std::string& name, bool make, int64_t bytes, std::string& error) {
  const int file = shm_open(name.c_str(), make ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
  int status = file < 0 ? errno : 0;
  // Without memory behind it, a page that is touched later would end the process.
  if (status == 0 && make) status = posix_fallocate(file, 0, bytes);
  void* begin = MAP_FAILED;
  if (status == 0) {
    begin = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (begin == MAP_FAILED) status = errno;
  }
  if (file >= 0) close(file);
  if (status == 0) return static_cast<std::byte*>(begin);
  if (error.empty()) error = fmt::format("{} bytes of shared memory, {} in /dev/shm: {}", bytes, name, std::strerror(status));
  return nullptr;
}

}  // namespace

SharedWindow::SharedWindow(Bootstrap& bootstrap, const Host& host, int64_t bytes, const Watchdog& watchdog)
    : bytes_(bytes), segments_(static_cast<size_t>(host.size())) {
  std::string error;
  const std::string name = own_name();
  std::byte*& mine = segments_[static_cast<size_t>(host.self)];
  mine = map(name, true, bytes, error);
  const std::vector<std::string> names = bootstrap.all_gather(mine != nullptr ? name : "", watchdog);
  for (int r = 0; r < host.size(); ++r) {
    const std::string& other = names[static_cast<size_t>(index(host.ranks[static_cast<size_t>(r)]))];
    if (r != host.self && !other.empty()) segments_[static_cast<size_t>(r)] = map(other, false, bytes, error);
  }
  const std::vector<std::string> errors = bootstrap.all_gather(error, watchdog);
  shm_unlink(name.c_str());
  for (size_t r = 0; r < errors.size(); ++r) {
    if (errors[r].empty()) continue;
    for (std::byte* segment : segments_) {
      if (segment != nullptr) munmap(segment, static_cast<size_t>(bytes_));
    }
    throw UserError(fmt::format("rank {} cannot map {}; make /dev/shm larger, or start fewer ranks on its host", r, errors[r]));
  }
}

SharedWindow::~SharedWindow() {
  for (std::byte* segment : segments_) munmap(segment, static_cast<size_t>(bytes_));
}

}  // namespace meshard
