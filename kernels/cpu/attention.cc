// Attention by blocks of queries and keys. Keys (backward: values too) are turned round once for each head, so that all
// inner loops run along rows; memory is linear in the length.
#include "meshard/kernels/cpu/attention.h"

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/cpu/ranges.h"
#include "meshard/kernels/reference/attention_shape.h"

namespace meshard::cpu {
namespace {

int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t bytes(int64_t floats, int64_t parts) { return parts * floats * static_cast<int64_t>(sizeof(float)); }

// Rows of e elements, read in place where they are whole vectors next to one another, else copied with zeros beyond e.
struct Packed {
  HeadStrides at;
  int64_t e = 0, width = 0;
  bool copied = true;

  Packed(HeadStrides strides, int64_t size) : at(strides), e(size), width(rounded(size, kColumns)) {
    copied = at.e != 1 || e != width;
  }
  int64_t ld() const { return copied ? width : at.row; }
  int64_t floats(int64_t rows) const { return copied ? rows * width : 0; }

  const float* get(const float* x, int64_t rows, float* space) const {
    if (!copied) return x;
    for (int64_t i = 0; i < rows; ++i) {
      float* y = space + i * width;
      for (int64_t c = 0; c < e; ++c) y[c] = x[i * at.row + c * at.e];
      std::fill(y + e, y + width, 0.0f);
    }
    return space;
  }
};

void unpack(const float* x, int64_t width, HeadStrides at, int64_t rows, int64_t e, float* y) {
  for (int64_t i = 0; i < rows; ++i) {
    if (at.e == 1) {
      std::copy_n(x + i * width, e, y + i * at.row);
    } else {
      for (int64_t c = 0; c < e; ++c) y[i * at.row + c * at.e] = x[i * width + c];
    }
  }
}

// Queries begin .. begin + rows of a head: local t.
struct Block {
  int64_t begin = 0;
  AttentionRows at;
};

Block query_block(const AttentionShape& a, int64_t i) {
  Block b;
  b.begin = i * kQueries;
  b.at = {std::min(kQueries, a.t - b.begin), a.s, a.e, rounded(a.e, kColumns), a.begin + b.begin + 1, a.causal,
          static_cast<float>(a.scale)};
  return b;
}

// With fewer queries than this in the whole tensor, turning keys round would cost more than it saves. The whole tensor's,
// so that a query's value does not depend on how they are split.
constexpr int64_t kFewQueries = 8;

Prepared attention_of_few(const KernelSpec& spec, const AttentionShape& a, const Nest<5>& nest) {
  const int64_t tasks = nest.points() * a.t, floats = rounded(a.s + 2 * a.e, kColumns);
  return {bytes(floats, part_count(spec.threads, tasks, 1)),
          [=, f = best_attention_functions(), moved = has_start(spec), threads = spec.threads](const KernelCall& call) {
            AttentionShape here = a;
            if (moved) here.begin += start_of(call);
            parallel_parts(threads, tasks, 1, [&](int64_t part, int64_t begin, int64_t end) {
              AttentionOne w;
              w.scores = static_cast<float*>(call.workspace) + part * floats;
              w.o = w.scores + a.s;
              float* space = w.o + a.e;
              w.e = a.e;
              w.scale = static_cast<float>(a.scale);
              w.ld_keys = a.k.row;
              w.ld_values = a.v.row;
              for (int64_t task = begin; task < end; ++task) {
                const int64_t head = task / a.t, i = task % a.t;
                pieces<5>(nest.loops(), head, head + 1, [&](const Offsets<5>& at, int64_t) {
                  w.seen = here.seen(i);
                  w.q = in<float>(call, 0) + at[0] + i * a.q.row;
                  if (a.q.e != 1) {
                    for (int64_t c = 0; c < a.e; ++c) space[c] = w.q[c * a.q.e];
                    w.q = space;
                  }
                  w.keys = in<float>(call, 1) + at[1];
                  w.values = in<float>(call, 2) + at[2];
                  out<float>(call, 1)[at[4] + i * a.lse.row] = f.one(w);
                  unpack(w.o, a.e, a.o, 1, a.e, out<float>(call) + at[3] + i * a.o.row);
                });
              }
            });
          }};
}

}  // namespace

Prepared attention(const KernelSpec& spec) {
  if (spec.operands[0].type.dtype != Dtype::f32) return {};
  const KernelOperand &o = spec.results[0], &lse = spec.results[1];
  const AttentionShape fixed = attention_shape(spec, o, lse);
  std::vector<int> heads = key_heads(spec);
  for (int f : shared_heads(spec)) heads.push_back(f);
  const Nest<5> nest(spec, heads, {&spec.operands[0], &spec.operands[1], &spec.operands[2], &o, &lse});
  if (spec.factor("t").global < kFewQueries && fixed.k.e == 1 && fixed.v.e == 1) return attention_of_few(spec, fixed, nest);
  const int64_t blocks = (fixed.t + kQueries - 1) / kQueries, tasks = nest.points() * blocks;
  const AttentionFns f = best_attention_functions();
  const int64_t s = rounded(fixed.s, kPanel), width = rounded(fixed.e, kColumns);
  const Packed values(fixed.v, fixed.e);
  // A thread's turned keys, copied values, scores and results.
  const int64_t rows = std::min(kQueries, fixed.t), group = std::min(kGroup, blocks);
  const int64_t floats = s * fixed.e + values.floats(fixed.s) + rows * (kKeys + group * width);
  return {bytes(rounded(floats, kColumns), part_count(spec.threads, tasks, 1)),
          [=, moved = has_start(spec), threads = spec.threads](const KernelCall& call) {
            AttentionShape a = fixed;
            if (moved) a.begin += start_of(call);
            parallel_parts(threads, tasks, 1, [&](int64_t part, int64_t begin, int64_t end) {
              float* keys = static_cast<float*>(call.workspace) + part * rounded(floats, kColumns);
              AttentionForward w;
              w.scores = keys + s * a.e;
              float *results = w.scores + rows * kKeys, *space = results + group * rows * width;
              w.keys = keys;
              w.q_row = a.q.row;
              w.q_e = a.q.e;
              w.ld_values = values.ld();
              float tops[kGroup * kQueries], sums[kGroup * kQueries];
              AttentionForward together[kGroup];
              for (int64_t task = begin; task < end;) {
                const int64_t head = task / blocks, stop = std::min(end, (head + 1) * blocks);
                pieces<5>(nest.loops(), head, head + 1, [&](const Offsets<5>& at, int64_t) {
                  f.turn(in<float>(call, 1) + at[1], a.k.row, a.k.e, a.s, a.e, keys);
                  w.values = values.get(in<float>(call, 2) + at[2], a.s, space);
                  for (; task < stop; task = std::min(task + group, stop)) {
                    const int64_t count = std::min(group, stop - task), first = task % blocks;
                    for (int64_t i = 0; i < count; ++i) {
                      const Block b = query_block(a, first + i);
                      w.at = b.at;
                      w.q = in<float>(call, 0) + at[0] + b.begin * a.q.row;
                      w.o = results + i * rows * width;
                      w.lse = tops + i * kQueries;
                      w.sum = sums + i * kQueries;
                      together[i] = w;
                    }
                    f.forward(together, count);
                    for (int64_t i = 0; i < count; ++i) {
                      const Block b = query_block(a, first + i);
                      float* top = out<float>(call, 1) + at[4] + b.begin * a.lse.row;
                      for (int64_t r = 0; r < b.at.rows; ++r) top[r * a.lse.row] = together[i].lse[r];
                      unpack(together[i].o, width, a.o, b.at.rows, a.e, out<float>(call) + at[3] + b.begin * a.o.row);
                    }
                  }
                });
              }
            });
          }};
}

// As in the reference: p = exp(scale q k - lse), D = sum over e of o do; dv = p^T do, ds = p (do v^T - D) scale, dq =
// ds k, dk = ds^T q. A thread has heads of k to itself, with all the heads of q that share them.
Prepared attention_vjp(const KernelSpec& spec) {
  if (spec.operands[0].type.dtype != Dtype::f32) return {};
  const AttentionShape fixed = attention_shape(spec, spec.operands[3], spec.operands[4]);
  std::array<const KernelOperand*, 9> operands;  // q, k, v, o, lse, do, dq, dk, dv
  for (size_t i = 0; i < 6; ++i) operands[i] = &spec.operands[i];
  for (size_t i = 0; i < 3; ++i) operands[6 + i] = &spec.results[i];
  const Nest<9> outer(spec, key_heads(spec), operands), inner(spec, shared_heads(spec), operands);
  const AttentionFns f = best_attention_functions();
  const int64_t blocks = (fixed.t + kQueries - 1) / kQueries, width = rounded(fixed.e, kColumns);
  const int64_t s = rounded(fixed.s, kPanel);
  const int64_t rows = std::min(kQueries, fixed.t), group = std::min(kGroup, blocks);
  const Packed queries(fixed.q, fixed.e), outs(fixed.o, fixed.e), keys(fixed.k, fixed.e);
  const int64_t floats =
      rounded(2 * s * fixed.e, kColumns) + 2 * s * width + keys.floats(fixed.s) +
      rows * 2 * kKeysBack + group * (rows * width + queries.floats(rows) + 2 * outs.floats(rows));
  return {bytes(floats, part_count(spec.threads, outer.points(), 1)),
          [=, moved = has_start(spec), threads = spec.threads](const KernelCall& call) {
            AttentionShape a = fixed;
            if (moved) a.begin += start_of(call);
            parallel_parts(threads, outer.points(), 1, [&](int64_t part, int64_t begin, int64_t end) {
              float* next = static_cast<float*>(call.workspace) + part * floats;
              const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
              float* panels = take(rounded(2 * s * a.e, kColumns));  // of k and of v: [2, s, e]
              AttentionBackward w;
              w.key_panels = panels;
              w.value_panels = panels + s * a.e;
              w.dk = take(s * width);
              w.dv = take(s * width);
              w.p = take(rows * kKeysBack);
              w.dp = take(rows * kKeysBack);
              float* dq = take(group * rows * width);
              float *key_space = take(keys.floats(a.s)), *query_space = take(group * queries.floats(rows));
              float *out_space = take(group * outs.floats(rows)), *dout_space = take(group * outs.floats(rows));
              float lse[kGroup * kQueries], total[kGroup * kQueries];
              w.ld_q = queries.ld();
              w.ld_dout = outs.ld();
              w.ld_keys = keys.ld();
              AttentionBackward together[kGroup];
              const auto some_blocks = [&](const Offsets<9>& at, int64_t first, int64_t count) {
                for (int64_t g = 0; g < count; ++g) {
                  const Block b = query_block(a, first + g);
                  w.at = b.at;
                  w.q = queries.get(in<float>(call, 0) + at[0] + b.begin * a.q.row, b.at.rows, query_space + g * queries.floats(rows));
                  const float* o = outs.get(in<float>(call, 3) + at[3] + b.begin * a.o.row, b.at.rows, out_space + g * outs.floats(rows));
                  w.dout = outs.get(in<float>(call, 5) + at[5] + b.begin * a.o.row, b.at.rows, dout_space + g * outs.floats(rows));
                  w.dq = dq + g * rows * width;
                  float *own_lse = lse + g * kQueries, *own_total = total + g * kQueries;
                  for (int64_t i = 0; i < b.at.rows; ++i) {
                    own_lse[i] = in<float>(call, 4)[at[4] + (b.begin + i) * a.lse.row];
                    own_total[i] = f.dot(o + i * w.ld_dout, w.dout + i * w.ld_dout, a.e);
                  }
                  w.lse = own_lse;
                  w.total = own_total;
                  together[g] = w;
                }
                f.backward(together, count);
                for (int64_t g = 0; g < count; ++g) {
                  const Block b = query_block(a, first + g);
                  unpack(together[g].dq, width, a.q, b.at.rows, a.e, out<float>(call) + at[6] + b.begin * a.q.row);
                }
              };
              pieces<9>(outer.loops(), begin, end, [&](Offsets<9> head, int64_t count) {
                for (int64_t h = 0; h < count; ++h) {
                  const float *k = in<float>(call, 1) + head[1], *v = in<float>(call, 2) + head[2];
                  f.turn(k, a.k.row, a.k.e, a.s, a.e, panels);
                  f.turn(v, a.v.row, a.v.e, a.s, a.e, panels + s * a.e);
                  w.keys = keys.get(k, a.s, key_space);
                  std::fill_n(w.dk, a.s * width, 0.0f);
                  std::fill_n(w.dv, a.s * width, 0.0f);
                  inner.each(head, [&](const Offsets<9>& at) {
                    for (int64_t i = 0; i < blocks; i += group) some_blocks(at, i, std::min(group, blocks - i));
                  });
                  unpack(w.dk, width, a.k, a.s, a.e, out<float>(call, 1) + head[7]);
                  unpack(w.dv, width, a.v, a.s, a.e, out<float>(call, 2) + head[8]);
                  if (!outer.loops().empty()) {
                    for (size_t x = 0; x < 9; ++x) head[x] += outer.loops().back().step[x];
                  }
                }
              });
            });
          }};
}

}  // namespace meshard::cpu
