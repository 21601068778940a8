// The arithmetic of random numbers, compiled for the host and for GPUs: the same bits on both. It uses nothing but what
// IEEE 754 rounds correctly: no library's log or sine, and no fused multiply-add.
//
//   std::array<double, 4> x = random_four({.normal = true, .seed = 7, .name = random_name("h"), .scale = 1}, block);
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#ifdef __CUDACC__
#define MESHARD_BOTH __host__ __device__
#else
#define MESHARD_BOTH
#endif

namespace meshard {

// Of a name: FNV-1a.
inline uint64_t random_name(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325;
  for (char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

struct PhiloxWords {
  uint32_t word[4];
};

// Philox 4x32-10.
MESHARD_BOTH inline PhiloxWords philox_words(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter.word[0], b = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

namespace exact {

// a b + c, each rounded: a compiler for a GPU would fuse the two.
MESHARD_BOTH inline double mul_add(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(__dmul_rn(a, b), c);
#else
  const double product = a * b;
  return product + c;
#endif
}

// The natural logarithm of a positive normal number, within 2e-16 of its size or of 1.
MESHARD_BOTH inline double log(double x) {
  int exponent = 0;
  while (x < 0.70710678118654752440) {
    x *= 2;
    --exponent;
  }
  while (x > 1.41421356237309504880) {
    x /= 2;
    ++exponent;
  }
  const double s = (x - 1) / (x + 1), z = s * s;  // log x = 2 (s + s^3 / 3 + s^5 / 5 + ...), |s| < 0.172
  constexpr double kTerms[] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                               1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
  double sum = 0;
  for (const double term : kTerms) sum = mul_add(sum, z, term);
  return mul_add(exponent, 0.69314718055994530942, 2 * s * sum);
}

struct SineCosine {
  double sine, cosine;
};

// Of 2 pi u, u in [0, 1].
MESHARD_BOTH inline SineCosine turn(double u) {
  const auto quarter = static_cast<int>(mul_add(u, 4, 0.5));
  const double x = (u - 0.25 * quarter) * 6.28318530717958647693, z = x * x;  // |x| <= pi / 4
  constexpr double kSine[] = {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800,
                              1.0 / 362880,          -1.0 / 5040,          1.0 / 120,        -1.0 / 6, 1.0};
  constexpr double kCosine[] = {1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600, -1.0 / 3628800,
                                1.0 / 40320,          -1.0 / 720,         1.0 / 24,        -1.0 / 2, 1.0};
  double sine = 0, cosine = 0;
  for (const double term : kSine) sine = mul_add(sine, z, term);
  for (const double term : kCosine) cosine = mul_add(cosine, z, term);
  sine *= x;
  switch (quarter % 4) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

}  // namespace exact

struct RandomStream {
  bool normal = false;
  uint64_t seed = 0, name = 0;
  double scale = 1;
};

struct RandomFour {
  double x[4];
};

// In (0, 1): never 0, whose logarithm would be infinite.
MESHARD_BOTH inline double philox_unit(uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

// The numbers of elements 4 block .. 4 block + 3.
MESHARD_BOTH inline RandomFour random_four(const RandomStream& stream, int64_t block) {
  const auto at = static_cast<uint64_t>(block);
  const PhiloxWords words = philox_words({{static_cast<uint32_t>(at), static_cast<uint32_t>(at >> 32),
                                           static_cast<uint32_t>(stream.name), static_cast<uint32_t>(stream.name >> 32)}},
                                         static_cast<uint32_t>(stream.seed), static_cast<uint32_t>(stream.seed >> 32));
  RandomFour out;
  for (int i = 0; i < 4; i += 2) {
    if (stream.normal) {  // Box and Muller: two uniform numbers make two normal ones
      const double radius = stream.scale * sqrt(-2 * exact::log(philox_unit(words.word[i])));
      const exact::SineCosine angle = exact::turn(philox_unit(words.word[i + 1]));
      out.x[i] = radius * angle.cosine;
      out.x[i + 1] = radius * angle.sine;
    } else {  // 24 bits, so that rounding to f32 stays below scale
      for (int j = i; j < i + 2; ++j) out.x[j] = stream.scale * (static_cast<double>(words.word[j] >> 8) * 0x1p-23 - 1);
    }
  }
  return out;
}

}  // namespace meshard
