#include "meshard/kernels/machine.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "meshard/base/buffer.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/parallel.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard {
namespace {

// The best of several turns is the machine; the others are what else it was doing.
template <class Work>
double best_seconds(const Work& work) {
  using Clock = std::chrono::steady_clock;
  constexpr double kSeconds = 0.25;
  constexpr int kMost = 20;
  work();  // pages and threads come with the first turn
  double best = 1e30, sum = 0;
  for (int i = 0; i < kMost && (i < 3 || sum < kSeconds); ++i) {
    const Clock::time_point begin = Clock::now();
    work();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, seconds);
    sum += seconds;
  }
  return best;
}

double matmul_flops(int threads) {
  KernelSpec spec;
  spec.threads = threads;
  const auto square = [&](int64_t n) {
    const Type type{Dtype::f32, {n, n}};
    spec.factors = {{"i", n, n}, {"j", n, n}, {"k", n, n}};
    spec.operands = {{type, {{0}, {2}}, {}, {}}, {type, {{2}, {1}}, {}, {}}};
    spec.results = {{type, {{0}, {1}}, {}, {}}};
    return n;
  };
  int64_t n = square(2048);
  Prepared product = cpu::einsum(spec);
  if (!product.run) {  // built without such a library: what plain loops do
    n = square(128);
    product = reference::einsum(spec);
  }
  const Type type{Dtype::f32, {n, n}};
  Buffer a(type.bytes()), b(type.bytes()), y(type.bytes()), scratch(product.workspace_bytes);
  for (int64_t i = 0; i < n * n; ++i) {
    reinterpret_cast<float*>(a.data())[i] = static_cast<float>(i % 17) - 8;
    reinterpret_cast<float*>(b.data())[i] = static_cast<float>(i % 13) - 6;
  }
  void* const operands[] = {a.data(), b.data()};
  void* const results[] = {y.data()};
  const auto flops = static_cast<double>(2 * n * n * n);
  return flops / best_seconds([&] { product.run({operands, results, scratch.data()}); });
}

double copy_bytes(int threads) {
  constexpr int64_t kBytes = int64_t{32} << 20;
  Buffer from(kBytes), to(kBytes);
  std::memset(from.data(), 1, kBytes);
  return 2.0 * kBytes / best_seconds([&] {
           parallel_parts(threads, kBytes, int64_t{1} << 20, [&](int64_t, int64_t begin, int64_t end) {
             std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
           });
         });
}

}  // namespace

MachineBounds measure_machine(int threads) { return {matmul_flops(threads), copy_bytes(threads)}; }

}  // namespace meshard
