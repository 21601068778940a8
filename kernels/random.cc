#include "meshard/kernels/random.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "meshard/base/error.h"
#include "meshard/kernels/parallel.h"

namespace meshard {
namespace {

// FNV-1a.
uint64_t hash(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

constexpr uint32_t low(uint64_t x) { return static_cast<uint32_t>(x); }
constexpr uint32_t high(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

// In (0, 1): never 0, whose logarithm would be infinite.
double unit(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

class Numbers {
 public:
  Numbers(Distribution distribution, int64_t seed, std::string_view name, double scale)
      : normal_(distribution == Distribution::normal),
        seed_(static_cast<uint64_t>(seed)),
        name_(hash(name)),
        scale_(scale) {}

  // The numbers of elements 4 block .. 4 block + 3.
  std::array<double, 4> four(int64_t block) const {
    const auto at = static_cast<uint64_t>(block);
    const std::array<uint32_t, 4> words =
        philox({low(at), high(at), low(name_), high(name_)}, {low(seed_), high(seed_)});
    std::array<double, 4> x;
    for (size_t i = 0; i < 4; i += 2) {
      if (normal_) {  // Box and Muller: two uniform numbers make two normal ones
        const double radius = scale_ * std::sqrt(-2 * std::log(unit(words[i])));
        const double angle = 2 * std::numbers::pi * unit(words[i + 1]);
        x[i] = radius * std::cos(angle);
        x[i + 1] = radius * std::sin(angle);
      } else {  // 24 bits, so that rounding to f32 stays below scale
        x[i] = scale_ * (static_cast<double>(words[i] >> 8) * 0x1p-23 - 1);
        x[i + 1] = scale_ * (static_cast<double>(words[i + 1] >> 8) * 0x1p-23 - 1);
      }
    }
    return x;
  }

 private:
  bool normal_;
  uint64_t seed_, name_;
  double scale_;
};

template <class T>
void fill_run(const Numbers& numbers, T* y, int64_t count, int64_t index, int64_t stride) {
  int64_t block = -1;
  std::array<double, 4> x{};
  for (int64_t i = 0; i < count; ++i, index += stride) {
    if (index / 4 != block) x = numbers.four(block = index / 4);
    const double value = x[static_cast<size_t>(index % 4)];
    if constexpr (sizeof(T) == 8) {
      y[i] = value;
    } else {
      y[i] = static_cast<T>(static_cast<float>(value));
    }
  }
}

template <class T>
void fill_blocks(const Numbers& numbers, T* y, std::span<const RandomLoop> loops, int threads) {
  const RandomLoop inner = loops.empty() ? RandomLoop{} : loops.back();
  int64_t runs = 1;
  for (size_t l = 0; l + 1 < loops.size(); ++l) runs *= loops[l].size;
  parallel_parts(threads, runs * inner.size, 4096, [&](int64_t, int64_t begin, int64_t end) {
    while (begin < end) {
      int64_t run = begin / inner.size, index = 0;
      const int64_t first = begin % inner.size, count = std::min(inner.size - first, end - begin);
      for (size_t l = loops.size(); l-- > 1;) {
        const RandomLoop& loop = loops[l - 1];
        index += (loop.begin + run % loop.size) * loop.stride;
        run /= loop.size;
      }
      fill_run(numbers, y + begin, count, index + (inner.begin + first) * inner.stride, inner.stride);
      begin += count;
    }
  });
}

void fill_block(Distribution distribution, const View& block, const Shape& global, std::span<const int64_t> begin,
                int64_t seed, std::string_view name, double scale, int threads) {
  MESHARD_CHECK(block.shape.rank() == global.rank() && begin.size() == global.dims.size(),
                "a block has its tensor's rank");
  std::vector<RandomLoop> loops(global.dims.size());
  int64_t stride = 1;
  for (size_t d = loops.size(); d-- > 0;) {
    loops[d] = {block.shape.dims[d], begin[d], stride};
    stride *= global.dims[d];
  }
  fill_random(distribution, block.data, block.dtype, loops, seed, name, scale, threads);
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

void fill_random(Distribution distribution, void* data, Dtype dtype, std::span<const RandomLoop> loops, int64_t seed,
                 std::string_view name, double scale, int threads) {
  const Numbers numbers(distribution, seed, name, scale);
  switch (dtype) {
    case Dtype::f64:
      return fill_blocks(numbers, static_cast<double*>(data), loops, threads);
    case Dtype::f32:
      return fill_blocks(numbers, static_cast<float*>(data), loops, threads);
    case Dtype::bf16:
      return fill_blocks(numbers, static_cast<bfloat16*>(data), loops, threads);
    case Dtype::i32:
      break;
  }
  throw InternalError("random numbers are floats");
}

void fill_normal(View block, const Shape& global, std::span<const int64_t> begin, int64_t seed, std::string_view name,
                 double scale, int threads) {
  fill_block(Distribution::normal, block, global, begin, seed, name, scale, threads);
}

void fill_uniform(View block, const Shape& global, std::span<const int64_t> begin, int64_t seed, std::string_view name,
                  double scale, int threads) {
  fill_block(Distribution::uniform, block, global, begin, seed, name, scale, threads);
}

}  // namespace meshard
