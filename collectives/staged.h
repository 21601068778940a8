// Collectives of values in a backend's memory through a communicator of the host's: each block is copied to pinned memory,
// sent from there, and what arrives is copied back. For GPUs without NCCL; the host waits in every call.
#pragma once

#include <memory>

#include "meshard/backend/backend.h"
#include "meshard/collectives/communicator.h"

namespace meshard {

// Both must outlive it. Bytes and calls are counted by `host`.
std::unique_ptr<Communicator> staged_communicator(Communicator& host, Backend& backend);

}  // namespace meshard
