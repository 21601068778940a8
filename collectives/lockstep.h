// Lockstep: all devices in this process, one op at a time: the oracle, and how a laptop tests 8 devices. A call is
// carried out, with real copies that are counted, when its last member has started it; waiting for one that is not
// complete is an error naming who is missing.
#pragma once

#include <memory>
#include <vector>

#include "meshard/collectives/communicator.h"

namespace meshard {

// One communicator per device of a mesh of `size` devices, sharing a hub. gather_text() and barrier() need all devices'
// calls to be made one after the other too: in lockstep they return this device's view of a world of identical ranks.
std::vector<std::unique_ptr<Communicator>> lockstep_communicators(int size);

}  // namespace meshard
