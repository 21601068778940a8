#include "meshard/runtime/memory.h"

#include <algorithm>
#include <map>

#include "meshard/base/buffer.h"
#include "meshard/base/error.h"

namespace meshard {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t local_bytes(const FlatValue& v) { return v.local.elements() * size_bytes(v.type.dtype); }

// Free space of an arena that grows as needed: best fit, neighbours joined.
class Arena {
 public:
  int64_t take(int64_t bytes) {
    if (bytes == 0) return 0;
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->second >= bytes && (best == free_.end() || it->second < best->second)) best = it;
    }
    if (best == free_.end()) {
      // Grow the last hole where it touches the end.
      if (!free_.empty()) {
        auto last = std::prev(free_.end());
        if (last->first + last->second == size_) {
          const int64_t offset = last->first;
          free_.erase(last);
          size_ = offset + bytes;
          return offset;
        }
      }
      size_ += bytes;
      return size_ - bytes;
    }
    const int64_t offset = best->first, left = best->second - bytes;
    free_.erase(best);
    if (left > 0) free_[offset + bytes] = left;
    return offset;
  }

  void give(int64_t offset, int64_t bytes) {
    if (bytes == 0) return;
    auto it = free_.emplace(offset, bytes).first;
    if (auto next = std::next(it); next != free_.end() && it->first + it->second == next->first) {
      it->second += next->second;
      free_.erase(next);
    }
    if (it != free_.begin()) {
      auto before = std::prev(it);
      if (before->first + before->second == it->first) {
        before->second += it->second;
        free_.erase(it);
      }
    }
  }

  int64_t size() const { return size_; }

 private:
  std::map<int64_t, int64_t> free_;  // offset -> bytes
  int64_t size_ = 0;
};

class Planner {
 public:
  Planner(const Flat& flat, const std::vector<int64_t>& scratch) : flat_(flat), scratch_(scratch), root_(flat.values.size()) {}

  MemoryPlan run() {
    roots();
    lifetimes();
    share_in_place();
    place();
    return std::move(plan_);
  }

 private:
  void roots() {
    for (size_t v = 0; v < flat_.values.size(); ++v) {
      int r = static_cast<int>(v);
      while (flat_.values[static_cast<size_t>(r)].alias >= 0) r = flat_.values[static_cast<size_t>(r)].alias;
      root_[v] = r;
    }
  }

  int root(int v) const {
    while (root_[static_cast<size_t>(v)] != v) v = root_[static_cast<size_t>(v)];
    return v;
  }
  bool in_arena(int v) const { return !flat_.values[static_cast<size_t>(v)].is_param; }

  void touch(int v, int step) {
    const auto r = static_cast<size_t>(root(v));
    first_[r] = first_[r] < 0 ? step : first_[r];
    last_[r] = std::max(last_[r], step);
  }

  void lifetimes() {
    const int steps = static_cast<int>(flat_.steps.size());
    first_.assign(flat_.values.size(), -1);
    last_.assign(flat_.values.size(), -1);
    std::vector<int> loops;
    for (int i = 0; i < steps; ++i) {
      const FlatStep& step = flat_.steps[static_cast<size_t>(i)];
      if (step.kind == FlatStep::loop_begin) loops.push_back(i);
      // What was made before a loop and is read in it is read in every round.
      for (int v : step.operands) {
        int until = i;
        for (int loop : loops) {
          if (first_[static_cast<size_t>(root(v))] <= loop) {
            until = flat_.steps[static_cast<size_t>(loop)].partner;
            break;
          }
        }
        touch(v, std::max(i, until));
      }
      for (int v : step.results) {
        touch(v, i);
        for (int loop : loops) {
          if (first_[static_cast<size_t>(root(v))] <= loop) touch(v, flat_.steps[static_cast<size_t>(loop)].partner);
        }
      }
      if (step.kind == FlatStep::collective && step.start && step.partner >= 0) {
        for (int v : step.operands) touch(v, step.partner);
        for (int v : step.results) touch(v, step.partner);
      }
      if (step.kind == FlatStep::loop_end) loops.pop_back();
    }
    for (size_t v = 0; v < flat_.values.size(); ++v) {
      if (flat_.values[v].is_result && root(static_cast<int>(v)) == static_cast<int>(v)) last_[v] = steps;
    }
  }

  // The result of an elementwise op, and of a collective that may work in place, takes over an operand that dies there.
  void share_in_place() {
    for (size_t i = 0; i < flat_.steps.size(); ++i) {
      const FlatStep& step = flat_.steps[i];
      if (step.kind == FlatStep::kernel) {
        for (const auto& [r, o] : step.op->def->in_place) {
          if (take_over(i, step.results[static_cast<size_t>(r)], step.operands[static_cast<size_t>(o)])) break;
        }
      } else if (step.kind == FlatStep::collective && step.fetch == nullptr && !step.op->def->in_place.empty()) {
        for (size_t k = 0; k < step.results.size(); ++k) take_over(i, step.results[k], step.operands[k]);
      }
    }
  }

