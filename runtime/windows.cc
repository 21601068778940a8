#include "meshard/runtime/windows.h"

#include <algorithm>
#include <optional>

#include "meshard/base/buffer.h"
#include "meshard/layout/reshard.h"
#include "meshard/runtime/device.h"

namespace meshard {
namespace {

// Where the row-major elements of `part` begin in those of `whole`, if they stand there one after another.
std::optional<int64_t> place_in(const Rect& part, const Rect& whole) {
  int64_t offset = 0;
  bool narrow = true;  // so far only one element a dimension
  for (size_t d = 0; d < whole.dims.size(); ++d) {
    const Block &p = part.dims[d], &w = whole.dims[d];
    if (p.begin < w.begin || p.begin + p.size > w.begin + w.size) return std::nullopt;
    if (!narrow && p.size != w.size) return std::nullopt;
    if (p.size != 1) narrow = false;
    offset = offset * w.size + p.begin - w.begin;
  }
  return offset;
}

class Finder {
 public:
  Finder(const Mesh& mesh, Rank rank, Flat& flat) : mesh_(mesh), rank_(rank), flat_(flat) {}

  void run() {
    index_steps();
    for (size_t i = 0; i < flat_.steps.size(); ++i) {
      if (changes_one_value(i, Collective::slice)) slice(static_cast<int>(i));
    }
    for (size_t i = 0; i < flat_.steps.size(); ++i) {
      if (changes_one_value(i, Collective::all_gather)) gather(static_cast<int>(i));
    }
  }

 private:
  // A piece of a value's memory, in bytes.
  struct Range {
    int root = -1;
    int64_t begin = 0, end = 0;
    bool meets(const Range& o) const { return root == o.root && begin < o.end && o.begin < end; }
    bool operator==(const Range&) const = default;
  };
  struct Use {
    int step, value;
    bool writes;
  };

  FlatValue& value(int v) { return flat_.values[static_cast<size_t>(v)]; }
  const FlatValue& value(int v) const { return flat_.values[static_cast<size_t>(v)]; }

  Range range(int v) const {
    const int64_t bytes = value(v).local.elements() * size_bytes(value(v).type.dtype);
    int64_t begin = value(v).within;
    while (value(v).alias >= 0) {
      v = value(v).alias;
      begin += value(v).within;
    }
    return {v, begin, begin + bytes};
  }

  void index_steps() {
    uses_.resize(flat_.values.size());
    int depth = 0;
    for (size_t i = 0; i < flat_.steps.size(); ++i) {
      const FlatStep& step = flat_.steps[i];
      if (step.kind == FlatStep::loop_begin || step.kind == FlatStep::loop_end) {
        depth += step.kind == FlatStep::loop_begin ? 1 : -1;
        loops_.push_back(static_cast<int>(i));
      }
      in_loop_.push_back(depth > 0);
      for (int v : step.operands) uses_[static_cast<size_t>(range(v).root)].push_back({static_cast<int>(i), v, false});
      for (int v : step.results) uses_[static_cast<size_t>(range(v).root)].push_back({static_cast<int>(i), v, true});
    }
    names_.assign(flat_.values.size(), 0);
    for (size_t v = 0; v < flat_.values.size(); ++v) ++names_[static_cast<size_t>(range(static_cast<int>(v)).root)];
  }

  bool changes_one_value(size_t i, Collective kind) const {
    const FlatStep& step = flat_.steps[i];
    return step.kind == FlatStep::collective && step.fetch == nullptr && !step.start &&
           step.op->def->collective == kind && step.operands.size() == 1 && !in_loop_[i];
  }

  bool stays(int root) const { return value(root).is_param && value(root).kind != ParamInfo::input; }
  bool is_own(int v) const {
    return value(v).alias < 0 && !value(v).is_param && !value(v).is_result && names_[static_cast<size_t>(v)] == 1;
  }
  bool loop_between(int first, int last) const {
    return std::any_of(loops_.begin(), loops_.end(), [&](int at) { return at >= first && at <= last; });
  }
  int last_use(int v) const { return uses_[static_cast<size_t>(v)].back().step; }

