// MPI: one process per device. On one host, blocks travel through a shared-memory window, several times faster than
// Open MPI's own collectives; across hosts, by non-blocking MPI point-to-point calls. Linked only where MPI is found;
// otherwise mpi_none.cc answers.
#pragma once

#include <memory>

#include "meshard/collectives/communicator.h"

namespace meshard {

struct MpiOptions {
  bool shared_memory = true;  // false: point-to-point messages only, the slow twin
  // Long blocks are read from the other process's memory where the system allows that; false: all go through shared
  // memory.
  bool read_processes = true;
  // Large buffers that this process makes from now on can be mapped by the other ranks of the host (base/shared_heap.h),
  // which is the fastest way; false: what is read is copied by the system.
  bool share_buffers = true;
  double timeout_seconds = 60;  // of one wait; then a message names rank, call and op, and the job is aborted. 0: never
};

bool mpi_available();
// `comm` points to an MPI_Comm that the caller keeps (its ranks must be the mesh's), nullptr: MPI_COMM_WORLD. MPI must
// be initialized: only launch/ does that. All ranks must call it, and all must destroy what it gives.
std::unique_ptr<Communicator> mpi_communicator(const void* comm, const MpiOptions& options = {});

}  // namespace meshard
