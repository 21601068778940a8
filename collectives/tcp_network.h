// Messages between ranks by TCP, where MPI is not there. A pair is connected when it first has something to send; each
// message says its length.
#pragma once

#include <memory>

#include "meshard/collectives/bootstrap.h"
#include "meshard/collectives/network.h"

namespace meshard {

// Collective over all ranks.
std::unique_ptr<Network> tcp_network(Bootstrap& bootstrap, const Watchdog& watchdog);

}  // namespace meshard
