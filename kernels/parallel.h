// Work over OpenMP's threads. The parts depend on (n, grain, threads) alone: sums per part are alike on every run.
#pragma once

#include <algorithm>
#include <cstdint>

namespace meshard {

// How many parts of at least `grain` items n items make.
inline int64_t part_count(int threads, int64_t n, int64_t grain) {
  return std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, std::max(threads, 1));
}

// body(part, begin, end) for each part of [0, n), one a thread.
template <class F>
void parallel_parts(int threads, int64_t n, int64_t grain, const F& body) {
  const int64_t parts = part_count(threads, n, grain);
  if (parts == 1) return body(int64_t{0}, int64_t{0}, n);
#pragma omp parallel for num_threads(static_cast <int>(parts)) schedule(static, 1)
  for (int64_t p = 0; p < parts; ++p) body(p, n * p / parts, n * (p + 1) / parts);
}

}  // namespace meshard
