// Copies of elements: reshape, transpose, take, embedding, and values made from nothing. No arithmetic, or so
// little that memory decides: plain loops.
#include <cstring>

#include "meshard/kernels/cpu/convert.h"
#include "meshard/kernels/cpu/copy.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/ring.h"

namespace meshard::cpu {
namespace {

void copy_bytes(void* to, const void* from, int64_t bytes, int threads) {
  parallel_parts(threads, bytes, int64_t{1} << 18, [&](int64_t, int64_t begin, int64_t end) {
    if (end > begin)
      std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                  static_cast<size_t>(end - begin));
  });
}

}  // namespace

Prepared reshape(const KernelSpec& spec) {
  return {0, [bytes = spec.results[0].type.bytes(), threads = spec.threads](const KernelCall& call) {
            if (call.results[0] != call.operands[0]) copy_bytes(call.results[0], call.operands[0], bytes, threads);
          }};
}

Prepared identity(const KernelSpec& spec) { return reshape(spec); }

Prepared ring_part(const KernelSpec& spec) {
  const RingBlocks blocks(spec, spec.operands[0], spec.results[0]);
  if (blocks.misses) return {};
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    const Copy<T> copy = make_copy<T>(blocks.nest, spec.threads);
    if (!copy) return {};
    return {0, [=](const KernelCall& call) {
              blocks.each([&](int64_t wide, int64_t narrow) { copy(in<T>(call, 0) + wide, out<T>(call) + narrow); });
            }};
  });
}

Prepared ring_place(const KernelSpec& spec) {
  // Copied from the second operand into the result, so the offsets change sides.
  const KernelOperand &wide = spec.operands[0], &narrow = spec.operands[1];
  const RingBlocks blocks(spec, wide, narrow);
  const Nest<2> nest(spec, without(factors_of(narrow), {factor_index(spec, "ring")}), {&narrow, &wide});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    const Copy<T> copy = make_copy<T>(nest, spec.threads);
    if (!copy) return {};
    return {0, [=, bytes = spec.results[0].type.bytes(), threads = spec.threads](const KernelCall& call) {
              if (call.results[0] != call.operands[0]) copy_bytes(call.results[0], call.operands[0], bytes, threads);
              blocks.each([&](int64_t at, int64_t from) { copy(in<T>(call, 1) + from, out<T>(call) + at); });
            }};
  });
}

Prepared transpose(const KernelSpec& spec) {
  const Nest<2> nest(spec, factors_of(spec.results[0]), {&spec.operands[0], &spec.results[0]});
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    const Copy<T> copy = make_copy<T>(nest, spec.threads);
    if (!copy) return {};
    return {0, [copy](const KernelCall& call) { copy(in<T>(call, 0), out<T>(call)); }};
  });
}

Prepared take(const KernelSpec& spec) {
  const int64_t bytes = spec.results[0].type.bytes(), rows = spec.operands[0].type.shape[0];
  return {0, [bytes, rows, begin = spec.factor("k").begin, threads = spec.threads](const KernelCall& call) {
            const int64_t row = in<int32_t>(call, 1)[0] - begin;
            if (row >= 0 && row < rows) {
              copy_bytes(call.results[0], in<std::byte>(call, 0) + row * bytes, bytes, threads);
            } else if (bytes > 0) {
              std::memset(call.results[0], 0, static_cast<size_t>(bytes));
            }
          }};
}

Prepared embedding(const KernelSpec& spec) {
  const int64_t ids = spec.operands[0].type.shape.elements(), d = spec.operands[1].type.shape[1];
  const int64_t first = spec.factor("v").begin, size = spec.factor("v").size;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, threads = spec.threads](const KernelCall& call) {
              parallel_parts(threads, ids, kGrain / std::max<int64_t>(d, 1) + 1,
                             [&](int64_t, int64_t begin, int64_t end) {
                               for (int64_t i = begin; i < end; ++i) {
                                 const int64_t row = in<int32_t>(call, 0)[i] - first;
                                 if (row >= 0 && row < size) {
                                   std::copy_n(in<T>(call, 1) + row * d, d, out<T>(call) + i * d);
                                 } else {
                                   std::fill_n(out<T>(call) + i * d, d, T{});
                                 }
                               }
                             });
            }};
  });
}

namespace {

// y += x, from f32 or from what is narrow by pieces.
void add_row(const float* x, float* y, int64_t n) {
  for (int64_t j = 0; j < n; ++j) y[j] += x[j];
}
template <class Half>
void add_row(const Half* x, float* y, int64_t n) {
  constexpr int64_t kPiece = 512;
  float piece[kPiece];
  const auto widen = conversions<Half>().widen;
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t count = std::min(kPiece, n - at);
    widen(x + at, piece, count);
    add_row(piece, y + at, count);
  }
}

// Each thread has rows of the table to itself and adds the ids that fall there, in order: to zeros, or to the rows of the
// last operand, of which only those of some id are touched where they lie in the result's memory.
template <class T>
Prepared add_rows(const KernelSpec& spec, bool onto) {
  const int64_t ids = spec.operands[0].type.shape.elements(), d = spec.results[0].type.shape[1];
  const int64_t first = spec.factor("v").begin, size = spec.factor("v").size;
  return {0, [=, threads = spec.threads](const KernelCall& call) {
            float* table = out<float>(call);
            parallel_parts(threads, size, kGrain / std::max<int64_t>(d, 1) + 1,
                           [&](int64_t, int64_t begin, int64_t end) {
                             if (!onto) {
                               std::fill_n(table + begin * d, (end - begin) * d, 0.0f);
                             } else if (const float* base = in<float>(call, 2); base != table) {
                               std::copy_n(base + begin * d, (end - begin) * d, table + begin * d);
                             }
                             for (int64_t i = 0; i < ids; ++i) {
                               const int64_t row = in<int32_t>(call, 0)[i] - first;
                               if (row < begin || row >= end) continue;
                               add_row(in<T>(call, 1) + i * d, table + row * d, d);
                             }
                           });
          }};
}

Prepared add_any_rows(const KernelSpec& spec, bool onto) {
  if (spec.results[0].type.dtype != Dtype::f32 || (onto && spec.operands[2].type.dtype != Dtype::f32)) return {};
  const Dtype from = spec.operands[1].type.dtype;
  if (is_narrow(from)) return for_narrow(from, [&]<class T>() { return add_rows<T>(spec, onto); });
  return add_rows<float>(spec, onto);
}

}  // namespace

Prepared embedding_vjp(const KernelSpec& spec) { return add_any_rows(spec, false); }
Prepared embedding_vjp_onto(const KernelSpec& spec) { return add_any_rows(spec, true); }

Prepared pick(const KernelSpec& spec) { return reference::pick(spec); }

Prepared fill(const KernelSpec& spec) {
  if (spec.results[0].type.dtype != Dtype::f32) return {};
  return {0, [n = spec.results[0].type.shape.elements(), value = static_cast<float>(spec.attributes->number("value")),
              threads = spec.threads](const KernelCall& call) {
            parallel_parts(threads, n, kGrain, [&](int64_t, int64_t begin, int64_t end) {
              std::fill(out<float>(call) + begin, out<float>(call) + end, value);
            });
          }};
}

Prepared iota(const KernelSpec& spec) { return reference::iota(spec); }
Prepared random_normal(const KernelSpec& spec) { return reference::random_normal(spec); }
Prepared random_uniform(const KernelSpec& spec) { return reference::random_uniform(spec); }

}  // namespace meshard::cpu
