// Chosen by CMake where NCCL is not found.
#include "meshard/base/error.h"
#include "meshard/collectives/nccl.h"

namespace meshard {

bool nccl_available() { return false; }

std::unique_ptr<Communicator> nccl_communicator(Communicator&, Backend&, const NcclOptions&) {
  throw UserError("this build of Meshard has no NCCL: install it and configure again");
}

}  // namespace meshard
