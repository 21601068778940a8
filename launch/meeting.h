// Meeting: where the processes of a job meet that were started without MPI, as their environment says, and what they run.
//
//   MESHARD_RENDEZVOUS   node0:29500, or a path on a folder that all see (collectives/rendezvous.h)
//   MESHARD_RANK         0 and up; without it Slurm's SLURM_PROCID, or RANK
//   MESHARD_SIZE         how many; without it Slurm's SLURM_NTASKS, or WORLD_SIZE
//   MESHARD_MEET_SECONDS how long to wait for all to come; 60 otherwise
//
// Without MESHARD_RENDEZVOUS: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, if all are there; or, in a build without
// MPI, a step of Slurm's, whose first node they meet on, at a port made of the job's number.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "meshard/collectives/rendezvous.h"

namespace meshard {

using Environment = std::function<const char*(const char* name)>;  // std::getenv, or a test's

// Nothing: the environment names no place, or there is one process. UserError: a number is missing or is none.
std::optional<RendezvousOptions> meeting_place(const Environment& environment, bool mpi);

// The first host of a list as Slurm writes it: "gpu[03-07,11],login" is gpu03.
std::string first_host(const std::string& list);

// "program of 31415926 bytes, digest 0123456789abcdef": equal for processes that run the same file.
std::string running_program();

}  // namespace meshard
