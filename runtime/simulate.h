// Checks a partitioned program against the global one by running both on random data in this process: the global one on one
// device, the local one in lockstep on all devices of its mesh. This is law 1 as a function: `meshard partition --check`, the golden
// tests and the fuzzer call it.
//
//   CheckResult r = check_partition(global, compile(global), /*seed=*/1);
//   r.largest_error < 1e-4
#pragma once

#include "meshard/base/buffer.h"
#include "meshard/runtime/compile.h"

namespace meshard {

// What programs are run on: numbers that depend on names and global indices alone, so they are the same on any mesh.
struct CheckOptions {
  uint64_t seed = 1;
  int threads = 1;
  bool whole_numbers = false;  // floats are -2, -1, 0, 1 or 2, so that sums and products of few of them are exact
  double jitter = 0;           // floats are changed by up to this share: what a result moves by is what rounding may do
  Backend* backend = nullptr;  // of the mesh's devices; null: the host
};

struct CheckResult {
  double largest_error = 0;   // over all results, relative to the result's largest magnitude
  std::string where;          // the result it was found in
  bool replicas_agree = true; // devices that hold the same block hold the same numbers, to 1e-5
  bool bytes_agree = true;    // each device received what the bill says
  bool memory_agrees = true;  // each device allocated what the memory plan says
  std::string text() const;
  bool good(double tolerance) const { return largest_error <= tolerance && replicas_agree && bytes_agree && memory_agrees; }
};

CheckResult check_partition(const Program& global, const Compiled& local, const CheckOptions& options);
// The global program runs on the host.
CheckResult check_partition(const Program& global, const Compiled& local, uint64_t seed, int threads = 1, Backend* backend = nullptr);

// The whole value that check_partition gives to an input, parameter or state of main.
void draw_value(const ValueInfo& value, ParamInfo::Kind kind, const CheckOptions& options, const View& out);

// Results and then parameters and states after one run on all devices, by name, each put together.
using Results = std::vector<std::pair<std::string, std::vector<double>>>;
Results simulate(const Compiled& program, const CheckOptions& options);
// The largest difference between two runs of one program, relative to the value's largest magnitude; `where`, if not
// null, gets the name.
double largest_difference(const Results& a, const Results& b, std::string* where = nullptr);

// `program` without mesh and layouts: for one device.
Program without_layouts(const Program& program);

}  // namespace meshard
