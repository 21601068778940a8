// SharedWindow: one segment of zeros for each rank of this host, which all of them map. The names by which they find
// each other's are gone when it is made, so nothing is left behind, however the job ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "meshard/collectives/bootstrap.h"
#include "meshard/collectives/watchdog.h"

namespace meshard {

class SharedWindow {
 public:
  // Collective over all ranks. UserError, on all of them: a host has no shared memory left (/dev/shm).
  SharedWindow(Bootstrap& bootstrap, const Host& host, int64_t bytes, const Watchdog& watchdog);
  SharedWindow(const SharedWindow&) = delete;
  SharedWindow& operator=(const SharedWindow&) = delete;
  ~SharedWindow();

  const std::vector<std::byte*>& segments() const { return segments_; }  // by local rank

 private:
  int64_t bytes_;
  std::vector<std::byte*> segments_;
};

}  // namespace meshard
