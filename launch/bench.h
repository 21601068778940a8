// bench: kernels and collectives of this machine against its own bounds, behind `meshard bench`.
//
//   meshard bench                        kernels, with all cores
//   mpirun -n 4 meshard bench            kernels on all ranks at once, then the collectives between them; where they are
//                                        on several hosts, what crosses between those, in phases and without
//   meshard bench --device cuda          a GPU's kernels, on blocks of its size; with several ranks NCCL's collectives
//
// A kernel's bound is the longer of its flops at the best matrix product's rate and its operands and results, each once,
// at a plain copy's. A collective's is the bytes that all ranks read and write, at the copy's rate with all ranks at it.
// Both rates are measured first, by all ranks at the same time, on a device the product's for f32 and for bf16. A share
// above 100 % is the caches'. A device's kernel is timed as a graph, many of which are put on its stream before it is
// waited for.
#pragma once

#include <string>

#include "meshard/launch/job.h"

namespace meshard {

struct BenchOptions {
  int threads = 1;
  double seconds = 0.2;  // spent on each kernel and size, at least; three turns are made in any case
  std::string only;            // "kernels", "collectives", "hosts"; "": all
  std::string match;           // kernels of ops with this in their name; "": all
  int64_t largest = int64_t{1} << 40;  // bytes of a collective's value: no larger ones than this
  Backend* backend = nullptr;  // whose kernels and collectives; null: the host's
  bool large = false;          // blocks as a GPU gets them, instead of a processor's
  std::string json;
};

// Collective over the job. UserError where the JSON can't be written or no kernel matches: all ranks, before anything is measured.
int bench(Job& job, const BenchOptions& options);

}  // namespace meshard
