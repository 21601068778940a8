// Rendezvous: processes that nobody started together meet, by TCP. Each knows its rank, how many there are, and a place:
// "node0:29500", where rank 0 listens on that port of node0, or a path on a folder that all see, where rank 0 writes how
// to reach it. Who can reach that port can take part: use it in networks that you trust.
//
//   auto bootstrap = rendezvous({.place = "node0:29500", .rank = 1, .size = 4});
//   auto comm = rendezvous_communicator({.place = "/shared/job7", .rank = 1, .size = 4}, {});
//
// Ranks of different hosts also call each other at ports that the system gives them. All texts go over rank 0. A rank that goes away is seen by rank 0, which then ends the others.
#pragma once

#include <memory>
#include <string>

#include "meshard/collectives/ranks.h"

namespace meshard {

struct RendezvousOptions {
  std::string place;  // with a slash: a path; otherwise host:port
  int rank = 0, size = 1;
  double timeout_seconds = 60;  // for all to come
};

// Comes back when all ranks have come. UserError, on all that have come, with the same text: some have not within the
// time-out (which), two have one rank, they differ about the size. On one rank: a place that is neither, the port is
// taken, the file cannot be written, rank 0 cannot be found.
std::unique_ptr<Bootstrap> rendezvous(const RendezvousOptions& options);

// The same, and the communicator that it starts: shared memory within hosts, TCP between them.
std::unique_ptr<Communicator> rendezvous_communicator(const RendezvousOptions& options, const RankOptions& ranks);

}  // namespace meshard
