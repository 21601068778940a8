// How a device kernel is written: as a body, an object whose call operator does one point or the work of one team. It
// is compiled twice. nvcc makes of it what a GPU runs (namespace meshard::cuda). The host's compiler makes of the same
// lines a loop over points and threads (namespace meshard::emulated), so that its index arithmetic is tested where
// there is no GPU. Whoever includes this says which by defining MESHARD_DEVICE.
//
//   template <class T>
//   struct Negate {
//     const T* x;
//     T* y;
//     MESHARD_BODY void operator()(int64_t i) const { y[i] = store<T>(-load(x[i])); }
//   };
//   run_points(n, Negate<float>{x, y}, call.stream);
//
// A team is the threads of one block, with memory that they share. Its members do everything together; what stands
// between two of its calls is done by every thread alike, so it may only read what is in that memory:
//
//   MESHARD_BODY void operator()(const Team& team) const {       // row number team.index()
//     const float sum = team.sum<float>(n, [&](int64_t i) { return x[i]; });   // all threads get the same bits
//     team.each(n, [&](int64_t i) { y[i] = x[i] / sum; });
//   }
//
// Work that a warp does together (warp-inl.h: products on tensor cores) is given out by warps(), and what comes from
// global memory while it computes is asked for by fetch():
//
//   team.fetch<kThreads, chunks>(next_tile);             // 16 bytes each, on their way
//   team.warps([&](const Warp& warp) { ... });           // once a warp; then all have done theirs, and the chunks are
//   there
#ifndef MESHARD_DEVICE
#error "define MESHARD_DEVICE as cuda or emulated"
#endif

#ifndef MESHARD_KERNELS_DEVICE_LAUNCH_INL_H
#define MESHARD_KERNELS_DEVICE_LAUNCH_INL_H

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "meshard/base/error.h"

#ifdef __CUDACC__
#define MESHARD_BODY __device__
#else
#define MESHARD_BODY
// What the host does with a kernel that is put on a stream: at once, all of it. tests/cuda/fake puts it there.
#ifndef MESHARD_LAUNCH
#define MESHARD_LAUNCH(stream, ...) (__VA_ARGS__)()
#endif
#endif

namespace meshard::MESHARD_DEVICE {

constexpr int64_t kSharedBytes = 40 * 1024;  // that a team may ask for; every GPU has 48 KiB, some is taken by sums

// What a team may ask for that says how much it takes: 96 KiB, since compute capabilities 8.6 and 8.9 have 99 KiB for a
// block, and two such teams fit an SM of 9.0 (228 KiB).
constexpr int64_t kSharedMost = 96 * 1024;

constexpr int kTeamMost = 512;  // threads of the largest team
constexpr size_t kFoldBytes = kTeamMost * sizeof(double);  // of all threads' values in a fold
constexpr int kWarp = 32;       // threads that compute in step

// 16 bytes on their way to a team's memory; zeros where there are none to come. Both ends are aligned to 16 bytes.
struct Fetch {
  void* to;
  const void* from;
  bool there;
};

#ifdef __CUDACC__

#define MESHARD_UNROLL _Pragma("unroll")

struct Warp {
  int index;  // in its team
  // f(lane): each lane for itself.
  template <class F>
  __device__ void lanes(const F& f) const {
    f(static_cast<int>(threadIdx.x % kWarp));
  }
};

// An R of each warp, in its registers: what lives from one warps() to the next.
template <class R>
struct PerWarp {
  R mine;
  __device__ R& operator[](const Warp&) { return mine; }
};

class Team {
 public:
  __device__ Team(std::byte* memory, std::byte* sums) : memory_(memory), sums_(sums) {}
  __device__ int64_t index() const { return blockIdx.x; }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  template <class T>
  __device__ T* memory() const {
    return reinterpret_cast<T*>(memory_);
  }

  // f(i) for i < n, over the threads; then all have done theirs.
  template <class F>
  __device__ void each(int64_t n, const F& f) const {
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) f(i);
    __syncthreads();
  }

  // f(warp) for each warp; then all have done theirs, and what was fetched is there.
  template <class F>
  __device__ void warps(const F& f) const {
    f(Warp{static_cast<int>(threadIdx.x / kWarp)});
    asm volatile("cp.async.wait_all;" ::: "memory");  // each thread its own; the barrier shows them to the others
    __syncthreads();
  }

