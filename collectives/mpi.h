// MPI: one process per device, started by mpirun or Slurm. MPI brings the ranks together and carries what crosses between
// hosts; within a host they share memory (ranks.h). Linked only where MPI is found; otherwise mpi_none.cc answers.
#pragma once

#include <memory>

#include "meshard/collectives/ranks.h"

namespace meshard {

bool mpi_available();
// `comm` points to an MPI_Comm that the caller keeps (its ranks must be the mesh's), nullptr: MPI_COMM_WORLD. MPI must
// be initialized: only launch/ does that. All ranks must call it.
std::unique_ptr<Communicator> mpi_communicator(const void* comm, const RankOptions& options = {});

}  // namespace meshard
