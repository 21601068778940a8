#include "meshard/runtime/finite.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace meshard {
namespace {

// "[0,7]": of element `i`.
std::string index_text(const Shape& shape, int64_t i) {
  std::string out;
  for (int d = shape.rank(); d-- > 0;) {
    out = fmt::format("{}{}{}", i % shape[d], out.empty() ? "" : ",", out);
    i /= shape[d];
  }
  return fmt::format("[{}]", out);
}

// Which sign a NaN has is the processor's affair.
std::string number(double x) { return std::isnan(x) ? "nan" : fmt::format("{}", x); }

struct Scan {
  int64_t bad = -1;  // the first element that is not finite
  double value = 0, largest = 0;
};

Scan scan(const View& v) {
  Scan s;
  if (!is_float(v.dtype)) return s;
  constexpr int64_t kPiece = 4096;
  std::vector<double> piece(kPiece);
  const auto* at = static_cast<const std::byte*>(v.data);
  for (int64_t i = 0; i < v.elements(); i += kPiece) {
    const int64_t n = std::min(kPiece, v.elements() - i);
    read_doubles(View{const_cast<std::byte*>(at + i * size_bytes(v.dtype)), v.dtype, Shape{n}}, piece.data());
    for (int64_t k = 0; k < n; ++k) {
      const double x = piece[static_cast<size_t>(k)];
      if (!std::isfinite(x)) return {i + k, x, s.largest};
      s.largest = std::max(s.largest, std::abs(x));
    }
  }
  return s;
}

}  // namespace

std::optional<NotFinite> first_not_finite(Executor& run) {
  std::optional<NotFinite> found;
  for (int d = 0; d < run.devices() && !found; ++d) {
    for (int v : run.flat(d).params) {
      const View view = run.value(d, v);
      const Scan s = scan(view);
      if (s.bad < 0) continue;
      found = {-1, fmt::format("{} holds {} at {} on rank {} before the step", run.flat(d).values[static_cast<size_t>(v)].name, number(s.value),
                               index_text(view.shape, s.bad), index(run.rank(d)))};
      break;
    }
  }
  run.set_observer([&](int d, const Flat& flat, int i) {
    const FlatStep& step = flat.steps[static_cast<size_t>(i)];
    if (found && found->step <= i) return;
    // A collective that is only started gives nothing yet: its wait does.
    const bool computes = step.kind == FlatStep::kernel || step.kind == FlatStep::copy || (step.kind == FlatStep::collective && !step.start);
    const FlatStep& made = step.kind == FlatStep::wait ? flat.steps[static_cast<size_t>(step.partner)] : step;
    if ((!computes && step.kind != FlatStep::wait) || made.operands.empty()) return;
    for (int r : made.results) {
      const View view = run.value(d, r);
      const Scan s = scan(view);
      if (s.bad < 0) continue;
      std::string operands;
      double largest = -1;
      for (int o : made.operands) {
        const FlatValue& value = flat.values[static_cast<size_t>(o)];
        const Scan of = scan(run.value(d, o));
        if (of.bad >= 0 || of.largest <= largest) continue;
        largest = of.largest;
        operands = fmt::format("; the largest number in its operands is {:.3g} in %{}", largest, value.name);
      }
      found = {i, fmt::format("{} gives {} in %{}{} on rank {}{}", made.place, number(s.value), flat.values[static_cast<size_t>(r)].name,
                              index_text(view.shape, s.bad), index(run.rank(d)), operands)};
      return;
    }
  });
  run.run();
  run.set_observer(nullptr);
  return found;
}

}  // namespace meshard
