// Recurrences along one dimension t: h_t = a_t h_{t-1} + b_t, or sums, where there is no a. A thread has a line. See
// kernels/reference/scan.cc, whose blocks and halos are the same.
#ifndef MESHARD_KERNELS_DEVICE_SCAN_INL_H
#define MESHARD_KERNELS_DEVICE_SCAN_INL_H

#include "meshard/kernels/device/index-inl.h"

namespace meshard::MESHARD_DEVICE {

MESHARD_BODY inline int64_t part_begin(int64_t n, int64_t parts, int64_t p) { return (p * n + parts - 1) / parts; }

template <class T>
struct Recurrence {
  bool reverse;
  int64_t parts, read, n, begin;
  LineShape x, y;
  const T *a, *b;  // a: null where it is 1

  MESHARD_BODY Sum<T> step(Sum<T> h, int64_t i) const {
    return a != nullptr ? load(a[i]) * h + load(b[i]) : h + load(b[i]);
  }
};

template <class T>
struct ScanBody {
  Recurrence<T> r;
  int64_t first, carries;  // blocks that `before` is about
  const T* before;
  T* y;

  MESHARD_BODY void operator()(int64_t line) const {
    const int64_t o = line / r.x.inner, j = line % r.x.inner;
    Sum<T> h = 0;
    for (int64_t k = 0; k < r.x.size; ++k) {
      const int64_t local = r.reverse ? r.x.size - 1 - k : k, at = local + r.read;
      const int64_t p = r.n == 0 ? 0 : at * r.parts / r.n;
      const int64_t entry = r.reverse ? part_begin(r.n, r.parts, p + 1) - 1 : part_begin(r.n, r.parts, p);
      if (at == entry || k == 0) {
        const int64_t c = p - first;  // outside: a block that is not read from its first element on
        h = before != nullptr && c >= 0 && c < carries ? load(before[(o * carries + c) * r.x.inner + j]) : Sum<T>(0);
      }
      h = r.step(h, (o * r.x.size + local) * r.x.inner + j);
      const int64_t to = at - r.begin;
      if (to >= 0 && to < r.y.size) y[(o * r.y.size + to) * r.y.inner + j] = store<T>(h);
    }
  }
};

template <class T>
struct BlockScanBody {
  Recurrence<T> r;
  T *product, *last;  // product: null without a

  MESHARD_BODY void operator()(int64_t i) const {
    const int64_t j = i % r.y.inner, p = i / r.y.inner % r.y.size, o = i / r.y.inner / r.y.size;
    const int64_t begin = part_begin(r.n, r.parts, r.begin + p) - r.read;
    const int64_t end = part_begin(r.n, r.parts, r.begin + p + 1) - r.read;
    Sum<T> h = 0, all = 1;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t at = (o * r.x.size + (r.reverse ? begin + end - 1 - k : k)) * r.x.inner + j;
      h = r.step(h, at);
      if (r.a != nullptr) all *= load(r.a[at]);
    }
    if (product != nullptr) product[i] = store<T>(all);
    last[i] = store<T>(h);
  }
};

template <class T>
struct ExclusiveScanBody {
  Recurrence<T> r;
  T* y;

  MESHARD_BODY void operator()(int64_t line) const {
    const int64_t o = line / r.x.inner, j = line % r.x.inner;
    Sum<T> h = 0;
    for (int64_t k = 0; k < r.x.size; ++k) {
      const int64_t at = (o * r.x.size + (r.reverse ? r.x.size - 1 - k : k)) * r.x.inner + j;
      const Sum<T> next = r.step(h, at);  // the result may lie in the operand's memory
      y[at] = store<T>(h);
      h = next;
    }
  }
};

template <class T>
Recurrence<T> recurrence(const KernelSpec& spec) {
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  return {spec.attributes->flag("reverse"),
          spec.attributes->integer("parts", 1),
          spec.operands[0].begin_of(d),
          spec.operands[0].global_of(d),
          spec.factors[static_cast<size_t>(spec.results[0].dims[d][0])].begin,
          LineShape(spec.operands[0], d),
          LineShape(spec.results[0], d),
          nullptr,
          nullptr};
}

// With its operands: a, where there is one, and b.
template <class T>
Recurrence<T> on(Recurrence<T> r, const KernelCall& call, bool scaled) {
  r.a = scaled ? in<T>(call, 0) : nullptr;
  r.b = in<T>(call, scaled ? 1 : 0);
  return r;
}

template <bool scaled>
Prepared scan(const KernelSpec& spec) {
  const size_t carry = scaled ? 2 : 1;
  const bool carried = spec.operands.size() > carry;
  const auto d = static_cast<size_t>(spec.attributes->integer("dimension"));
  const int64_t first = carried ? spec.operands[carry].begin_of(d) : 0;
  const int64_t carries = carried ? LineShape(spec.operands[carry], d).size : 0;
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [=, r = recurrence<T>(spec)](const KernelCall& call) {
              run_points(r.x.outer * r.x.inner,
                         ScanBody<T>{on(r, call, scaled), first, carries, carried ? in<T>(call, carry) : nullptr,
                                     out<T>(call)},
                         call.stream);
            }};
  });
}

template <bool scaled>
Prepared block_scan(const KernelSpec& spec) {
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [r = recurrence<T>(spec)](const KernelCall& call) {
              run_points(r.y.count(),
                         BlockScanBody<T>{on(r, call, scaled), scaled ? out<T>(call, 0) : nullptr,
                                          out<T>(call, scaled ? 1 : 0)},
                         call.stream);
            }};
  });
}

template <bool scaled>
Prepared exclusive_scan(const KernelSpec& spec) {
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [r = recurrence<T>(spec)](const KernelCall& call) {
              run_points(r.x.outer * r.x.inner, ExclusiveScanBody<T>{on(r, call, scaled), out<T>(call)}, call.stream);
            }};
  });
}

}  // namespace meshard::MESHARD_DEVICE

#endif  // MESHARD_KERNELS_DEVICE_SCAN_INL_H
