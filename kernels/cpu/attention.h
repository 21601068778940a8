// Attention of a few blocks of queries, of one instruction set. Keys are taken in blocks: a thread holds the scores of 64
// queries and 128 (forward) or 64 (backward) keys, whatever the length. A block of keys serves all the blocks of queries
// before the next is read: they stay in the caches, which the keys of a long sequence do not.
#pragma once

#include <algorithm>
#include <cstdint>

namespace meshard::cpu {

constexpr int64_t kColumns = 16;  // what widths of rows are rounded up to, in elements
constexpr int64_t kPanel = 32;    // keys of the widest panel
constexpr int64_t kQueries = 64;  // queries in a block
constexpr int64_t kKeys = 128;    // keys in a block of the forward pass
constexpr int64_t kKeysBack = 64;
constexpr int64_t kGroup = 8;  // blocks of queries that are taken together

// Queries of one head and the keys they see.
struct AttentionRows {
  int64_t rows = 0;   // at most kQueries
  int64_t s = 0;      // keys
  int64_t e = 0;      // of a key, and rounded up to kColumns: of a value, a result and a gradient
  int64_t width = 0;
  int64_t first = 0;  // keys that the first query sees, were there enough
  bool causal = true;
  float scale = 1;

  int64_t seen(int64_t row) const { return causal ? std::min(first + row, s) : s; }
};

// Rows of `ld` elements. "panels": see AttentionFns::turn.
struct AttentionForward {
  AttentionRows at;
  const float* q = nullptr;  // at q[row * q_row + e * q_e]
  int64_t q_row = 0, q_e = 1;
  const float* keys = nullptr;  // panels
  const float* values = nullptr;
  int64_t ld_values = 0;
  float* scores = nullptr;  // [64, 128]
  float* o = nullptr;       // [64, width]
  float* lse = nullptr;     // [64]
  float* sum = nullptr;     // [64]: of the weights so far
};

// One query of one head over the keys it sees, where there are too few queries for a block: keys and values are read once,
// as they lie.
struct AttentionOne {
  int64_t seen = 0, e = 0;
  float scale = 1;
  const float *q = nullptr, *keys = nullptr, *values = nullptr;  // elements of a row are next to one another
  int64_t ld_keys = 0, ld_values = 0;
  float* scores = nullptr;  // [seen]
  float* o = nullptr;       // [e]
};

struct AttentionBackward {
  AttentionRows at;
  const float *q = nullptr, *dout = nullptr, *keys = nullptr;
  int64_t ld_q = 0, ld_dout = 0, ld_keys = 0;
  const float *key_panels = nullptr, *value_panels = nullptr;
  const float *lse = nullptr, *total = nullptr;  // [64] each; total: the sums over e of o times its cotangent
  float *p = nullptr, *dp = nullptr;             // [64, 64] each
  float* dq = nullptr;                           // [64, width]
  float *dk = nullptr, *dv = nullptr;            // [s, width]: added to
};

struct AttentionFns {
  // [rows, e] at x[i * row + c * column] turned round: panels [e, w] of w rows each, zeros beyond the last row.
  void (*turn)(const float* x, int64_t row, int64_t column, int64_t rows, int64_t e, float* panels);
  void (*forward)(const AttentionForward* blocks, int64_t count);  // of one head, in order
  float (*one)(const AttentionOne& f);  // returns lse
  void (*backward)(const AttentionBackward* blocks, int64_t count);
  float (*dot)(const float* x, const float* y, int64_t n);
};

// Of the instruction set that this processor has.
AttentionFns best_attention_functions();

}  // namespace meshard::cpu
