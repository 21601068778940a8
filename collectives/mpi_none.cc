// Chosen by CMake where MPI is not found.
#include "meshard/base/error.h"
#include "meshard/collectives/mpi.h"

namespace meshard {

bool mpi_available() { return false; }

std::unique_ptr<Communicator> mpi_communicator(const void*, const RankOptions&) {
  throw UserError(
      "this build of Meshard has no MPI: install Open MPI and configure again, or start ranks with meshard launch");
}

}  // namespace meshard