  // Begins to copy f(i), a Fetch, for i < n, in a team of `threads`. Nobody may use the places until warps()
  // has returned, and nobody may still be using them now. The compiler knows both numbers, so that the addresses of a
  // thread's chunks are sums of one address.
  template <int threads, int n, class F>
  __device__ void fetch(const F& f) const {
    MESHARD_UNROLL for (int begin = 0; begin < n; begin += threads) {
      const int i = begin + static_cast<int>(threadIdx.x);
      if (n % threads != 0 && i >= n) break;
      const Fetch chunk = f(i);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                       static_cast<uint32_t>(__cvta_generic_to_shared(chunk.to))),
                   "l"(chunk.from), "r"(chunk.there ? 16 : 0)
                   : "memory");
    }
  }

  // The values of i < n put together by `fold` from `start` on: each thread its own, then by halves.
  template <class A, class F, class Fold>
  __device__ A fold(int64_t n, A start, const F& value, const Fold& fold) const {
    A* mine = reinterpret_cast<A*>(sums_);
    A so_far = start;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) so_far = fold(so_far, value(i));
    mine[threadIdx.x] = so_far;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) mine[threadIdx.x] = fold(mine[threadIdx.x], mine[threadIdx.x + half]);
      __syncthreads();
    }
    const A all = mine[0];
    __syncthreads();
    return all;
  }

  template <class A, class F>
  __device__ A sum(int64_t n, const F& value) const {
    return fold<A>(n, A(0), value, [](A a, A b) { return a + b; });
  }

 private:
  std::byte *memory_, *sums_;
};

// The body stays where arguments are: it may be a table, which no thread should copy.
template <class Body>
__global__ void points_kernel(int64_t n, const __grid_constant__ Body body) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) body(i);
}

template <class Body>
__global__ void teams_kernel(const __grid_constant__ Body body) {
  extern __shared__ double2 memory[];  // aligned to 16 bytes
  __shared__ double sums[kFoldBytes / sizeof(double)];
  body(Team(reinterpret_cast<std::byte*>(memory), reinterpret_cast<std::byte*>(sums)));
}

inline void check_launch(const char* what) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  throw InternalError(std::string("CUDA did not take a kernel (") + what + "): " + cudaGetErrorString(status));
}

// body(i) for i < n.
template <class Body>
void run_points(int64_t n, const Body& body, void* stream) {
  if (n == 0) return;
  constexpr int64_t kThreads = 256, kBlocks = int64_t{1} << 20;
  const int64_t blocks = std::min((n + kThreads - 1) / kThreads, kBlocks);
  points_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(n, body);
  check_launch("points");
}

// More than 48 KiB of a block's memory must be asked for, once for a kernel on a device.
template <class Body>
void allow_shared(int64_t bytes) {
  if (bytes <= kSharedBytes) return;
  static std::atomic<uint64_t> allowed = 0;  // by device
  int device = 0;
  cudaGetDevice(&device);
  const uint64_t bit = uint64_t{1} << (device & 63);
  if ((allowed.load() & bit) != 0) return;
  const cudaError_t status = cudaFuncSetAttribute(teams_kernel<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                  static_cast<int>(kSharedMost));
  if (status != cudaSuccess)
    throw InternalError(std::string("CUDA does not give a block ") + std::to_string(kSharedMost) +
                        " bytes: " + cudaGetErrorString(status));
  if (device < 64) allowed.fetch_or(bit);
}

// body(team) for `teams` teams of `threads` (a power of two), each with `bytes` of memory.
template <class Body>
void run_teams(int64_t teams, int threads, int64_t bytes, const Body& body, void* stream) {
  if (teams == 0) return;
  MESHARD_CHECK(bytes <= kSharedMost && threads <= kTeamMost, "a team is too large");
  allow_shared<Body>(bytes);
  MESHARD_CHECK(teams < (int64_t{1} << 31), "a kernel has too many teams");
  teams_kernel<<<static_cast<unsigned>(teams), threads, static_cast<size_t>(bytes),
                 static_cast<cudaStream_t>(stream)>>>(body);
  check_launch("teams");
}

#else

// On which streams the threads of a point or team take their turns from the last to the first: what depends on that
// order is wrong on a GPU.
inline bool backwards(const void* stream) { return (reinterpret_cast<uintptr_t>(stream) & 1) != 0; }

#define MESHARD_UNROLL

constexpr int kTeamWarps = kTeamMost / kWarp;

