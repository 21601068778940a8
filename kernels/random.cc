#include "meshard/kernels/random.h"

#include <vector>

#include "meshard/base/error.h"
#include "meshard/kernels/parallel.h"
#include "meshard/kernels/philox.h"

namespace meshard {
namespace {

template <class T>
void fill_run(const RandomStream& numbers, T* y, int64_t count, int64_t index, int64_t stride) {
  int64_t block = -1;
  RandomFour four{};
  for (int64_t i = 0; i < count; ++i, index += stride) {
    if (index / 4 != block) four = random_four(numbers, block = index / 4);
    const double value = four.x[index % 4];
    if constexpr (sizeof(T) == 8) {
      y[i] = value;
    } else {
      y[i] = static_cast<T>(static_cast<float>(value));
    }
  }
}

template <class T>
void fill_blocks(const RandomStream& numbers, T* y, std::span<const RandomLoop> loops, int threads) {
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
  const PhiloxWords w = philox_words({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {w.word[0], w.word[1], w.word[2], w.word[3]};
}

void fill_random(Distribution distribution, void* data, Dtype dtype, std::span<const RandomLoop> loops, int64_t seed,
                 std::string_view name, double scale, int threads) {
  const RandomStream numbers{distribution == Distribution::normal, static_cast<uint64_t>(seed), random_name(name), scale};
  switch (dtype) {
    case Dtype::f64:
      return fill_blocks(numbers, static_cast<double*>(data), loops, threads);
    case Dtype::f32:
      return fill_blocks(numbers, static_cast<float*>(data), loops, threads);
    case Dtype::bf16:
      return fill_blocks(numbers, static_cast<bfloat16*>(data), loops, threads);
    case Dtype::f16:
      return fill_blocks(numbers, static_cast<float16*>(data), loops, threads);
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
