// What this machine can do at most, measured: the bounds that times of steps are judged by.
//
//   MachineBounds machine = measure_machine({.threads = 2});
//   fmt::print("{:.0f} GFLOP/s, {:.1f} GB/s\n", machine.matmul_flops / 1e9, machine.copy_bytes / 1e9);
//
// Takes about a second, and twice the memory of the largest cache for the copy (64 MiB to 384 MiB). Processes that share
// cores or memory measure at the same time, each its own part.
#pragma once

#include <functional>

#include "meshard/kernels/kernel.h"

namespace meshard {

struct MachineBounds {
  double matmul_flops = 0;  // a second: the best f32 product of 2048 x 2048 matrices that the machine's library makes
  double copy_bytes = 0;    // a second, read and written: the best plain copy of a block larger than the caches
};

struct MeasureOptions {
  int threads = 1;
  std::function<double()> seconds;  // another clock than the wall's: processor time
  std::function<void()> together;   // called before every turn, a fixed number of times: a barrier of the processes
};

MachineBounds measure_machine(const MeasureOptions& options);

// How it measures, for who measures another kind of device (backend/measure.h): the shortest of several turns, the first,
// in which pages and threads come, left out; and a product of n x n matrices.
double best_seconds(const MeasureOptions& options, const std::function<void()>& work);
KernelSpec square_product(Dtype dtype, int64_t n);

}  // namespace meshard
