// shorten: a value that one collective makes and only the next one reads is nobody's wish. The row of them becomes what
// the reshard planner says of the first layout and the last, where that moves fewer bytes over all devices, or as many
// in fewer messages. A sum that is reduced everywhere and then sliced is scattered at once; what is gathered and cut
// again never travels.
#include <algorithm>
#include <optional>

#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/layout/reshard.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

struct Cost {
  int64_t elements = 0, messages = 0, steps = 0;
  auto operator<=>(const Cost&) const = default;
};

class Shortener {
 public:
  Shortener(const Program& program, const Function& f)
      : mesh_(*program.mesh),
        table_(*program.table),
        lives_(program, f),
        f_(f),
        replaced_(f.ops.size()),
        same_(f.values.size()) {
    for (size_t v = 0; v < same_.size(); ++v) same_[v] = ValueId(static_cast<int32_t>(v));
  }

  // None: nothing becomes shorter.
  std::optional<Function> run() {
    const size_t ops = f_.ops.size();
    std::vector<bool> keep(ops, true);
    // The last of a row first: the row is as long as it can be.
    for (size_t i = ops; i-- > 0;) {
      if (!keep[i] || !changes_layout(f_.ops[i])) continue;
      std::vector<size_t> row{i};
      while (const std::optional<size_t> before = maker(row.back())) row.push_back(*before);
      // From the first op of the row on, or from a later one.
      while (!shorten(row)) {
        if (row.size() == 1) break;
        row.pop_back();
      }
      for (size_t k = 1; k < row.size(); ++k) keep[row[k]] = false;
      if (gone_) keep[i] = false;
      gone_ = false;
    }
    if (!changed_) return std::nullopt;
    return write(keep);
  }

 private:
  static bool changes_layout(const Op& op) {
    return op.kind == Op::apply && op.def->collective && !op.start && op.operands.size() == 1;
  }

  // The op before in the row.
  std::optional<size_t> maker(size_t i) const {
    const ValueId v = f_.ops[i].operands[0];
    const int made = lives_.made[index(v)];
    if (made < 0 || lives_.reads[index(v)] != 1) return std::nullopt;
    const Op& op = f_.ops[static_cast<size_t>(made)];
    if (!changes_layout(op) || op.guard != f_.ops[i].guard) return std::nullopt;
    return static_cast<size_t>(made);
  }

  const Layout& layout(ValueId v) const { return *f_.value(v).layout; }

  // row: from the last op to the first. Whether it was replaced.
  bool shorten(const std::vector<size_t>& row) {
    const Op &first = f_.ops[row.back()], &last = f_.ops[row.front()];
    const ValueId from = first.operands[0], to = last.results[0];
    if (row.size() == 1 && layout(from) != layout(to)) return false;  // as the planner made it
    // The first value must still be there where the last is made.
    if (lives_.gone[index(from)] < static_cast<int>(row.front())) return false;
    if (!reshard_obstacle(mesh_, layout(from), layout(to)).empty()) return false;
    const Shape& shape = f_.value(from).type.shape;
    const std::vector<ReshardStep> steps = plan_reshard(mesh_, shape, layout(from), layout(to));
    Cost now, then;
    for (size_t i : row) {
      const Op& op = f_.ops[i];
      add(now, shape, step_of(*op.def->collective, op.over, layout(op.operands[0]), layout(op.results[0])));
    }
    for (const ReshardStep& step : steps) add(then, shape, step);
    if (then >= now) return false;
    if (steps.empty()) {
      const auto v = index(to);
      if (lives_.returned[v] || lives_.in_place[v] || lives_.gone[index(from)] < lives_.last_read[v]) return false;
      same_[v] = from;
      gone_ = changed_ = true;
      return true;
    }
    replaced_[row.front()] = {from, steps, row};
    changed_ = true;
    return true;
  }

  void add(Cost& cost, const Shape& shape, const ReshardStep& step) const {
    cost.elements += all_received_elements(mesh_, shape, step);
    cost.messages += step.kind != Collective::slice;
    ++cost.steps;
  }

  ValueId final_value(ValueId v) const {
    while (same_[index(v)] != v) v = same_[index(v)];
    return v;
  }

  Function write(const std::vector<bool>& keep) {
    Function g = f_;
    std::vector<int> order;
    for (size_t i = 0; i < f_.ops.size(); ++i) {
      for (ValueId& v : g.ops[i].operands) v = v == ValueId::none ? v : final_value(v);
      if (!keep[i]) continue;
      const Replacement& r = replaced_[i];
      ValueId at = final_value(r.from == ValueId::none ? ValueId{0} : r.from);
      for (size_t k = 0; k < r.steps.size(); ++k) {
        const bool is_last = k + 1 == r.steps.size();
        Op op = f_.ops[i];
        op.def = &table_.collective(r.steps[k].kind);
        op.over = r.steps[k].over;
        op.operands = {at};
        if (!is_last) {
          // A value between takes over the name of one that is left out, or gets one behind theirs.
          ValueInfo info = f_.value(op.results[0]);
          info.name = between_name(r, k);
          info.layout = r.steps[k].to;
          g.values.push_back(std::move(info));
          op.results = {ValueId(static_cast<int32_t>(g.values.size()) - 1)};
        }
        at = op.results[0];
        g.ops.push_back(std::move(op));
        order.push_back(static_cast<int>(g.ops.size()) - 1);
      }
      if (r.steps.empty()) order.push_back(static_cast<int>(i));
    }
    return reordered(std::move(g), order);
  }

  struct Replacement {
    ValueId from = ValueId::none;
    std::vector<ReshardStep> steps;
    std::vector<size_t> row;
  };

  // The names of the values between are free; there are fewer of the new ones than of the old, or as many.
  std::string between_name(const Replacement& r, size_t k) const {
    if (k + 1 < r.row.size()) return f_.value(f_.ops[r.row[r.row.size() - 1 - k]].results[0]).name;
    std::string name = f_.value(f_.ops[r.row[0]].results[0]).name;
    for (int n = 1;; ++n) {
      std::string fresh = fmt::format("{}@s{}", base_name(name), n + static_cast<int>(k));
      if (f_.find(fresh) == ValueId::none) return fresh;
    }
  }

  const Mesh& mesh_;
  const OpTable& table_;
  const Lifetimes lives_;
  const Function& f_;
  std::vector<Replacement> replaced_;  // by the index of the row's last op
  std::vector<ValueId> same_;          // the value that stands for this one
  bool gone_ = false;                  // the row at hand changes nothing in all
  bool changed_ = false;
};

}  // namespace

Program shorten(Program local) {
  for (Function& f : local.functions) {
    if (auto shorter = Shortener(local, f).run()) f = std::move(*shorter);
  }
  return local;
}

}  // namespace meshard
