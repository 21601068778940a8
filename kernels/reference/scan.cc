// Recurrences along one dimension t: h_t = a_t h_{t-1} + b_t, or sums, where a is 1. In blocks: block p of `parts` over n
// begins at ceil(p n / parts), as the blocks of a layout do.
#include "meshard/kernels/reference/nest.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

struct Lines {
  int64_t outer = 1, size = 1, inner = 1;  // elements
};
Lines lines_of(const KernelOperand& block, size_t dimension) {
  Lines line;
  const auto& dims = block.type.shape.dims;
  for (size_t d = 0; d < dims.size(); ++d) {
    (d < dimension ? line.outer : d == dimension ? line.size : line.inner) *= dims[d];
  }
  return line;
}

int64_t block_begin(int64_t n, int64_t parts, int64_t p) { return (p * n + parts - 1) / parts; }

// What the four kernels of a recurrence have in common. Operands: a (where there is one), b, ...
struct Recurrence {
  explicit Recurrence(const KernelSpec& spec)
      : d(static_cast<size_t>(spec.attributes->integer("dimension"))),
        reverse(spec.attributes->flag("reverse")),
        parts(spec.attributes->integer("parts", 1)),
        read(spec.operands[0].begin_of(d)),
        n(spec.operands[0].global_of(d)),
        x(lines_of(spec.operands[0], d)),
        y(lines_of(spec.results[0], d)),
        t(spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])]) {}

  size_t d;
  bool reverse;
  int64_t parts, read, n;
  Lines x, y;
  KernelFactor t;
};

template <class T, bool kScaled>
struct Step {
  const T *a, *b;
  // One element further, at offset `i` of the operands.
  Sum<T> operator()(Sum<T> h, int64_t i) const {
    const auto add = static_cast<Sum<T>>(b[i]);
    if constexpr (kScaled) return static_cast<Sum<T>>(a[i]) * h + add;
    return h + add;
  }
};

template <class T, bool kScaled>
Step<T, kScaled> step_of(const KernelCall& call) {
  return {in<T>(call, 0), in<T>(call, kScaled ? 1 : 0)};
}

// The whole recurrence from `carry` (operand behind b, by block) on, in blocks.
template <bool kScaled>
Prepared from(const KernelSpec& spec) {
  const Recurrence r(spec);
  const size_t carry = kScaled ? 2 : 1;
  const bool carried = spec.operands.size() > carry;
  const int64_t first = carried ? spec.operands[carry].begin_of(r.d) : 0;
  const int64_t carries = carried ? lines_of(spec.operands[carry], r.d).size : 0;
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const auto step = step_of<T, kScaled>(call);
              const T* before = carried ? in<T>(call, carry) : nullptr;
              T* y = out<T>(call);
              for (int64_t o = 0; o < r.x.outer; ++o) {
                for (int64_t j = 0; j < r.x.inner; ++j) {
                  Sum<T> h = 0;
                  for (int64_t k = 0; k < r.x.size; ++k) {
                    const int64_t local = r.reverse ? r.x.size - 1 - k : k, at = local + r.read;
                    const int64_t p = r.n == 0 ? 0 : at * r.parts / r.n;
                    const int64_t entry =
                        r.reverse ? block_begin(r.n, r.parts, p + 1) - 1 : block_begin(r.n, r.parts, p);
                    if (at == entry || k == 0) {
                      // A block that is not read from its first element on lies outside of the result.
                      const int64_t c = p - first;
                      h = carried && c >= 0 && c < carries
                              ? static_cast<Sum<T>>(before[(o * carries + c) * r.x.inner + j])
                              : 0;
                    }
                    h = step(h, (o * r.x.size + local) * r.x.inner + j);
                    const int64_t to = at - r.t.begin;
                    if (to >= 0 && to < r.y.size) y[(o * r.y.size + to) * r.y.inner + j] = static_cast<T>(h);
                  }
                }
              }
            }};
  });
}

// Of each block what it makes of nothing and, with a, the product of its a.
template <bool kScaled>
Prepared totals(const KernelSpec& spec) {
  const Recurrence r(spec);
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const auto step = step_of<T, kScaled>(call);
              for (int64_t o = 0; o < r.y.outer; ++o) {
                for (int64_t p = 0; p < r.y.size; ++p) {
                  const int64_t begin = block_begin(r.n, r.parts, r.t.begin + p) - r.read;
                  const int64_t end = block_begin(r.n, r.parts, r.t.begin + p + 1) - r.read;
                  for (int64_t j = 0; j < r.y.inner; ++j) {
                    Sum<T> h = 0, product = 1;
                    for (int64_t k = begin; k < end; ++k) {
                      const int64_t at = (o * r.x.size + (r.reverse ? begin + end - 1 - k : k)) * r.x.inner + j;
                      h = step(h, at);
                      if (kScaled) product *= static_cast<Sum<T>>(step.a[at]);
                    }
                    const int64_t to = (o * r.y.size + p) * r.y.inner + j;
                    if (kScaled) out<T>(call, 0)[to] = static_cast<T>(product);
                    out<T>(call, kScaled ? 1 : 0)[to] = static_cast<T>(h);
                  }
                }
              }
            }};
  });
}

// The state before each element.
template <bool kScaled>
Prepared before(const KernelSpec& spec) {
  const Recurrence r(spec);
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=](const KernelCall& call) {
              const auto step = step_of<T, kScaled>(call);
              for (int64_t o = 0; o < r.x.outer; ++o) {
                for (int64_t j = 0; j < r.x.inner; ++j) {
                  Sum<T> h = 0;
                  for (int64_t k = 0; k < r.x.size; ++k) {
                    const int64_t at = (o * r.x.size + (r.reverse ? r.x.size - 1 - k : k)) * r.x.inner + j;
                    const Sum<T> next = step(h, at);  // the result may lie in the operand's memory
                    out<T>(call)[at] = static_cast<T>(h);
                    h = next;
                  }
                }
              }
            }};
  });
}

}  // namespace

Prepared cumsum(const KernelSpec& spec) { return from<false>(spec); }
Prepared block_sum(const KernelSpec& spec) { return totals<false>(spec); }
Prepared exclusive_sum(const KernelSpec& spec) { return before<false>(spec); }
Prepared scan(const KernelSpec& spec) { return from<true>(spec); }
Prepared block_scan(const KernelSpec& spec) { return totals<true>(spec); }
Prepared exclusive_scan(const KernelSpec& spec) { return before<true>(spec); }

}  // namespace meshard::reference
