// What the 32 threads of a warp do in step: products of small matrices on tensor cores, and folds over a row. Operands
// are bf16 or f16 in a team's memory, sums are f32 in the registers of the lanes. One thread has no matrix; so a matrix
// is a Lanes, the registers of all lanes, of which a GPU's thread sees its own and the emulation all 32. Which lane
// holds which element is what PTX says of mma.m16n8k16, and the emulated instructions follow the same document, so a
// wrong address or a wrong lane shows in the tests of the host.
//
//   Sums s[2][4];                                       // 32 x 32
//   clear(warp, s);
//   multiply_rows<64>(warp, s, a, step, b, step);       // s += a b^T; a: 32 rows of 64, b: 32 rows of 64
//   each_sum(warp, s, [&](int row, int column, float& x) { if (column > row) x = 0; });
//   multiply_columns<64>(warp, y, s, v, step);          // y += (s as T) v; v: 32 rows of 64
//
// A row of a matrix in memory is `step` elements behind the one above. A step of 8 k elements with k odd keeps the
// eight rows that are read at once in different banks (kStep).
#ifndef MESHARD_KERNELS_DEVICE_WARP_INL_H
#define MESHARD_KERNELS_DEVICE_WARP_INL_H

#include "meshard/kernels/device/number-inl.h"

namespace meshard::MESHARD_DEVICE {

template <int E>
constexpr int kStep = E + 8;  // of rows of E elements of 2 bytes, E a multiple of 16

// An R in the registers of each lane.
template <class R>
struct Lanes {
#ifdef __CUDACC__
  R mine;
  __device__ R& operator[](int) { return mine; }
#else
  R all[kWarp];
  R& operator[](int lane) { return all[lane]; }
#endif
};

// 16 x 8. Of a lane: two elements of row lane / 4, then two of the row 8 below, in columns lane % 4 * 2 and the next.
using Sums = Lanes<float[4]>;
// A number for each of 16 rows, the same in the four lanes that have parts of the row: of row lane / 4 and the one 8
// below.
using RowNumbers = Lanes<float[2]>;
// 16 x 16 as the first operand of a product, or two of 16 x 8 side by side as the second: pairs of narrow numbers.
using Words = Lanes<uint32_t[4]>;

// The row and column of element i of a lane's Sums.
MESHARD_BODY inline int row_of(int lane, int i) { return lane / 4 + i / 2 * 8; }
MESHARD_BODY inline int column_of(int lane, int i) { return lane % 4 * 2 + i % 2; }

// 2^x, to 2 units in the last place; 0 below what is normal.
MESHARD_BODY inline float power_of_two(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return ::exp2f(x);
#endif
}

// Two numbers rounded to T, the first in the lower half.
template <class T>
MESHARD_BODY uint32_t pack(float low, float high) {
#ifdef __CUDACC__
  uint32_t pair;
  if constexpr (std::is_same_v<T, bfloat16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return store<T>(low).bits | uint32_t{store<T>(high).bits} << 16;
#endif
}

#ifndef __CUDACC__
// Not inlined: the tests compile many kernels of it.
[[gnu::noinline]] inline void emulate_load(Words& to, const void* const (&rows)[kWarp], bool turned) {
  uint16_t matrices[4][8][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    MESHARD_CHECK(reinterpret_cast<uintptr_t>(rows[lane]) % 16 == 0, "a row of a matrix is aligned to 16 bytes");
    std::memcpy(matrices[lane / 8][lane % 8], rows[lane], 16);
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int r = lane / 4, c = lane % 4 * 2;
      const auto& m = matrices[i];
      to[lane][i] = turned ? m[c][r] | uint32_t{m[c + 1][r]} << 16 : m[r][c] | uint32_t{m[r][c + 1]} << 16;
    }
  }
}

template <class T>
[[gnu::noinline]] void emulate_multiply(Sums& sums, const Words& a, const Words& b, int half) {
  const auto number = [](uint32_t word, int i) {
    T x;
    x.bits = static_cast<uint16_t>(word >> 16 * i);
    return load(x);
  };
  float left[16][16], right[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 8; ++i)
      left[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i / 4 * 8 + i % 2] = number(a.all[lane][i / 2], i % 2);
    for (int i = 0; i < 4; ++i)
      right[lane % 4 * 2 + i / 2 * 8 + i % 2][lane / 4] = number(b.all[lane][2 * half + i / 2], i % 2);
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += left[row_of(lane, i)][k] * right[k][column_of(lane, i)];
      sums[lane][i] += sum;
    }
  }
}
#endif

// Four matrices of 8 x 8 narrow numbers: row(lane) is where row lane % 8 of matrix lane / 8 lies, aligned to 16 bytes.
// A lane gets, of each, the pair of row lane / 4 at column lane % 4 * 2; turned: of the transposed matrix.
template <bool turned, class F>
MESHARD_BODY void load_matrices(const Warp& warp, Words& to, const F& row) {
#ifdef __CUDACC__
  warp.lanes([&](int lane) {
    const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row(lane)));
    uint32_t* x = to.mine;
    if constexpr (turned) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                   : "r"(from)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                   : "r"(from)
                   : "memory");
    }
  });
