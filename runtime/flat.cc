#include "meshard/runtime/flat.h"

#include <map>

#include "meshard/ir/halo.h"
#include "meshard/ir/parse.h"
#include "meshard/runtime/alias.h"

namespace meshard {
namespace {

class Flattener {
 public:
  Flattener(const Program& program, Rank rank) : program_(program), mesh_(*program.mesh), rank_(rank), at_(mesh_.coordinate(rank)) {}

  Flat run() {
    const Function& main = program_.main();
    std::vector<int> map(main.values.size(), -1);
    for (size_t p = 0; p < main.params.size(); ++p) {
      const int v = add(main, main.params[p], "");
      flat_.values[static_cast<size_t>(v)].is_param = true;
      flat_.values[static_cast<size_t>(v)].kind = main.param_info[p].kind;
      map[index(main.params[p])] = v;
      flat_.params.push_back(v);
    }
    body(main, "", map);
    for (const Return& r : main.returns) {
      if (r.in_place != ValueId::none) continue;
      int v = map[index(r.value)];
      const std::string& name = main.value(r.value).name;
      if (base_name(flat_.values[static_cast<size_t>(v)].name) != base_name(name)) {
        // A role or reshard that changes nothing here: the same memory, found under the name that is returned too.
        FlatValue named = flat_.values[static_cast<size_t>(v)];
        named.name = name;
        named.alias = v;
        named.is_param = false;
        flat_.values.push_back(std::move(named));
        v = static_cast<int>(flat_.values.size()) - 1;
      }
      flat_.results.push_back(v);
      flat_.values[static_cast<size_t>(root(v))].is_result = true;
    }
    return std::move(flat_);
  }

 private:
  int root(int v) const {
    while (flat_.values[static_cast<size_t>(v)].alias >= 0) v = flat_.values[static_cast<size_t>(v)].alias;
    return v;
  }

  int add(const Function& f, ValueId v, const std::string& prefix) {
    const ValueInfo& info = f.value(v);
    FlatValue flat;
    flat.name = join_name(prefix, info.name);
    flat.type = info.type;
    flat.layout = *info.layout;
    flat.local = local_shape(mesh_, info.type.shape, *info.layout, rank_);
    flat_.values.push_back(std::move(flat));
    return static_cast<int>(flat_.values.size()) - 1;
  }

  void copy(int from, int to, const std::string& place) {
    FlatStep step;
    step.kind = FlatStep::copy;
    step.operands = {from};
    step.results = {to};
    step.place = place;
    flat_.steps.push_back(std::move(step));
  }

  bool here(const Op& op) const {
    for (const auto& [axis, coordinate] : op.guard) {
      if (at_[static_cast<size_t>(axis)] != coordinate) return false;
    }
    return true;
  }

