// optimize: rewrites of the local program, each a pass of its own that can be left out by name.
//
//   for (const Pass& pass : optimize_passes(options)) local = pass.run(std::move(local));
//
//   name     | what it does
//   ---------|---------------------------------------------------------------------------------------------------------
//   fold     | what is computed of constants alone becomes a constant
//   share    | what two ops make alike is made once: gathers of one value, and other ops but those that are cheap to make
//            | again (OpDef::remake), which autodiff repeats on purpose so that nothing lives from forward to backward
//   shorten  | collectives in a row become the planner's steps from the first layout to the last, where those move less:
//            | all_reduce and slice become reduce_scatter
//   drop     | ops, results of functions, and functions that nobody needs go
//   regather | gathered values that are read far apart are gathered again, where a memory limit asks for it
//   ring     | a gather or a scatter next to a product: blocks travel round the devices while others are multiplied
//   onto     | what is made only to be added to another value is added there by the op that makes it, in that value's
//            | memory
//   epilogue | a bias added to a product, and an activation of that sum, become part of the product
//   bucket   | reductions or gathers of one group that do not wait for one another become one message
//   overlap  | collectives are started as soon as they can be and waited for where their result is read
//
// Values keep their names, and main its parameters and returned values. `erase` gives the global program back from what
// partition leaves, not from what these leave.
#pragma once

#include <string>
#include <vector>

#include "meshard/ir/pass.h"
#include "meshard/layout/cost.h"

namespace meshard {

// Which gathers and scatters next to products become rings, and what `where_it_pays` reckons with. A ring is right on any
// machine; it pays where blocks travel while a device computes.
struct RingOptions {
  enum Use : uint8_t {
    never,
    where_it_pays,  // a step's product takes longer than a block needs to travel, and the ring less than gather and product
    always          // wherever the sizes allow it
  } use = never;
  // GPUs of one host on a switch of their own: 200 GB/s to and from each, a quarter of the peak of products in bf16.
  CostModel cost{.host = {.message_ns = 10'000, .bytes_per_us = 200'000}};
  int64_t flops_per_us = 250'000'000;      // of a device's products
  int64_t copied_bytes_per_us = 1'000'000;  // and of its copies
  int64_t step_ns = 10'000;                // what a step costs besides: more, and smaller, calls
};

struct OptimizeOptions {
  bool on = true;  // false: none of the passes
  // The largest message that bucket puts together, in bytes of the device that holds most. A value that is larger
  // travels alone: its message is long enough, and the copy into the message would cost.
  int64_t bucket_bytes = int64_t{1} << 20;
  // In how many gaps between two reads regather gives a gathered value up; compile() sets it to meet memory_bytes.
  int64_t regather = 0;
  // Off, since no communicator of hosts makes progress between start and wait: it would only cost memory.
  bool overlap = false;
  RingOptions ring;
};

// The passes in their order. Each takes and leaves Level::local.
std::vector<Pass> optimize_passes(const OptimizeOptions& options = {});
// Their names, with or without ring and overlap: what may stand behind --without.
std::vector<std::string> optimize_names();

Program fold(Program local);
Program share(Program local);
Program shorten(Program local);
Program drop(Program local);
// The widest `count` of the gaps that there are; fewer if there are fewer.
Program regather(const Program& local, int64_t count);
int64_t gaps_to_regather(const Program& local);
Program ring(const Program& local, const RingOptions& options);
Program onto(const Program& local);
Program epilogue(const Program& local);
Program bucket(Program local, int64_t bytes);
Program overlap(const Program& local);

}  // namespace meshard
