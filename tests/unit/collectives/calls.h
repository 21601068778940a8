// Calls with known results, for the tests of every backend. Values are small whole numbers, exact in all dtypes and in
// all sums, so results are compared for equality; what order sums are made in has a test of its own.
#pragma once

#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/collectives/communicator.h"

namespace meshard::testing {

inline constexpr Dtype kDtypes[] = {Dtype::f64, Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::i32};
inline constexpr Reduction kReductionKinds[] = {Reduction::sum, Reduction::max, Reduction::min};
inline constexpr Collective kCallKinds[] = {Collective::all_gather, Collective::all_reduce, Collective::reduce_scatter,
                                            Collective::all_to_all, Collective::permute,    Collective::exchange,
                                            Collective::broadcast,  Collective::barrier};

inline void store(Dtype dtype, void* data, int64_t e, double value) {
  switch (dtype) {
    case Dtype::f64:
      static_cast<double*>(data)[e] = value;
      break;
    case Dtype::f32:
      static_cast<float*>(data)[e] = static_cast<float>(value);
      break;
    case Dtype::bf16:
      static_cast<bfloat16*>(data)[e] = bfloat16(static_cast<float>(value));
      break;
    case Dtype::f16:
      static_cast<float16*>(data)[e] = float16(static_cast<float>(value));
      break;
    case Dtype::i32:
      static_cast<int32_t*>(data)[e] = static_cast<int32_t>(value);
      break;
  }
}

inline double load(Dtype dtype, const void* data, int64_t e) {
  switch (dtype) {
    case Dtype::f64:
      return static_cast<const double*>(data)[e];
    case Dtype::f32:
      return static_cast<const float*>(data)[e];
    case Dtype::bf16:
      return static_cast<float>(static_cast<const bfloat16*>(data)[e]);
    case Dtype::f16:
      return static_cast<float>(static_cast<const float16*>(data)[e]);
    case Dtype::i32:
      return static_cast<const int32_t*>(data)[e];
  }
  return 0;
}

// Element e of what `rank` sends.
inline double value_of(Rank rank, int64_t e) {
  return static_cast<double>((index(rank) * 7 + e * 3 + e / 11) % 13 - 6);
}

inline double reduced(Reduction reduction, const Group& group, int64_t e) {
  double result = value_of(group[0], e);
  for (int m = 1; m < group.size(); ++m) {
    double v = value_of(group[m], e);
    result = reduction == Reduction::sum   ? result + v
             : reduction == Reduction::max ? std::max(result, v)
                                           : std::min(result, v);
  }
  return result;
}

// Bytes of a call: what is large is memory of the kind that programs have.
class Bytes {
 public:
  Bytes() = default;
  Bytes(size_t size, std::byte value) : buffer_(static_cast<int64_t>(size)) { std::memset(data(), int(value), size); }
  std::byte* data() { return buffer_.data(); }
  const std::byte* data() const { return buffer_.data(); }
  size_t size() const { return static_cast<size_t>(buffer_.bytes()); }
  std::byte operator[](size_t i) const { return buffer_.data()[i]; }

