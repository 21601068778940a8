// Checks a partitioned program against the global one by running both on random data in this process: the global one on one
// device, the local one in lockstep on all devices of its mesh. This is law 1 as a function: `meshard partition --check`, the golden
// tests and the fuzzer call it.
//
//   CheckResult r = check_partition(global, compile(global), /*seed=*/1);
//   r.largest_error < 1e-4
#pragma once

#include "meshard/runtime/compile.h"

namespace meshard {

struct CheckResult {
  double largest_error = 0;   // over all results, relative to the result's largest magnitude
  std::string where;          // the result it was found in
  bool replicas_agree = true; // devices that hold the same block hold the same numbers, to 1e-5
  bool bytes_agree = true;    // each device received what the bill says
  bool memory_agrees = true;  // each device allocated what the memory plan says
  std::string text() const;
  bool good(double tolerance) const { return largest_error <= tolerance && replicas_agree && bytes_agree && memory_agrees; }
};

// With a backend the devices of the mesh are its, and the global program runs on the host.
CheckResult check_partition(const Program& global, const Compiled& local, uint64_t seed, int threads = 1, Backend* backend = nullptr);

// `program` without mesh and layouts: for one device.
Program without_layouts(const Program& program);

}  // namespace meshard
