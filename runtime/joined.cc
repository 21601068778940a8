#include "meshard/runtime/joined.h"

#include <algorithm>

namespace meshard {
namespace {

struct Range {
  const std::byte *begin, *end;
};

bool meet(const std::vector<Range>& some, const std::vector<Range>& others) {
  return std::any_of(some.begin(), some.end(), [&](const Range& a) {
    return std::any_of(others.begin(), others.end(), [&](const Range& b) { return a.begin < b.end && b.begin < a.end; });
  });
}

}  // namespace

JoinedSteps join_steps(const PlannedDevice& plan, const std::vector<std::byte*>& values, const std::function<KernelCall(size_t step)>& call) {
  const std::vector<FlatStep>& steps = plan.flat.steps;
  const auto ranges = [&](const std::vector<int>& of) {
    std::vector<Range> out;
    for (int v : of) {
      const auto i = static_cast<size_t>(v);
      out.push_back({values[i], values[i] + plan.memory.values[i].bytes});
    }
    return out;
  };
  JoinedSteps out{std::vector<std::vector<KernelMember>>(steps.size()), std::vector<bool>(steps.size())};
  size_t end = 0;
  for (size_t first = 0; first < steps.size(); first = end) {
    end = first + 1;
    const auto kind = [&](size_t i) { return plan.kernels[i] == nullptr ? nullptr : plan.kernels[i]->run_many; };
    if (kind(first) == nullptr) continue;
    std::vector<Range> read = ranges(steps[first].operands), written = ranges(steps[first].results);
    size_t last = first;
    for (; end < steps.size(); ++end) {
      if (steps[end].kind == FlatStep::skip) continue;  // nothing is done there
      if (kind(end) != kind(first)) break;
      const std::vector<Range> reads = ranges(steps[end].operands), writes = ranges(steps[end].results);
      if (meet(written, reads) || meet(written, writes) || meet(read, writes)) break;
      read.insert(read.end(), reads.begin(), reads.end());
      written.insert(written.end(), writes.begin(), writes.end());
      last = end;
    }
    for (size_t i = first; i <= last && last > first; ++i) {
      if (plan.kernels[i] == nullptr) continue;
      out.calls[first].push_back({plan.kernels[i].get(), call(i)});
      out.later[i] = i > first;
    }
  }
  return out;
}

}  // namespace meshard