 private:
  Buffer buffer_;
};

// One rank's part of a call: arrays, the call, and what `receive` must hold after it. It lies still: the call points
// into it.
struct TestCall {
  Group group;
  std::vector<int64_t> counts, send_counts;
  Bytes send, receive;
  std::vector<double> expected;
  std::string label;
  CollectiveCall call;
};

inline constexpr size_t kGuard = 64;  // bytes behind `receive` that must stay as they are
inline constexpr std::byte kGuardByte{0xa5};

// Elements that member `from` sends to `to` in the calls that exchange pieces.
inline int64_t exchanged(Collective kind, int p, int from, int to, int64_t n) {
  if (kind == Collective::permute) return to == (from + 1) % p ? n : 0;
  if (kind == Collective::exchange) return from == to || (from + to) % 2 == 0 ? 0 : n / 2 + from;
  return (from * 3 + to * 5) % 4 == 0 ? 0 : block_begin(n, p, to + 1) - block_begin(n, p, to) + from;
}

// `n` elements in all; `lopsided` gives all but one of them to the last member instead of even blocks.
inline std::unique_ptr<TestCall> make_call(const Mesh& mesh, AtomSet over, Rank rank, Collective kind,
                                           Reduction reduction, Dtype dtype, int64_t n, bool lopsided = false,
                                           bool in_place = false) {
  auto t = std::make_unique<TestCall>();
  t->group = Group(mesh, over, rank);
  const Group& group = t->group;
  int p = group.size(), self = group.self();
  auto block = [&](int m) {
    if (lopsided && p > 1 && n > 0) return m == p - 1 ? n - 1 : m == 0 ? int64_t{1} : int64_t{0};
    return block_begin(n, p, m + 1) - block_begin(n, p, m);
  };
  int64_t sends = 0, size = size_bytes(dtype);
  switch (kind) {
    case Collective::all_reduce:
      sends = n;
      for (int64_t e = 0; e < n; ++e) t->expected.push_back(reduced(reduction, group, e));
      break;
    case Collective::all_gather:
      sends = block(self);
      for (int m = 0; m < p; ++m) {
        t->counts.push_back(block(m));
        for (int64_t e = 0; e < block(m); ++e) t->expected.push_back(value_of(group[m], e));
      }
      break;
    case Collective::reduce_scatter: {
      int64_t begin = 0;
      for (int m = 0; m < p; ++m) {
        t->counts.push_back(block(m));
        if (m < self) begin += block(m);
      }
      sends = n;
      for (int64_t e = 0; e < block(self); ++e) t->expected.push_back(reduced(reduction, group, begin + e));
      break;
    }
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      for (int m = 0; m < p; ++m) {
        t->send_counts.push_back(exchanged(kind, p, self, m, n));
        t->counts.push_back(exchanged(kind, p, m, self, n));
        sends += t->send_counts.back();
        int64_t begin = 0;
        for (int j = 0; j < self; ++j) begin += exchanged(kind, p, m, j, n);
        for (int64_t e = 0; e < t->counts.back(); ++e) t->expected.push_back(value_of(group[m], begin + e));
      }
      break;
    case Collective::broadcast:
      sends = self == 0 ? n : 0;
      for (int64_t e = 0; self != 0 && e < n; ++e) t->expected.push_back(value_of(group[0], e));
      break;
    default:
      break;
  }
  t->send = Bytes(static_cast<size_t>(sends * size), std::byte{0});
  for (int64_t e = 0; e < sends; ++e) store(dtype, t->send.data(), e, value_of(rank, e));
  t->receive = Bytes(t->expected.size() * static_cast<size_t>(size) + kGuard, kGuardByte);
  if (in_place && t->send.size() > 0) std::memcpy(t->receive.data(), t->send.data(), t->send.size());
  t->label = std::string(name(kind)) + ".value";
  t->call = {.kind = kind,
             .reduction = reduction,
             .group = &t->group,
             .dtype = dtype,
             .send = in_place ? t->receive.data() : t->send.data(),
             .receive = t->receive.data(),
             .send_elements = kind == Collective::all_reduce || kind == Collective::broadcast ? n : 0,
             .counts = t->counts,
             .send_counts = t->send_counts,
             .label = t->label};
  return t;
}

// "" or what is wrong.
inline std::string check_result(const TestCall& t) {
  for (size_t e = 0; e < t.expected.size(); ++e) {
    double got = load(t.call.dtype, t.receive.data(), static_cast<int64_t>(e));
    if (got != t.expected[e]) {
      return "rank " + std::to_string(index(t.group[t.group.self()])) + ", " + std::string(name(t.call.kind)) + " " +
             std::string(name(t.call.dtype)) + ", element " + std::to_string(e) + " of " +
             std::to_string(t.expected.size()) + ": " + std::to_string(got) + " where " +
             std::to_string(t.expected[e]) + " was expected";
    }
  }
  for (size_t b = t.receive.size() - kGuard; b < t.receive.size(); ++b) {
    if (t.receive[b] != kGuardByte) return std::string(name(t.call.kind)) + " wrote behind its result";
  }
  return "";
}

// What one rank receives, counted from the results it expects and not from the library's formula.
inline int64_t expected_bytes(const TestCall& t) {
  int p = t.group.size(), self = t.group.self();
  int64_t result = static_cast<int64_t>(t.expected.size()), elements = 0;
  switch (t.call.kind) {
    case Collective::all_reduce: {
      int64_t own = 0;  // elements e with floor(e * p / n) == self, the block that this member puts together
      for (int64_t e = 0; e < result; ++e) own += e * p / result == self;
      elements = p == 1 ? 0 : (p - 1) * own + result - own;
      break;
    }
    case Collective::reduce_scatter:
      elements = (p - 1) * result;
      break;
    case Collective::broadcast:
      elements = result;
      break;
    case Collective::barrier:
      break;
    default:
      elements = result - t.counts[static_cast<size_t>(self)];
  }
  return elements * size_bytes(t.call.dtype);
}

// Every subset of the mesh's axes.
inline std::vector<AtomSet> axis_sets(const Mesh& mesh) {
  std::vector<AtomSet> sets = {AtomSet{}};
  for (const Axis& axis : mesh.axes()) {
    size_t n = sets.size();
    for (size_t i = 0; i < n; ++i) sets.push_back(sets[i] | AtomSet::of(axis.atoms));
  }
  return sets;
}

}  // namespace meshard::testing