#else
  const void* rows[kWarp];
  warp.lanes([&](int lane) { rows[lane] = row(lane); });
  emulate_load(to, rows, turned);
#endif
}

// sums += a b, for the 16 x 16 of a and the 16 x 8 that are half `half` of b. a's words are its left half's rows 0 to 7
// and 8 to 15, then the right half's; b's two are rows 0 to 7 and 8 to 15, a lane having those of column lane / 4.
template <class T>
MESHARD_BODY void multiply_tile(Sums& sums, const Words& a, const Words& b, int half) {
#ifdef __CUDACC__
  float* d = sums.mine;
  const uint32_t *x = a.mine, *y = b.mine + 2 * half;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  }
#else
  emulate_multiply<T>(sums, a, b, half);
#endif
}

// Each row's fold over the four lanes that have parts of it; all four get the same bits.
template <class R, class Fold>
MESHARD_BODY void fold_rows([[maybe_unused]] const Warp& warp, R& rows, const Fold& fold) {
#ifdef __CUDACC__
  for (auto& x : rows.mine) {
    x = fold(x, __shfl_xor_sync(~0u, x, 1));
    x = fold(x, __shfl_xor_sync(~0u, x, 2));
  }
#else
  for (int step = 1; step < 4; step *= 2) {
    R before = rows;
    warp.lanes([&](int lane) {
      for (size_t i = 0; i < std::size(rows[lane]); ++i) rows[lane][i] = fold(before[lane][i], before[lane ^ step][i]);
    });
  }
#endif
}

template <int M, int N>
MESHARD_BODY void clear(const Warp& warp, Sums (&sums)[M][N]) {
  warp.lanes([&](int lane) {
    MESHARD_UNROLL for (auto& row : sums) {
      MESHARD_UNROLL for (Sums& tile : row) { MESHARD_UNROLL for (float& x : tile[lane]) x = 0; }
    }
  });
}

// f(row, column, x) for each element.
template <int M, int N, class F>
MESHARD_BODY void each_sum(const Warp& warp, Sums (&sums)[M][N], const F& f) {
  warp.lanes([&](int lane) {
    MESHARD_UNROLL for (int m = 0; m < M; ++m) {
      MESHARD_UNROLL for (int n = 0; n < N; ++n) {
        MESHARD_UNROLL for (int i = 0; i < 4; ++i)
            f(m * 16 + row_of(lane, i), n * 8 + column_of(lane, i), sums[m][n][lane][i]);
      }
    }
  });
}

// sums += a b^T, for 16 M rows of a and 8 N of b, each of E elements.
template <int E, int M, int N, class T>
MESHARD_BODY void multiply_rows(const Warp& warp, Sums (&sums)[M][N], const T* a, const T* b) {
  static_assert(E % 16 == 0 && N % 2 == 0);
  constexpr int step = kStep<E>;
  MESHARD_UNROLL for (int k = 0; k < E; k += 16) {
    Words left[M];
    MESHARD_UNROLL for (int m = 0; m < M; ++m) {
      load_matrices<false>(warp, left[m],
                           [&](int lane) { return a + (m * 16 + lane % 16) * step + k + lane / 16 * 8; });
    }
    MESHARD_UNROLL for (int n = 0; n < N; n += 2) {
      Words right;
      load_matrices<false>(
          warp, right, [&](int lane) { return b + (n * 8 + lane % 8 + lane / 16 * 8) * step + k + lane / 8 % 2 * 8; });
      MESHARD_UNROLL for (int m = 0; m < M; ++m) {
        MESHARD_UNROLL for (int half = 0; half < 2; ++half) multiply_tile<T>(sums[m][n + half], left[m], right, half);
      }
    }
  }
}

// sums += a b, where a [16 M, 8 K] is rounded to T and b has 8 K rows of E elements.
template <int E, class T, int M, int K>
MESHARD_BODY void multiply_columns(const Warp& warp, Sums (&sums)[M][E / 8], Sums (&a)[M][K], const T* b) {
  static_assert(E % 16 == 0 && K % 2 == 0);
  constexpr int step = kStep<E>;
  MESHARD_UNROLL for (int k = 0; k < K; k += 2) {
    Words left[M];  // the elements that a lane has of sums are those that it needs of a first operand
    warp.lanes([&](int lane) {
      MESHARD_UNROLL for (int m = 0; m < M; ++m) {
        MESHARD_UNROLL for (int i = 0; i < 4; ++i) left[m][lane][i] =
            pack<T>(a[m][k + i / 2][lane][i % 2 * 2], a[m][k + i / 2][lane][i % 2 * 2 + 1]);
      }
    });
    MESHARD_UNROLL for (int n = 0; n < E / 8; n += 2) {
      Words right;
      load_matrices<true>(warp, right,
                          [&](int lane) { return b + (k * 8 + lane % 16) * step + n * 8 + lane / 16 * 8; });
      MESHARD_UNROLL for (int m = 0; m < M; ++m) {
        MESHARD_UNROLL for (int half = 0; half < 2; ++half) multiply_tile<T>(sums[m][n + half], left[m], right, half);
      }
    }
  }
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_WARP_INL_H