  // Emits the ops of f; `map` has its parameters and gets its other values. In-place returns share their parameter's memory,
  // or are copied there at the end where the op that makes them may not write over what it reads.
  void body(const Function& f, const std::string& prefix, std::vector<int>& map, bool called = true) {
    const Aliases aliases = find_aliases(program_, f, called);
    std::vector<int> target(f.values.size(), -1);
    std::vector<std::pair<ValueId, int>> late;
    for (const Return& r : f.returns) {
      if (r.in_place == ValueId::none || r.value == r.in_place) continue;
      const int param = map[index(r.in_place)];
      if (f.value(r.value).op >= 0 && target[index(r.value)] < 0 && may_overwrite(f, aliases, r)) {
        target[index(r.value)] = param;
      } else {
        late.push_back({r.value, param});
      }
    }
    std::map<ValueId, int> started;
    for (const Op& op : f.ops) {
      if (op.kind == Op::call) {
        call(op, prefix, map);
        for (ValueId v : op.results) {
          if (!aliases.copied[index(v)]) continue;
          const int made = add(f, v, prefix);
          copy(map[index(v)], made, f.value(v).name);
          map[index(v)] = made;
        }
        continue;
      }
      if (op.kind == Op::repeat) {
        repeat(op, prefix, map, target);
        continue;
      }
      if (op.kind == Op::apply && op.def->identity && !op.def->collective) {
        const ValueId v = op.results[0];
        map[index(v)] = map[index(op.operands[0])];  // a role: another name for the same memory
        if (!aliases.copied[index(v)]) continue;
        const int made = add(f, v, prefix);
        copy(map[index(v)], made, f.value(v).name);
        map[index(v)] = made;
        continue;
      }
      FlatStep step;
      step.op = &op;
      step.start = op.start;
      for (ValueId v : op.operands) step.operands.push_back(map[index(v)]);
      for (ValueId v : op.results) {
        const int made = add(f, v, prefix);
        flat_.values[static_cast<size_t>(made)].alias = target[index(v)];
        map[index(v)] = made;
        step.results.push_back(made);
      }
      if (op.kind == Op::apply && !op.def->collective) fetch_halos(f, op, prefix, step);
      const int at = static_cast<int>(flat_.steps.size());
      if (op.kind == Op::wait) {
        step.kind = FlatStep::wait;
        step.partner = started.at(op.operands[0]);
        flat_.steps[static_cast<size_t>(step.partner)].partner = at;
      } else if (op.def->collective) {
        step.kind = FlatStep::collective;
        if (op.start) started[op.results[0]] = at;
      }
      if (!here(op)) step.kind = FlatStep::skip;
      step.place = (prefix.empty() ? std::string() : prefix + ": ") + (op.results.empty() ? "wait" : std::string(op.def->name)) + " %" +
                   f.value(op.results.empty() ? op.operands[0] : op.results[0]).name;
      flat_.steps.push_back(std::move(step));
    }
    // Read all before writing any: two parameters may be exchanged.
    std::vector<std::pair<int, int>> copies;
    for (const auto& [value, param] : late) {
      const ValueInfo& info = f.value(value);
      const int temporary = add(f, value, prefix);
      flat_.values[static_cast<size_t>(temporary)].name += " (moved)";
      copy(map[index(value)], temporary, info.name);
      copies.push_back({temporary, param});
    }
    for (const auto& [from, to] : copies) copy(from, to, flat_.values[static_cast<size_t>(to)].name);
    for (const auto& [value, param] : late) map[index(value)] = param;
  }

  // A step before `step` for each operand of which the op reads what other devices hold; it reads what was brought.
  void fetch_halos(const Function& f, const Op& op, const std::string& prefix, FlatStep& step) {
    if (op.def->reach == nullptr) return;
    const PlacedOp placed(mesh_, f, op);
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const HaloFetch fetch = placed.fetch(static_cast<int>(i));
      if (!fetch.moves()) continue;
      FlatStep before;
      before.kind = here(op) ? FlatStep::collective : FlatStep::skip;
      before.op = &op;
      before.fetches = static_cast<int>(i);
      before.operands = {step.operands[i]};
      const int brought = add(f, op.operands[i], prefix);
      FlatValue& value = flat_.values[static_cast<size_t>(brought)];
      value.name += " (edges)";
      before.fetch = std::make_shared<const FlatFetch>(
          FlatFetch{fetch.over(), fetch.held(rank_), fetch.wanted(rank_), fetch.transfer(rank_)});
      value.local = before.fetch->wanted.shape();
      for (const Block& b : before.fetch->wanted.dims) value.begin.push_back(b.begin);
      before.results = {brought};
      before.place = (prefix.empty() ? std::string() : prefix + ": ") + std::string(op.def->name) + " reads %" + value.name;
      step.operands[i] = brought;
      flat_.steps.push_back(std::move(before));
    }
  }

