// Job: how this process takes part in a run: alone, as a rank that mpirun, Slurm or meshard launch started, or as all
// devices in lockstep.
// It is the only place that calls MPI_Init and reads the launcher's environment.
//
//   int main(int argc, char** argv) {
//     return meshard::run_job(argc, argv, [](meshard::Job& job, std::span<const std::string> words) { ...; return 0; });
//   }
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "meshard/backend/backend.h"
#include "meshard/collectives/communicator.h"

namespace meshard {

class Job {
 public:
  // Ranks as the launcher's environment says: those by which ranks meet without MPI (launch/meeting.h), Open MPI's, PMIx's,
  // Slurm's variables; 0 of 1 without any. Ranks of one machine with different MESHARD_HOST_ID behave as on two.
  // MESHARD_TIMEOUT: the seconds that a rank waits for others in one call before it says where it stands and ends the job;
  // 60, and 0 is for ever. UserError, on all ranks: they do not run the same program.
  Job(int* argc, char*** argv);
  ~Job();
  Job(const Job&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }   // processes
  int size_here() const { return world_ ? world_->host_traffic().ranks_here : 1; }  // processes of this host
  bool first() const { return rank_ == 0; }

  // Communicators of this process's devices: one between the ranks, or `devices` in lockstep. UserError where a mesh of `devices`
  // does not fit the ranks that were started.
  // With a backend the values are in its memory: NCCL between GPUs, or the ranks' own through pinned memory where NCCL is not built.
  std::span<Communicator* const> devices(int64_t devices, bool lockstep, const std::string& mesh_text, Backend* backend = nullptr);
  // Fails on all ranks if one has an error; a job of one process just throws it.
  void agree(const std::string& error);
  // Each rank's text on every rank, in rank order.
  std::vector<std::string> gather(const std::string& text);

  // From here on SIGINT and SIGTERM only ask for a stop; before, they end the process. A second one, at least two seconds
  // later, ends it too. (Launchers and `timeout` send the same signal twice at once.)
  void stop_on_signals();
  // Whether any rank was asked to stop; the same answer on every rank.
  bool any_stop();

  // Bytes that the processes of this host may still take: the least of free memory and the control group's limit.
  static int64_t available_bytes();
  static std::string host();
  // Ends all ranks, without waiting for them.
  [[noreturn]] void abort(int status);
  // What starts ranks here, for messages: "mpirun" and "mpirun -n 4", or "meshard launch" and "meshard launch --ranks 4".
  std::string starter() const;
  std::string start_text(int64_t ranks) const;
  // Gives back what works on a backend, before that goes.
  void drop_devices();

 private:
  int rank_ = 0, size_ = 1;
  bool mpi_ = false;
  std::unique_ptr<Communicator> world_;
  std::unique_ptr<Communicator> between_;  // of values in a backend's memory
  std::vector<std::unique_ptr<Communicator>> owned_;
  std::vector<Communicator*> devices_;
};

// Runs `body` with a Job and turns what is thrown into messages on standard error and exit statuses: 0 done, 1 a check
// failed, 2 the caller's error (printed once, by rank 0), 3 our bug.
int run_job(int argc, char** argv, const std::function<int(Job&, std::span<const std::string>)>& body);

}  // namespace meshard
