// Starter: `meshard launch`, which starts the ranks of this host without mpirun.
//
//   meshard launch --ranks 4 -- train --text book.txt --plan data --mesh data=4
//   meshard launch --ranks 8 --first 8 --size 16 --rendezvous node0:29500 -- train ...   # on the second of two hosts
//   meshard launch --ranks 4 -- ./my_program                                            # one that makes a Job
//
// Each rank gets MESHARD_RENDEZVOUS, MESHARD_RANK and MESHARD_SIZE (launch/meeting.h). SIGINT, SIGTERM, SIGUSR1 and SIGHUP
// are handed on. When one rank ends with another status than 0, the others get some seconds to end by themselves, then
// SIGTERM, then SIGKILL; it is named where it did not end as all others did.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "meshard/launch/args.h"

namespace meshard {

std::vector<Flag> launch_flags();

// Returns when all ranks have ended: the status of the first that failed, 128 and the signal's number if one ended it, or
// 0. UserError: wrong flags. `commands`: what follows "--" is one of these, run by this same program, or another program.
int launch_ranks(std::span<const std::string> words, std::span<const std::string> commands);

}  // namespace meshard
