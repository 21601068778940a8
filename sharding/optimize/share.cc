// share: where two ops of a function do the same to the same values, the second's readers read the first's result. So
// one gather serves all readers of a layout, and reshards that begin alike share their beginning. Where a value stands
// in several layouts already, a collective starts from the one that takes the fewest bytes.
#include <algorithm>
#include <map>
#include <string>

#include "meshard/layout/reshard.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

void append(std::string& key, uint64_t number) { key.append(reinterpret_cast<const char*>(&number), sizeof(number)); }

void append(std::string& key, const Layout& layout) {
  for (const DimLayout& d : layout.dims) {
    append(key, d.atoms.size());
    for (AtomId a : d.atoms) append(key, static_cast<uint64_t>(a));
  }
  for (AtomSet pending : layout.pending) append(key, pending.bits);
}

// Says all that the op's results follow from; "" for what is not shared.
std::string key_of(const Function& f, const Op& op, const std::vector<ValueId>& map) {
  if (op.kind != Op::apply || op.start || op.operands.empty()) return "";
  if (op.def->remake || op.def->random || (op.def->identity && !op.def->collective)) return "";
  std::string key(op.def->name);
  key += '\0';
  for (ValueId v : op.operands) append(key, index(map[index(v)]));
  append(key, op.over.bits);
  for (const auto& [axis, at] : op.guard) {
    append(key, static_cast<uint64_t>(axis));
    append(key, static_cast<uint64_t>(at));
  }
  for (ValueId v : op.results) {
    append(key, static_cast<uint64_t>(f.value(v).type.dtype));
    for (int64_t d : f.value(v).type.shape.dims) append(key, static_cast<uint64_t>(d));
    append(key, *f.value(v).layout);
  }
  if (!op.attributes.empty()) key += op.attributes.str();
  return key;
}

// Whether the first op's results may stand for the second's: a result that is returned keeps its name, and memory that
// is taken over holds another value later.
bool may_stand_for(const Lifetimes& lives, const Op& first, const Op& second) {
  const auto in_place = [&](ValueId v) { return lives.in_place[index(v)]; };
  const auto returned = [&](ValueId v) { return lives.returned[index(v)]; };
  return std::none_of(first.results.begin(), first.results.end(), in_place) &&
         std::none_of(second.results.begin(), second.results.end(), in_place) &&
         std::none_of(second.results.begin(), second.results.end(), returned);
}

// The copies of a value in its layouts, as the function makes them one after the other.
class Copies {
 public:
  Copies(const Program& program, const Function& f, const Lifetimes& lives)
      : mesh_(*program.mesh),
        table_(*program.table),
        f_(f),
        lives_(lives),
        root_(f.values.size(), ValueId::none),
        copies_(f.values.size()) {}

  static bool changes_layout(const Op& op) {
    return op.kind == Op::apply && op.def->collective && !op.start && op.operands.size() == 1;
  }

  // op, the i-th, is to start from the cheapest copy; then its result is a copy too.
  void start_from_cheapest(Op& op, int i) {
    const ValueId from = op.operands[0], to = op.results[0];
    const ValueId root = root_[index(from)] == ValueId::none ? from : root_[index(from)];
    const Shape& shape = f_.value(to).type.shape;
    const auto cost = [&](const ReshardStep& step) { return all_received_elements(mesh_, shape, step); };
    auto& copies = copies_[index(root)];
    if (copies.empty()) copies.push_back({root, {}});
    int64_t least = cost(step_of(*op.def->collective, op.over, layout(from), layout(to)));
    for (const auto& [copy, guard] : copies) {
      if (least == 0) break;
      if (copy == from || lives_.in_place[index(copy)] || lives_.gone[index(copy)] < i) continue;
      if (!guard.empty() && guard != op.guard) continue;
      if (!reshard_obstacle(mesh_, layout(copy), layout(to)).empty()) continue;
      const std::vector<ReshardStep> steps = plan_reshard(mesh_, shape, layout(copy), layout(to));
      if (steps.size() != 1 || cost(steps[0]) >= least) continue;
      least = cost(steps[0]);
      op.def = &table_.collective(steps[0].kind);
      op.over = steps[0].over;
      op.operands = {copy};
    }
    root_[index(to)] = root;
    copies.push_back({to, op.guard});
  }

 private:
  struct Copy {
    ValueId value;
    std::vector<std::pair<int, int64_t>> guard;  // where it is made
  };
  const Layout& layout(ValueId v) const { return *f_.value(v).layout; }

  const Mesh& mesh_;
  const OpTable& table_;
  const Function& f_;
  const Lifetimes& lives_;
  std::vector<ValueId> root_;  // of a copy: the value that it is one of
  std::vector<std::vector<Copy>> copies_;
};

void share(const Program& program, Function& f) {
  const Lifetimes lives(program, f);
  Copies copies(program, f, lives);
  std::vector<ValueId> map(f.values.size());
  for (size_t v = 0; v < map.size(); ++v) map[v] = ValueId(static_cast<int32_t>(v));
  std::map<std::string, size_t> seen;
  std::vector<bool> keep(f.ops.size(), true);
  for (size_t i = 0; i < f.ops.size(); ++i) {
    for (ValueId& v : f.ops[i].operands) v = v == ValueId::none ? v : map[index(v)];
    const std::string key = key_of(f, f.ops[i], map);
    if (!key.empty()) {
      const auto [first, fresh] = seen.try_emplace(key, i);
      if (!fresh && may_stand_for(lives, f.ops[first->second], f.ops[i])) {
        keep[i] = false;
        const Op& before = f.ops[first->second];
        for (size_t r = 0; r < before.results.size(); ++r) map[index(f.ops[i].results[r])] = before.results[r];
        continue;
      }
    }
    if (Copies::changes_layout(f.ops[i])) copies.start_from_cheapest(f.ops[i], static_cast<int>(i));
  }
  f = kept(std::move(f), keep);
}

}  // namespace

Program share(Program local) {
  for (Function& f : local.functions) share(local, f);
  return local;
}

}  // namespace meshard
