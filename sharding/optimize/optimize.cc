#include "meshard/sharding/optimize.h"

namespace meshard {

std::vector<Pass> optimize_passes(const OptimizeOptions& options) {
  std::vector<Pass> passes;
  if (!options.on) return passes;
  const auto add = [&](const char* name, std::function<Program(Program)> run) {
    passes.push_back({name, Level::local, std::move(run)});
  };
  add("fold", fold);
  add("share", share);
  add("shorten", shorten);
  add("drop", drop);
  if (options.regather > 0)
    add("regather", [count = options.regather](const Program& p) { return regather(p, count); });
  if (options.ring.use != RingOptions::never)
    add("ring", [ring_options = options.ring](const Program& p) { return ring(p, ring_options); });
  // After ring, which looks for products that are nothing but products.
  add("onto", onto);
  add("epilogue", epilogue);
  add("bucket", [bytes = options.bucket_bytes](Program p) { return bucket(std::move(p), bytes); });
  if (options.overlap) add("overlap", overlap);
  return passes;
}

std::vector<std::string> optimize_names() {
  std::vector<std::string> names;
  for (const Pass& pass : optimize_passes({.regather = 1, .overlap = true, .ring = {.use = RingOptions::always}})) names.push_back(pass.name);
  return names;
}

}  // namespace meshard
