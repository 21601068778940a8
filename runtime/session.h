// Session: a compiled program with memory and devices, ready to run. The short way to State, Communicator and Executor.
//
//   Session session(compiled, {.seed = 7});    // all devices of the mesh in this process, in lockstep
//   session.set("x", values);                  // a global input; each device copies its block
//   session.run();
//   double loss = session.scalar("loss");
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/runtime/executor.h"

namespace meshard {

struct SessionOptions {
  uint64_t seed = 0;  // of the parameters' first values
  int threads = 1;    // of each kernel
  Backend* backend = nullptr;  // that runs it, for all devices; null: the host
  bool graph = true;           // see ExecutorOptions
};

class Session {
 public:
  explicit Session(const Compiled& program, const SessionOptions& options = {});
  // On devices of the caller, which must outlive it: under MPI each process passes one.
  Session(const Compiled& program, std::span<Communicator* const> devices, const SessionOptions& options = {});

  // All elements of a global input, row-major, converted to its dtype. UserError: another count, as for set_input, and
  // a value that no i32 is equal to.
  void set(std::string_view input, std::span<const double> values);
  void set(std::string_view input, double value) { set(input, std::span(&value, 1)); }
  void run() { executor_->run(); }
  double scalar(std::string_view result) const { return executor_->scalar(result); }
  // The whole result, put together from the devices of this process.
  std::vector<double> whole(std::string_view result) const { return executor_->whole(result); }

  Executor& executor() { return *executor_; }
  State& state() { return state_; }
  int64_t received_bytes(int device = 0) const { return devices_[static_cast<size_t>(device)]->received_bytes(); }

 private:
  Session(const Compiled& program, std::vector<std::unique_ptr<Communicator>> owned, std::vector<Communicator*> devices,
          const SessionOptions& options);

  std::vector<std::unique_ptr<Communicator>> owned_;
  std::vector<Communicator*> devices_;
  State state_;
  std::unique_ptr<Executor> executor_;
  std::map<std::string, Type, std::less<>> inputs_;
};

}  // namespace meshard
