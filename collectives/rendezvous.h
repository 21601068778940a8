// Control messages between the processes of a job over TCP, where there is no MPI: enough to start NCCL, to compare
// programs and to hand errors round. Rank 0 listens, the others come to it. It carries no collectives.
//
//   auto control = rendezvous_communicator({.host = "node0", .port = 29500, .rank = 1, .size = 4});
#pragma once

#include <memory>
#include <string>

#include "meshard/collectives/communicator.h"

namespace meshard {

struct RendezvousOptions {
  std::string host;  // of rank 0
  int port = 29500;
  int rank = 0, size = 1;
  double timeout_seconds = 60;  // of each wait
};

// Comes back when all ranks have come. UserError: they have not within the time-out (who), or the port is taken.
std::unique_ptr<Communicator> rendezvous_communicator(const RendezvousOptions& options);

}  // namespace meshard
