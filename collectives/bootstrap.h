// Bootstrap: how the processes of a job know each other before and beside their collectives. It says who they are,
// hands small texts round and ends the job. MPI gives one (mpi.h), and so do processes that meet over TCP
// (rendezvous.h); the communicators between ranks and NCCL need no more to start.
//
//   std::vector<std::string> hosts = bootstrap.all_gather(my_host, watchdog);   // each rank's, in rank order
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "meshard/collectives/watchdog.h"

namespace meshard {

class Bootstrap {
 public:
  virtual ~Bootstrap() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view kind() const = 0;  // "mpi", "tcp"

  // Collective over all ranks. Bytes of any kind, empty ones too; all of them are held in memory on every rank.
  virtual std::vector<std::string> all_gather(std::string_view bytes, const Watchdog& watchdog) = 0;
  virtual void barrier(const Watchdog& watchdog) { all_gather({}, watchdog); }

  // What has happened to the others, as far as it can be seen without waiting: "rank 2 is gone", or nothing. Asked now
  // and then in a long wait.
  virtual std::string look() { return {}; }
  // Ends this process and, as far as they can be reached, all others of the job.
  [[noreturn]] virtual void abort(int status) = 0;
};

}  // namespace meshard
