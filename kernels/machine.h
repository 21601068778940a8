// What this machine can do at most, measured: the bounds that times of steps are judged by.
//
//   MachineBounds machine = measure_machine(2);
//   fmt::print("{:.0f} GFLOP/s, {:.1f} GB/s\n", machine.matmul_flops / 1e9, machine.copy_bytes / 1e9);
//
// Takes about half a second and 64 MiB. Processes that share cores or memory measure at the same time, each its own part.
#pragma once

namespace meshard {

struct MachineBounds {
  double matmul_flops = 0;  // a second: the best f32 product of 2048 x 2048 matrices that the machine's library makes
  double copy_bytes = 0;    // a second, read and written: the best plain copy of a block larger than the caches
};

MachineBounds measure_machine(int threads);

}  // namespace meshard
