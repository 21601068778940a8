// Ranks: the communicator of one process a device, for values in the host's memory. Ranks of one host read and write
// shared memory; across hosts blocks travel as messages, and calls of groups that have as many ranks on each of their
// hosts are made in phases (phases.h). What starts it, MPI or a rendezvous, is its Bootstrap.
#pragma once

#include <memory>
#include <string>

#include "meshard/collectives/bootstrap.h"
#include "meshard/collectives/communicator.h"
#include "meshard/collectives/network.h"

namespace meshard {

struct RankOptions {
  bool shared_memory = true;  // false: messages between pairs only, the slow twin
  // Long blocks are read from the other process's memory where the system allows that; false: all go through shared
  // memory.
  bool read_processes = true;
  // Large buffers that this process makes from now on can be mapped by the other ranks of the host (base/shared_heap.h),
  // which is the fastest way; false: what is read is copied by the system.
  bool share_buffers = true;
  // Calls across hosts in phases; false: each block as a message from its owner to its reader, the slow twin.
  bool phases = true;
  double timeout_seconds = 60;  // of one wait; then a message names rank, call and op, and the job is aborted. 0: never
  // Ranks of one machine that are given different names behave as ranks of different hosts. Empty: they are told apart
  // by the system.
  std::string host;
};

// All ranks must call it. `network` may be null where all ranks are on one host. UserError, on all ranks: there is no
// network and they are not; a host has no room for the shared window.
std::unique_ptr<Communicator> rank_communicator(std::unique_ptr<Bootstrap> bootstrap, std::unique_ptr<Network> network,
                                                const RankOptions& options);

}  // namespace meshard
