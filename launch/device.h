// Which device this process runs on: `--device cpu|cuda|emulated`, and what is refused before a run begins.
#pragma once

#include <memory>
#include <string>

#include "meshard/backend/backend.h"
#include "meshard/launch/job.h"
#include "meshard/runtime/compile.h"

namespace meshard {

// The rank's GPU, by its number among the ranks of its host; null for "cpu". Errors, the same on all ranks: no GPU, a
// driver older than the runtime, more ranks on a host than it has GPUs, unless `share`.
std::unique_ptr<Backend> open_device(Job& job, const std::string& kind, bool share);

// Refuses a run that the device's memory cannot hold, before anything is allocated, with what takes how much. `devices`:
// of the mesh on this process's device.
void check_device_memory(Job& job, const Backend& backend, const Compiled& step, int64_t devices);

}  // namespace meshard