  // The place of `part` in the memory of `whole`, where a window may begin there.
  std::optional<Range> window(int part, const Layout& part_layout, int whole) const {
    const Shape& shape = value(whole).type.shape;
    const auto at =
        place_in(local_rect(mesh_, shape, part_layout, rank_), local_rect(mesh_, shape, value(whole).layout, rank_));
    const int64_t bytes = value(part).local.elements() * size_bytes(value(part).type.dtype);
    if (!at || bytes == 0) return std::nullopt;
    const int64_t begin = range(whole).begin + *at * size_bytes(value(part).type.dtype);
    if (begin % kAlignment != 0) return std::nullopt;
    return Range{range(whole).root, begin, begin + bytes};
  }

  void put(int v, const Range& place) {
    std::vector<Use>& here = uses_[static_cast<size_t>(place.root)];
    for (const Use& use : uses_[static_cast<size_t>(v)]) {
      if (flat_.steps[static_cast<size_t>(use.step)].kind != FlatStep::skip) here.push_back(use);
    }
    std::stable_sort(here.begin(), here.end(), [](const Use& a, const Use& b) { return a.step < b.step; });
    uses_[static_cast<size_t>(v)].clear();
    names_[static_cast<size_t>(place.root)] += 1;
    value(v).alias = place.root;
    value(v).within = place.begin;
  }

  // The block is read where it lies, if it is not written before it was read for the last time.
  void slice(int i) {
    const FlatStep& step = flat_.steps[static_cast<size_t>(i)];
    const int from = step.operands[0], to = step.results[0];
    if (!stays(range(from).root) || !is_own(to) || value(from).layout.pending != value(to).layout.pending) return;
    const auto place = window(to, value(to).layout, from);
    if (!place) return;
    const int last = last_use(to);
    if (loop_between(i, last)) return;
    for (const Use& use : uses_[static_cast<size_t>(place->root)]) {
      if (use.writes && use.step > i && use.step <= last && range(use.value).meets(*place)) return;
    }
    // One that is written is written by the step itself alone: a kernel that works in place would write to the whole.
    for (const Use& use : uses_[static_cast<size_t>(to)]) {
      if (use.writes && use.step != i) return;
    }
    flat_.steps[static_cast<size_t>(i)].kind = FlatStep::skip;
    put(to, *place);
  }

  // What is gathered is made where it will stand, if nobody needs what stood there.
  void gather(int i) {
    const FlatStep& step = flat_.steps[static_cast<size_t>(i)];
    const int from = step.operands[0], to = step.results[0];
    if (!stays(range(to).root) || !is_own(from) || value(from).layout.pending != value(to).layout.pending) return;
    const auto place = window(from, value(from).layout, to);
    if (!place) return;
    const std::vector<Use>& mine = uses_[static_cast<size_t>(from)];
    const int made = mine.front().step, last = std::max(i, last_use(from));
    if (!mine.front().writes || loop_between(made, last)) return;
    const FlatStep& maker = flat_.steps[static_cast<size_t>(made)];
    if (maker.kind != FlatStep::kernel) return;
    for (const Use& use : mine) {
      if (use.writes && use.step != made) return;
    }
    for (const Use& use : uses_[static_cast<size_t>(place->root)]) {
      if (use.step < made || use.step > last || use.step == i) continue;
      if (!range(use.value).meets(*place)) continue;
      // The maker may read what it overwrites, element by element.
      const bool in_place =
          use.step == made && !use.writes && range(use.value) == *place && writes_over(maker, from, use.value);
      if (!in_place) return;
    }
    put(from, *place);
  }

  bool writes_over(const FlatStep& maker, int result, int operand) const {
    if (std::count(maker.operands.begin(), maker.operands.end(), operand) != 1 ||
        value(operand).local != value(result).local)
      return false;
    return std::any_of(maker.op->def->in_place.begin(), maker.op->def->in_place.end(), [&](const auto& pair) {
      return maker.results[static_cast<size_t>(pair.first)] == result &&
             maker.operands[static_cast<size_t>(pair.second)] == operand;
    });
  }

  const Mesh& mesh_;
  const Rank rank_;
  Flat& flat_;
  std::vector<std::vector<Use>> uses_;  // of the memory of each value that is no other's name, in order
  std::vector<int> names_;              // how many values lie in it
  std::vector<int> loops_;              // steps that begin or end one
  std::vector<bool> in_loop_;           // of each step
};

}  // namespace

void find_windows(const Mesh& mesh, Rank rank, Flat& flat) { Finder(mesh, rank, flat).run(); }

}  // namespace meshard
