// bench: kernels and collectives of this machine against its own bounds, behind `meshard bench`.
//
//   meshard bench                        kernels, with all cores
//   mpirun -n 4 meshard bench            kernels on all ranks at once, then the collectives between them; where they are
//                                        on several hosts, what crosses between those, in phases and without
//
// A kernel's bound is the longer of its flops at the best matrix product's rate and its operands and results, each once,
// at a plain copy's. A collective's is the bytes that all ranks read and write, at the copy's rate with all ranks at it.
// Both rates are measured first, by all ranks at the same time. A share above 100 % is the caches'.
#pragma once

#include <string>

#include "meshard/launch/job.h"

namespace meshard {

struct BenchOptions {
  int threads = 1;
  double seconds = 0.2;  // spent on each kernel and size, at least; three turns are made in any case
  std::string only;  // "kernels", "collectives", "hosts"; "": all
  std::string json;
};

// Collective over the job. UserError where the JSON can't be written: all ranks, before anything is measured.
int bench(Job& job, const BenchOptions& options);

}  // namespace meshard