struct Warp {
  int index;
  bool backwards;
  template <class F>
  void lanes(const F& f) const {
    for (int l = 0; l < kWarp; ++l) f(backwards ? kWarp - 1 - l : l);
  }
};

template <class R>
struct PerWarp {
  std::vector<R> all = std::vector<R>(kTeamWarps);
  PerWarp() { std::memset(static_cast<void*>(all.data()), 0xff, all.size() * sizeof(R)); }  // as on a GPU: anything
  R& operator[](const Warp& warp) { return all[static_cast<size_t>(warp.index)]; }
};

class Team {
 public:
  Team(int64_t index, int threads, bool backwards, std::byte* memory)
      : index_(index), threads_(threads), backwards_(backwards), memory_(memory) {}
  int64_t index() const { return index_; }
  int threads() const { return threads_; }
  template <class T>
  T* memory() const {
    return reinterpret_cast<T*>(memory_);
  }

  template <class F>
  void each(int64_t n, const F& f) const {
    for (int t = 0; t < threads_; ++t) {
      const int thread = backwards_ ? threads_ - 1 - t : t;
      for (int64_t i = thread; i < n; i += threads_) f(i);
    }
  }

  template <class F>
  void warps(const F& f) const {
    for (int w = 0; w < threads_ / kWarp; ++w) f(Warp{backwards_ ? threads_ / kWarp - 1 - w : w, backwards_});
    for (const Fetch& chunk : fetched_) {
      if (chunk.there)
        std::memcpy(chunk.to, chunk.from, 16);
      else
        std::memset(chunk.to, 0, 16);
    }
    fetched_.clear();
  }

  // What is fetched comes as late as it may; until then its places hold anything.
  template <int threads, int n, class F>
  void fetch(const F& f) const {
    MESHARD_CHECK(threads == threads_, "a team has another number of threads");
    for (int i = 0; i < n; ++i) {
      fetched_.push_back(f(i));
      MESHARD_CHECK(
          (reinterpret_cast<uintptr_t>(fetched_.back().to) | reinterpret_cast<uintptr_t>(fetched_.back().from)) % 16 ==
              0,
          "what is fetched is aligned to 16 bytes");
      std::memset(fetched_.back().to, 0xff, 16);
    }
  }

  template <class A, class F, class Fold>
  A fold(int64_t n, A start, const F& value, const Fold& fold) const {
    MESHARD_CHECK(threads_ * sizeof(A) <= kFoldBytes, "a team's threads have too much to put together");
    A sums[kTeamMost];
    for (int t = 0; t < threads_; ++t) {
      const int thread = backwards_ ? threads_ - 1 - t : t;
      sums[thread] = start;
      for (int64_t i = thread; i < n; i += threads_) sums[thread] = fold(sums[thread], value(i));
    }
    for (int half = threads_ / 2; half > 0; half /= 2) {
      for (int t = 0; t < half; ++t) sums[t] = fold(sums[t], sums[t + half]);
    }
    return sums[0];
  }

  template <class A, class F>
  A sum(int64_t n, const F& value) const {
    return fold<A>(n, A(0), value, [](A a, A b) { return a + b; });
  }

 private:
  int64_t index_;
  int threads_;
  bool backwards_;
  std::byte* memory_;
  mutable std::vector<Fetch> fetched_;
};

template <class Body>
void run_points(int64_t n, const Body& body, void* stream) {
  if (n == 0) return;
  MESHARD_LAUNCH(stream, [=] {
    for (int64_t i = 0; i < n; ++i) body(backwards(stream) ? n - 1 - i : i);
  });
}

template <class Body>
void run_teams(int64_t teams, int threads, int64_t bytes, const Body& body, void* stream) {
  if (teams == 0) return;
  MESHARD_CHECK(bytes <= kSharedMost && threads <= kTeamMost, "a team is too large");
  MESHARD_LAUNCH(stream, [=] {
    std::vector<double> memory(static_cast<size_t>(bytes + 7) / 8);  // aligned to 16 bytes, as malloc gives it
    for (int64_t i = 0; i < teams; ++i) {
      if (!memory.empty()) std::memset(memory.data(), 0xff, memory.size() * sizeof(double));  // as on a GPU: anything
      body(Team(backwards(stream) ? teams - 1 - i : i, threads, backwards(stream),
                reinterpret_cast<std::byte*>(memory.data())));
    }
  });
}

#endif

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_LAUNCH_INL_H
