#include <algorithm>
#include <cmath>
#include <limits>

#include "meshard/kernels/reference/attention_shape.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {
namespace {

template <class A, class T>
A dot(const T* x, int64_t step_x, const T* y, int64_t step_y, int64_t n) {
  A sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<A>(x[i * step_x]) * static_cast<A>(y[i * step_y]);
  return sum;
}

}  // namespace

Prepared attention(const KernelSpec& spec) {
  const KernelOperand &o = spec.results[0], &lse = spec.results[1];
  const AttentionShape fixed = attention_shape(spec, o, lse);
  const bool moved = has_start(spec);
  std::vector<int> heads = key_heads(spec);
  for (int f : shared_heads(spec)) heads.push_back(f);
  const Nest<5> nest(spec, heads, {&spec.operands[0], &spec.operands[1], &spec.operands[2], &o, &lse});
  const Dtype side = lse.type.dtype;
  return for_float(o.type.dtype, [&]<class T>() -> Prepared {
    using A = Sum<T>;
    return {fixed.s * static_cast<int64_t>(sizeof(A)), [=](const KernelCall& call) {
              AttentionShape a = fixed;
              if (moved) a.begin += start_of(call);
              A* p = static_cast<A*>(call.workspace);  // [s], one row of scores
              nest.each({}, [&](const Offsets<5>& at) {
                for (int64_t i = 0; i < a.t; ++i) {
                  const T* q = in<T>(call, 0) + at[0] + i * a.q.row;
                  const T* v = in<T>(call, 2) + at[2];
                  const int64_t seen = a.seen(i);
                  A top = -std::numeric_limits<A>::infinity(), sum = 0;
                  for (int64_t j = 0; j < seen; ++j) {
                    p[j] = dot<A>(q, a.q.e, in<T>(call, 1) + at[1] + j * a.k.row, a.k.e, a.e) * static_cast<A>(a.scale);
                    top = std::max(top, p[j]);
                  }
                  for (int64_t j = 0; j < seen; ++j) sum += p[j] = std::exp(p[j] - top);
                  for (int64_t c = 0; c < a.e; ++c) {
                    A value = 0;
                    for (int64_t j = 0; j < seen; ++j) value += p[j] * static_cast<A>(v[j * a.v.row + c * a.v.e]);
                    out<T>(call)[at[3] + i * a.o.row + c * a.o.e] = static_cast<T>(seen > 0 ? value / sum : 0);
                  }
                  store_number(call.results[1], side, at[4] + i * a.lse.row, top + std::log(sum));
                }
              });
            }};
  });
}

// With p = exp(scale q k - lse) and D = sum over e of o do: dv = p^T do, ds = p (do v^T - D) scale, dq = ds k, dk =
// ds^T q.
Prepared attention_vjp(const KernelSpec& spec) {
  const KernelOperand &o = spec.operands[3], &lse = spec.operands[4];
  const AttentionShape fixed = attention_shape(spec, o, lse);
  // q, k, v, o, lse, do, dq, dk, dv; do has the strides of o, and the gradients those of their values.
  std::array<const KernelOperand*, 9> blocks;
  for (size_t i = 0; i < 6; ++i) blocks[i] = &spec.operands[i];
  for (size_t i = 0; i < 3; ++i) blocks[6 + i] = &spec.results[i];
  const Nest<9> outer(spec, key_heads(spec), blocks), inner(spec, shared_heads(spec), blocks);
  const Dtype side = lse.type.dtype;
  return for_float(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    using A = Sum<T>;
    const int64_t kv = fixed.s * fixed.e;
    return {(2 * kv + fixed.e) * static_cast<int64_t>(sizeof(A)), [=, moved = has_start(spec)](const KernelCall& call) {
              AttentionShape a = fixed;
              if (moved) a.begin += start_of(call);
              A* dk = static_cast<A*>(call.workspace);  // [s, e]
              A* dv = dk + kv;                          // [s, e]
              A* dq = dv + kv;                          // [e]
              outer.each({}, [&](const Offsets<9>& head) {
                std::fill_n(dk, 2 * kv, A{0});
                inner.each(head, [&](const Offsets<9>& at) {
                  const T* k = in<T>(call, 1) + at[1];
                  const T* v = in<T>(call, 2) + at[2];
                  for (int64_t i = 0; i < a.t; ++i) {
                    const T* q = in<T>(call, 0) + at[0] + i * a.q.row;
                    const T* dout = in<T>(call, 5) + at[5] + i * a.o.row;
                    const A total = dot<A>(in<T>(call, 3) + at[3] + i * a.o.row, a.o.e, dout, a.o.e, a.e);
                    const A log_sum = static_cast<A>(load_number(call.operands[4], side, at[4] + i * a.lse.row));
                    std::fill_n(dq, a.e, A{0});
                    for (int64_t j = 0; j < a.seen(i); ++j) {
                      const A score = dot<A>(q, a.q.e, k + j * a.k.row, a.k.e, a.e) * static_cast<A>(a.scale);
                      const A p = std::exp(score - log_sum);
                      const A ds =
                          p * (dot<A>(dout, a.o.e, v + j * a.v.row, a.v.e, a.e) - total) * static_cast<A>(a.scale);
                      for (int64_t c = 0; c < a.e; ++c) {
                        dv[j * a.e + c] += p * static_cast<A>(dout[c * a.o.e]);
                        dk[j * a.e + c] += ds * static_cast<A>(q[c * a.q.e]);
                        dq[c] += ds * static_cast<A>(k[j * a.k.row + c * a.k.e]);
                      }
                    }
                    T* dq_row = out<T>(call, 0) + at[6] + i * a.q.row;
                    for (int64_t c = 0; c < a.e; ++c) dq_row[c * a.q.e] = static_cast<T>(dq[c]);
                  }
                });
                for (int64_t j = 0; j < a.s; ++j) {
                  for (int64_t c = 0; c < a.e; ++c) {
                    out<T>(call, 1)[head[7] + j * a.k.row + c * a.k.e] = static_cast<T>(dk[j * a.e + c]);
                    out<T>(call, 2)[head[8] + j * a.v.row + c * a.v.e] = static_cast<T>(dv[j * a.e + c]);
                  }
                }
              });
            }};
  });
}

}  // namespace meshard::reference
