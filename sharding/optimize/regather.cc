// regather: memory for bytes. A gathered value that is read now and again much later, as a parameter is in the forward
// and the backward pass, is given up in between and gathered again before the later read. Of all such gaps the first
// `count` are taken, in the order of bytes held times ops between; compile() finds the least count that fits the memory
// it is given.
#include <algorithm>

#include "fmt/format.h"
#include "meshard/layout/block.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

struct Gap {
  double weight = 0;
  size_t function = 0;
  ValueId value;   // gathered, and read on both sides
  int before = 0;  // the op that reads it after the gap
};

bool gathers(const Op& op) {
  return is_plain_collective(op) && op.def->collective == Collective::all_gather && op.operands.size() == 1;
}

void find_gaps(const Program& program, size_t function, std::vector<Gap>& gaps) {
  const Function& f = program.functions[function];
  const Lifetimes lives(program, f);
  const std::vector<std::vector<int>> readers = users(f);
  for (const Op& op : f.ops) {
    if (!gathers(op)) continue;
    const ValueId from = op.operands[0], v = op.results[0];
    if (lives.in_place[index(v)]) continue;
    const std::vector<int>& reads = readers[index(v)];
    const int64_t elements = largest_local_elements(*program.mesh, f.value(v).type.shape, *f.value(v).layout);
    const auto bytes = static_cast<double>(elements * size_bytes(f.value(v).type.dtype));
    for (size_t r = 1; r < reads.size(); ++r) {
      // Next to one another there is nothing to gain; what was gathered from must still be there.
      if (reads[r] - reads[r - 1] < 2 || lives.gone[index(from)] < reads[r]) continue;
      gaps.push_back({bytes * (reads[r] - reads[r - 1]), function, v, reads[r]});
    }
  }
}

std::vector<Gap> all_gaps(const Program& program) {
  std::vector<Gap> gaps;
  for (size_t f = 0; f < program.functions.size(); ++f) find_gaps(program, f, gaps);
  std::stable_sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.weight > b.weight; });
  return gaps;
}

std::string fresh_name(const Function& f, ValueId v) {
  for (int n = 1;; ++n) {
    std::string name = fmt::format("{}@{}", base_name(f.value(v).name), n);
    if (f.find(name) == ValueId::none) return name;
  }
}

// gaps: those of this function that are taken.
Function gather_again(const Function& f, std::vector<Gap> gaps) {
  std::sort(gaps.begin(), gaps.end(), [](const Gap& a, const Gap& b) { return a.before < b.before; });
  Function g = f;
  std::vector<std::vector<int>> before(f.ops.size());
  for (const Gap& gap : gaps) {
    Op again = f.ops[static_cast<size_t>(f.value(gap.value).op)];
    ValueInfo info = f.value(gap.value);
    info.name = fresh_name(g, gap.value);
    g.values.push_back(std::move(info));
    again.results = {ValueId(static_cast<int32_t>(g.values.size()) - 1)};
    // All later reads; a later gap of the same value changes them once more. What is returned is the first.
    for (size_t i = static_cast<size_t>(gap.before); i < f.ops.size(); ++i) {
      for (size_t o = 0; o < f.ops[i].operands.size(); ++o) {
        if (f.ops[i].operands[o] == gap.value) g.ops[i].operands[o] = again.results[0];
      }
    }
    before[static_cast<size_t>(gap.before)].push_back(static_cast<int>(g.ops.size()));
    g.ops.push_back(std::move(again));
  }
  std::vector<int> order;
  for (size_t i = 0; i < f.ops.size(); ++i) {
    order.insert(order.end(), before[i].begin(), before[i].end());
    order.push_back(static_cast<int>(i));
  }
  return reordered(g, order);
}

}  // namespace

int64_t gaps_to_regather(const Program& local) { return static_cast<int64_t>(all_gaps(local).size()); }

Program regather(const Program& local, int64_t count) {
  std::vector<Gap> gaps = all_gaps(local);
  gaps.resize(std::min(gaps.size(), static_cast<size_t>(count)));
  Program out = local;
  for (size_t f = 0; f < out.functions.size(); ++f) {
    std::vector<Gap> here;
    std::copy_if(gaps.begin(), gaps.end(), std::back_inserter(here), [&](const Gap& g) { return g.function == f; });
    if (!here.empty()) out.functions[f] = gather_again(local.functions[f], std::move(here));
  }
  return out;
}

}  // namespace meshard
