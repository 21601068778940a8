// onto: where what an op makes is only added to another value, it is added there by the op itself (OpDef::onto), which
// may take over that value's memory: rows that are summed by id leave the other rows of a table as they are. The sum is
// then made in another order, the base first and each contribution after it.
#include <algorithm>

#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

bool alike(const ValueInfo& a, const ValueInfo& b) { return a.type == b.type && a.layout == b.layout; }

class Onto {
 public:
  Onto(const Program& program, const Function& f) : f_(f), lives_(program, f), out_(f), keep_(f.ops.size(), true) {}

  Function run() {
    for (size_t i = 0; i < f_.ops.size(); ++i) {
      const Op& op = f_.ops[i];
      if (op.kind != Op::apply || !op.def->adds || !op.guard.empty()) continue;
      // Of two that could be added to the other the later: its operands live less long.
      const bool second_later = lives_.made[index(op.operands[1])] > lives_.made[index(op.operands[0])];
      if (!join(i, second_later ? 1 : 0)) join(i, second_later ? 0 : 1);
    }
    return kept(out_, keep_);
  }

 private:
  // The sum ops[i] is made by the op of its operand `which`, if that can be.
  bool join(size_t i, size_t which) {
    Op& sum = out_.ops[i];
    const ValueId added = f_.ops[i].operands[which], base = f_.ops[i].operands[1 - which];
    const int made = lives_.made[index(added)];
    if (made < 0 || added == base || lives_.reads[index(added)] != 1 || lives_.in_place[index(added)]) return false;
    const Op& maker = f_.ops[static_cast<size_t>(made)];
    if (maker.kind != Op::apply || maker.def->onto == nullptr || !maker.guard.empty() || maker.results.size() != 1) return false;
    const ValueInfo& result = f_.value(sum.results[0]);
    if (!alike(f_.value(added), result) || !alike(f_.value(base), result)) return false;
    const auto gone = [&](ValueId v) { return lives_.gone[index(v)] <= static_cast<int>(i); };
    if (std::any_of(maker.operands.begin(), maker.operands.end(), gone)) return false;
    const OpDef& onto = maker.def->onto();
    sum.def = &onto;
    sum.operands = maker.operands;
    sum.operands.push_back(base);
    sum.attributes = {};
    // The others are sizes that the base has.
    for (const auto& [name, value] : maker.attributes) {
      const auto same = [&, &name = name](const AttributeSpec& spec) { return spec.name == name; };
      if (std::any_of(onto.attributes.begin(), onto.attributes.end(), same)) sum.attributes.set(name, value);
    }
    keep_[static_cast<size_t>(made)] = false;
    return true;
  }

  const Function& f_;
  const Lifetimes lives_;
  Function out_;
  std::vector<bool> keep_;
};

}  // namespace

Program onto(const Program& local) {
  Program out = local;
  for (Function& f : out.functions) f = Onto(local, f).run();
  return out;
}

}  // namespace meshard
