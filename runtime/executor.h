// Executor: runs a compiled program on this process's devices: one under MPI, all of the mesh in lockstep, step by step.
// Everything is prepared in the constructor; run() allocates nothing, hashes nothing and dispatches through one pointer a step.
//
//   Executor run(compiled, state, comms);               // one communicator per device of this process
//   run.set_input("tokens", View{tokens.data(), Dtype::i32, {32, 128}});   // global; each device copies its block
//   run.run();
//   double loss = run.scalar("loss");
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "meshard/backend/backend.h"
#include "meshard/collectives/communicator.h"
#include "meshard/runtime/compile.h"
#include "meshard/runtime/memory.h"
#include "meshard/runtime/state.h"

namespace meshard {

struct ExecutorOptions {
  int threads = 1;        // of each kernel
  bool reference = false; // plain kernels only: the slow twin
  bool borrow = false;    // memory is the caller's: see Executor::place
  // Runs it, with all devices of this process; null: the host. The communicators must be ones for its memory.
  Backend* backend = nullptr;
  // With a backend the second run is captured and later ones are replayed, where all communicators are on its streams.
  // Without, each step is waited for, and an error names it.
  bool graph = true;
};

class Profile;   // runtime/profile.h
struct StepInfo;

class Executor {
 public:
  // `state` may be null for programs without parameters. Before the first collective the digests of all ranks are compared.
  Executor(const Compiled& program, State* state, std::span<Communicator* const> devices, const ExecutorOptions& options = {});
  ~Executor();
  Executor(const Executor&) = delete;

  // Copies each device's block of a global input. Errors: unknown name (with suggestion), other type or shape, an integer outside of its
  // bounds ("tokens[1,3] is 300, not below 257").
  void set_input(std::string_view name, const View& global);
  void set_scalar(std::string_view name, double value);  // an input of shape []
  void run();

  // A result of main: a scalar (of the first device here), or the block of device i. With a backend they wait for the run,
  // and a view is of a copy, which the next call for the same value overwrites.
  double scalar(std::string_view name) const;
  View result(std::string_view name, int device = 0) const;
  const Layout& result_layout(std::string_view name) const;
  // The whole result, put together from all devices of this process (lockstep), pending sums done.
  std::vector<double> whole(std::string_view name) const;

  // With options.borrow the executor allocates nothing, and the program has inputs only. Before run() each part of its memory is
  // given a place, on each device here: input i (in the order of main's parameters), result r, and the arena, which needs
  // memory(device).arena_bytes. A place holds until it is given anew. Inputs are only read.
  enum class Part : uint8_t { input, result, arena };
  void place(Part part, int index, int device, void* at);
  // -1 where result r has a place of its own; else it is input i (i) or result r of before (inputs + r) under another name.
  int shares(int result) const;
  int inputs() const;
  int results() const;
  int devices() const;  // of this process
  Rank rank(int device) const;
  const Flat& flat(int device = 0) const;

  // Bytes per device that this executor has allocated, with its State: equal to the plan's peak.
  int64_t allocated_bytes(int device) const;
  const MemoryPlan& memory(int device) const;
  // Of a backend: the steps of a device that are put on its stream together with the step before.
  int joined_steps(int device) const;
  // Called after every step with the device, the step's index and name; for traces and checks. Null: nothing.
  void set_observer(std::function<void(int device, const Flat&, int step)> observer);

  // Times every step from here on; null: none. The profile was made for this executor and outlives its runs.
  void set_profile(Profile* profile);
  StepInfo step_info(int device, int step) const;

  // The block of any flat value of a device, for observers.
  View value(int device, int flat_value) const;

 private:
  struct Device;
  template <bool profiled>
  void run_steps();
  void run_captured();
  void announce_groups();
  void check_step(size_t step) const;
  void check_bounds(std::string_view name, const View& global) const;
  std::unique_ptr<Program> program_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::function<void(int, const Flat&, int)> observer_;
  Profile* profile_ = nullptr;
  Backend* backend_ = nullptr;
  bool graph_ = true;
  int64_t runs_ = 0;
  std::unique_ptr<Backend::Graph> captured_;
  std::vector<int64_t> captured_bytes_;  // that the calls of a run bring, by device
};

}  // namespace meshard
