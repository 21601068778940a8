// NCCL: collectives between GPUs, put on the communication stream, so that a step with them can be captured. One
// communicator for each set of mesh axes that is used, split off the one of all ranks. Linked only where NCCL is found;
// otherwise nccl_none.cc answers.
#pragma once

#include <functional>
#include <memory>

#include "meshard/backend/backend.h"
#include "meshard/collectives/communicator.h"

namespace meshard {

struct NcclOptions {
  double timeout_seconds = 60;  // in one call, until the others come to it; then a message names rank, call and op. 0: for ever
  // Ends the job after that message, on all ranks if it can; it does not come back.
  std::function<void(int status)> abort;
};

bool nccl_available();
// `control` carries NCCL's identifier at the start, texts and barriers; it and `backend` (a CUDA one) must outlive what is
// made. All ranks must call it. Bytes received are those of the formula: NCCL does not tell.
std::unique_ptr<Communicator> nccl_communicator(Communicator& control, Backend& backend, const NcclOptions& options);

}  // namespace meshard