  bool take_over(size_t i, int result, int operand) {
    const FlatStep& step = flat_.steps[i];
    const int from = root(operand), to = root(result);
    const int dies = step.start && step.partner >= 0 ? step.partner : static_cast<int>(i);
    if (from == to || to != result || !in_arena(from) || !in_arena(to)) return false;
    if (last_[static_cast<size_t>(from)] != dies || first_[static_cast<size_t>(to)] != static_cast<int>(i)) return false;
    if (flat_.values[static_cast<size_t>(from)].is_result) return false;
    if (local_bytes(flat_.values[static_cast<size_t>(from)]) != local_bytes(flat_.values[static_cast<size_t>(to)])) return false;
    // Read a second time by the same op, perhaps broadcast or transposed: leave it.
    int reads = 0;
    for (int v : step.operands) reads += root(v) == from;
    bool taken = reads != 1 || flat_.values[static_cast<size_t>(operand)].local != flat_.values[static_cast<size_t>(result)].local;
    for (int v : step.results) taken |= v != result && root(v) == from;
    if (taken) return false;
    root_[static_cast<size_t>(to)] = from;
    last_[static_cast<size_t>(from)] = std::max(last_[static_cast<size_t>(from)], last_[static_cast<size_t>(to)]);
    return true;
  }

  void place() {
    const size_t steps = flat_.steps.size();
    plan_.values.resize(flat_.values.size());
    plan_.scratch.resize(steps);
    std::vector<std::vector<int>> begins(steps + 1), ends(steps + 1);
    for (size_t v = 0; v < flat_.values.size(); ++v) {
      if (root_[v] != static_cast<int>(v)) continue;
      const FlatValue& value = flat_.values[v];
      Slot& slot = plan_.values[v];
      slot.bytes = aligned(local_bytes(value));
      if (value.is_param) {
        slot.base = value.kind == ParamInfo::input ? Slot::input : Slot::state;
        int64_t& total = slot.base == Slot::input ? plan_.input_bytes : plan_.state_bytes;
        slot.offset = total;
        total += slot.bytes;
      } else if (first_[v] >= 0) {
        begins[static_cast<size_t>(first_[v])].push_back(static_cast<int>(v));
        ends[std::min(static_cast<size_t>(last_[v]), steps)].push_back(static_cast<int>(v));
      }
    }
    std::vector<std::vector<size_t>> scratch_ends(steps);
    Arena arena;
    int64_t live = 0;
    for (size_t i = 0; i < steps; ++i) {
      // The largest first: small ones fill the holes.
      std::stable_sort(begins[i].begin(), begins[i].end(), [&](int a, int b) {
        return plan_.values[static_cast<size_t>(a)].bytes > plan_.values[static_cast<size_t>(b)].bytes;
      });
      for (int v : begins[i]) {
        Slot& slot = plan_.values[static_cast<size_t>(v)];
        slot.offset = arena.take(slot.bytes);
        live += slot.bytes;
      }
      const FlatStep& step = flat_.steps[i];
      Slot& scratch = plan_.scratch[i];
      scratch.bytes = aligned(scratch_[i]);
      scratch.offset = arena.take(scratch.bytes);
      live += scratch.bytes;
      scratch_ends[step.start && step.partner >= 0 ? static_cast<size_t>(step.partner) : i].push_back(i);
      plan_.live_bytes = std::max(plan_.live_bytes, live);
      for (size_t s : scratch_ends[i]) {
        arena.give(plan_.scratch[s].offset, plan_.scratch[s].bytes);
        live -= plan_.scratch[s].bytes;
      }
      for (int v : ends[i]) {
        const Slot& slot = plan_.values[static_cast<size_t>(v)];
        arena.give(slot.offset, slot.bytes);
        live -= slot.bytes;
      }
    }
    plan_.arena_bytes = arena.size();
    for (size_t v = 0; v < flat_.values.size(); ++v) {
      if (root_[v] != static_cast<int>(v)) plan_.values[v] = plan_.values[static_cast<size_t>(root(static_cast<int>(v)))];
    }
  }

  const Flat& flat_;
  const std::vector<int64_t>& scratch_;
  std::vector<int> root_, first_, last_;
  MemoryPlan plan_;
};

}  // namespace

MemoryPlan plan_memory(const Flat& flat, const std::vector<int64_t>& scratch_bytes) {
  MESHARD_CHECK(scratch_bytes.size() == flat.steps.size(), "one scratch size a step");
  return Planner(flat, scratch_bytes).run();
}

}  // namespace meshard
