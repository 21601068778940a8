#include "meshard/kernels/machine.h"

#include <unistd.h>

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

double wall_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double matmul_flops(const MeasureOptions& o) {
  int64_t n = 2048;
  KernelSpec spec = square_product(Dtype::f32, n);
  spec.threads = o.threads;
  Prepared product = cpu::einsum(spec);
  if (!product.run) {  // built without such a library: what plain loops do
    n = 128;
    product = reference::einsum(square_product(Dtype::f32, n));
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
  return flops / best_seconds(o, [&] { product.run({operands, results, scratch.data()}); });
}

double copy_bytes(const MeasureOptions& o) {
  // Both blocks together are larger than the last cache, which may be shared with other machines.
  const int64_t cache = std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
  const int64_t bytes = std::clamp<int64_t>(cache / 8 * 5, int64_t{32} << 20, int64_t{192} << 20);
  Buffer from(bytes), to(bytes);
  std::memset(from.data(), 1, static_cast<size_t>(bytes));
  return 2.0 * static_cast<double>(bytes) / best_seconds(o, [&] {
           parallel_parts(o.threads, bytes, int64_t{1} << 20, [&](int64_t, int64_t begin, int64_t end) {
             std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
           });
         });
}

}  // namespace

double best_seconds(const MeasureOptions& o, const std::function<void()>& work) {
  constexpr int kTurns = 6;
  double best = 1e30;
  for (int i = 0; i < kTurns; ++i) {
    if (o.together) o.together();
    const double begin = o.seconds ? o.seconds() : wall_seconds();
    work();
    const double taken = (o.seconds ? o.seconds() : wall_seconds()) - begin;
    if (i > 0) best = std::min(best, taken);
  }
  return best;
}

KernelSpec square_product(Dtype dtype, int64_t n) {
  const Type type{dtype, {n, n}};
  KernelSpec spec;
  spec.factors = {{"i", n, n}, {"j", n, n}, {"k", n, n}};
  spec.operands = {{type, {{0}, {2}}, {}, {}}, {type, {{2}, {1}}, {}, {}}};
  spec.results = {{type, {{0}, {1}}, {}, {}}};
  return spec;
}

MachineBounds measure_machine(const MeasureOptions& options) { return {matmul_flops(options), copy_bytes(options)}; }

}  // namespace meshard
