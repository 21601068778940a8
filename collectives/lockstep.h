// Lockstep: all devices in this process, one op at a time: the oracle, and how a laptop tests 8 devices. A call is
// carried out, with real copies that are counted, when its last member has started it; waiting for one that is not
// complete is an error naming who is missing.
#pragma once

#include <memory>
#include <vector>

#include "meshard/backend/backend.h"
#include "meshard/collectives/communicator.h"

namespace meshard {

// One communicator per device of a mesh of `size` devices, sharing a hub. gather_text() and barrier() need all devices'
// calls to be made one after the other too: in lockstep they return this device's view of a world of identical ranks.
// With a backend the blocks are in its memory, and the copies are put on its communication stream: they begin when what
// the compute stream had at the start of the last member is done, and the compute stream waits for them in wait().
std::vector<std::unique_ptr<Communicator>> lockstep_communicators(int size, Backend* backend = nullptr);

}  // namespace meshard
