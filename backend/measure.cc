#include "meshard/backend/measure.h"

#include <algorithm>
#include <functional>

#include "meshard/kernels/reference/reference.h"

namespace meshard {
namespace {

double seconds_of(Backend& backend, const std::function<void()>& work) {
  return best_seconds({}, [&] {
    work();
    backend.synchronize(Backend::compute);
  });
}

double product_flops(Backend& backend, Dtype dtype, int64_t n) {
  const Type type{dtype, {n, n}};
  const Prepared product = backend.kernels().find(reference::einsum)(square_product(dtype, n));
  const Memory a(&backend, type.bytes()), b(&backend, type.bytes()), y(&backend, type.bytes()), scratch(&backend, product.workspace_bytes);
  void* const operands[] = {a.data(), b.data()};
  void* const results[] = {y.data()};
  const KernelCall call{operands, results, scratch.data()};
  const double seconds = seconds_of(backend, [&] { backend.run(product, call, Backend::compute); });
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds;
}

double copied_bytes(Backend& backend, int64_t bytes) {
  const Memory from(&backend, bytes), to(&backend, bytes);
  return 2.0 * static_cast<double>(bytes) / seconds_of(backend, [&] { backend.copy(to.data(), from.data(), bytes, Backend::compute); });
}

}  // namespace

MachineBounds measure_backend(Backend& backend, Dtype dtype) {
  constexpr double kLong = 5e-3;  // seconds that a turn need not exceed
  const int64_t most = backend.free_bytes() / 4;
  MachineBounds out;
  for (int64_t n = 128; n <= 8192 && (n == 128 || 3 * n * n * size_bytes(dtype) <= most); n *= 2) {
    const double flops = product_flops(backend, dtype, n);
    out.matmul_flops = std::max(out.matmul_flops, flops);
    const auto points = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    if (2 * points / flops > kLong) break;
  }
  for (int64_t bytes = int64_t{1} << 20; bytes <= (int64_t{512} << 20) && (bytes == int64_t{1} << 20 || 2 * bytes <= most); bytes *= 2) {
    const double rate = copied_bytes(backend, bytes);
    // Small blocks stay in the device's cache: the largest one counts.
    out.copy_bytes = rate;
    if (2 * static_cast<double>(bytes) / rate > kLong) break;
  }
  return out;
}

}  // namespace meshard