  // Whether r's value can be written straight over its parameter: its maker doesn't read the parameter, or may do so in place,
  // and nothing that is made before it and read after it is affected (verify has checked the reads).
  bool may_overwrite(const Function& f, const Aliases& aliases, const Return& r) const {
    const Op& maker = f.ops[static_cast<size_t>(f.value(r.value).op)];
    if (maker.kind != Op::apply) {
      // The callee writes over its own parameter; any other argument would need a copy.
      const Function& callee = program_.functions[static_cast<size_t>(maker.callee)];
      for (size_t i = 0; i < maker.results.size(); ++i) {
        if (maker.results[i] != r.value) continue;
        const ValueId place = callee.returns[i].in_place;
        if (place == ValueId::none) return false;
        return aliases.source[index(maker.operands[static_cast<size_t>(callee.param_index(place))])] == r.in_place;
      }
      return false;
    }
    if (maker.def->identity && !maker.def->collective) return false;  // writes nothing: another name for its operand
    if (!maker.guard.empty()) return false;
    for (size_t o = 0; o < maker.operands.size(); ++o) {
      if (aliases.source[index(maker.operands[o])] != r.in_place) continue;
      bool allowed = maker.def->collective == Collective::all_reduce;
      for (const auto& [result, operand] : maker.def->in_place) {
        allowed |= operand == static_cast<int>(o) && maker.results[static_cast<size_t>(result)] == r.value;
      }
      if (!allowed) return false;
    }
    return true;
  }

  void bind_results(const Function& callee, const Op& op, const std::vector<int>& inner, std::vector<int>& map) {
    for (size_t r = 0; r < op.results.size(); ++r) map[index(op.results[r])] = inner[index(callee.returns[r].value)];
  }

  void call(const Op& op, const std::string& prefix, std::vector<int>& map) {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    std::vector<int> inner(callee.values.size(), -1);
    for (size_t a = 0; a < op.operands.size(); ++a) inner[index(callee.params[a])] = map[index(op.operands[a])];
    body(callee, join_name(prefix, op.prefix), inner);
    bind_results(callee, op, inner, map);
  }

  void repeat(const Op& op, const std::string& prefix, std::vector<int>& map, const std::vector<int>& target) {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    const std::string inside = join_name(prefix, op.prefix);
    std::vector<int> inner(callee.values.size(), -1);
    int counter = -1;
    for (size_t a = 0; a < op.operands.size(); ++a) {
      const ValueId param = callee.params[a];
      if (static_cast<int>(a) == op.index_operand) {
        inner[index(param)] = counter = add(callee, param, inside);
        continue;
      }
      inner[index(param)] = map[index(op.operands[a])];
      for (size_t r = 0; r < callee.returns.size(); ++r) {
        if (callee.returns[r].in_place != param) continue;
        // Carried: the loop has its own, unless the caller gives its argument's memory away.
        const int into = target[index(op.results[r])];
        if (into >= 0 && root(into) == root(inner[index(param)])) continue;
        const int carried = add(callee, param, inside);
        copy(inner[index(param)], carried, inside);
        inner[index(param)] = carried;
      }
    }
    const int begin = static_cast<int>(flat_.steps.size());
    FlatStep step;
    step.kind = FlatStep::loop_begin;
    step.count = op.count;
    step.counter = counter;
    if (counter >= 0) step.results = {counter};
    step.place = inside;
    flat_.steps.push_back(step);
    body(callee, inside, inner, false);
    flat_.steps[static_cast<size_t>(begin)].partner = static_cast<int>(flat_.steps.size());
    step.kind = FlatStep::loop_end;
    step.partner = begin;
    step.counter = counter;
    step.results.clear();
    if (counter >= 0) step.operands = {counter};
    flat_.steps.push_back(std::move(step));
    bind_results(callee, op, inner, map);
  }

  const Program& program_;
  const Mesh& mesh_;
  Rank rank_;
  std::vector<int64_t> at_;
  Flat flat_;
};

}  // namespace

Flat flatten(const Program& local, Rank rank) { return Flattener(local, rank).run(); }

}  // namespace meshard
