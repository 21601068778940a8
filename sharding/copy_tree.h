// The cheapest way to make copies of a value: each from the value itself or from another copy. Internal to choose.
//
//   std::vector<int> parents;                                   // -1: the value itself
//   Cost sum = least_copies<Cost>(2, [&](int i, int p) { ... }, kInfinite, parents);
//
// Requires that each copy can be made of the value. Exact for up to five copies; ties go to the value itself, then to earlier copies.
#pragma once

#include <algorithm>

#include "meshard/base/inline_vector.h"

namespace meshard {

using CopyParents = InlineVector<int, 6>;

// Whether no copies are made of each other.
inline bool rooted(const CopyParents& parents) {
  for (size_t i = 0; i < parents.size(); ++i) {
    size_t hops = 0;
    for (int at = parents[i]; at >= 0; at = parents[static_cast<size_t>(at)]) {
      if (++hops > parents.size()) return false;
    }
  }
  return true;
}

// cost(i, p): of making copy i from copy p, or from the value (p = -1); `infinite` or more: not possible.
template <class Number, class CostOf>
Number least_copies(int n, CostOf cost, Number infinite, CopyParents& parents) {
  const auto count = static_cast<size_t>(n);
  const auto stride = count + 1;
  InlineVector<Number, 30> costs(count * stride);  // of copy i from p in column p + 1
  const auto at = [&](size_t i, int p) -> const Number& { return costs[i * stride + static_cast<size_t>(p + 1)]; };
  for (int i = 0; i < n; ++i) {
    for (int p = -1; p < n; ++p) costs[static_cast<size_t>(i) * stride + static_cast<size_t>(p + 1)] = p == i ? infinite : cost(i, p);
  }
  const auto total = [&](const CopyParents& list) {
    Number sum = 0;
    for (size_t i = 0; i < count; ++i) sum += at(i, list[i]);
    return sum;
  };
  // Each from where it costs least: nothing is cheaper, unless copies would be made of each other.
  parents = CopyParents(count, -1);
  for (size_t i = 0; i < count; ++i) {
    for (int p = 0; p < n; ++p) {
      if (at(i, p) < at(i, parents[i])) parents[i] = p;
    }
  }
  if (rooted(parents)) return total(parents);
  CopyParents best(count, -1), tried = best;
  Number least = total(best);
  const auto attempt = [&] {
    const Number sum = total(tried);
    if (sum >= least || !rooted(tried)) return false;
    least = sum;
    best = tried;
    return true;
  };
  if (n <= 5) {
    for (bool more = true; more;) {
      bool possible = true;
      for (size_t i = 0; i < count && possible; ++i) possible = at(i, tried[i]) < infinite;
      if (possible) attempt();
      more = false;
      for (size_t i = count; i-- > 0 && !more;) {
        if (++tried[i] < n) more = true;
        else tried[i] = -1;
      }
    }
  } else {  // one parent changed at a time, until that does not help
    for (bool better = true; better;) {
      better = false;
      for (size_t i = 0; i < count; ++i) {
        for (int p = 0; p < n; ++p) {
          if (at(i, p) >= infinite) continue;
          tried = best;
          tried[i] = p;
          better |= attempt();
        }
      }
    }
  }
  parents = best;
  return least;
}

}  // namespace meshard
