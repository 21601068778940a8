#include "edits.h"

#include <fmt/format.h>

#include <algorithm>

namespace meshard::fuzz {
namespace {

bool calls(const Op& op) { return op.kind == Op::call || op.kind == Op::repeat; }

bool returned(const Function& f, ValueId v) {
  return std::any_of(f.returns.begin(), f.returns.end(), [&](const Return& r) { return r.value == v || r.in_place == v; });
}
bool read(const Function& f, ValueId v) {
  return returned(f, v) || std::any_of(f.ops.begin(), f.ops.end(), [&](const Op& op) {
           return std::find(op.operands.begin(), op.operands.end(), v) != op.operands.end();
         });
}

void replace_reads(Function& f, ValueId v, ValueId by) {
  for (Op& op : f.ops) std::replace(op.operands.begin(), op.operands.end(), v, by);
  for (Return& r : f.returns) {
    if (r.value == v) r.value = by;
  }
}

// Takes out the values that are no longer made.
bool renumber(Function& f) {
  std::vector<ValueId> number(f.values.size(), ValueId::none);
  std::vector<ValueInfo> values;
  const auto keep = [&](ValueId v, int op) {
    number[index(v)] = static_cast<ValueId>(values.size());
    values.push_back(f.value(v));
    values.back().op = op;
  };
  for (ValueId p : f.params) keep(p, -1);
  for (size_t i = 0; i < f.ops.size(); ++i) {
    for (ValueId v : f.ops[i].results) keep(v, static_cast<int>(i));
  }
  bool whole = true;
  const auto to = [&](ValueId& v) {
    if (v == ValueId::none) return;
    whole &= number[index(v)] != ValueId::none;
    v = number[index(v)];
  };
  for (ValueId& p : f.params) to(p);
  for (ParamInfo& p : f.param_info) to(p.of);
  for (Op& op : f.ops) {
    for (ValueId& v : op.operands) to(v);
    for (ValueId& v : op.results) to(v);
  }
  for (Return& r : f.returns) {
    to(r.value);
    to(r.in_place);
  }
  f.values = std::move(values);
  return whole;
}

ValueId add_param(Function& f, std::string name, const ValueInfo& like) {
  while (f.find(name) != ValueId::none) name += "x";
  const auto v = static_cast<ValueId>(f.values.size());
  ValueInfo info = like;
  info.name = std::move(name);
  info.op = -1;
  f.values.push_back(std::move(info));
  f.params.push_back(v);
  f.param_info.emplace_back();
  return v;
}

}  // namespace

bool drop_ops(Function& f, const std::vector<bool>& drop) {
  std::vector<Op> ops;
  for (size_t i = 0; i < f.ops.size(); ++i) {
    if (!drop[i]) ops.push_back(std::move(f.ops[i]));
  }
  f.ops = std::move(ops);
  return renumber(f);
}

bool drop_parameter(Program& program, size_t function, size_t number) {
  Function& f = program.functions[function];
  const ValueId v = f.params[number];
  if (read(f, v)) return false;
  for (const ParamInfo& p : f.param_info) {
    if (p.of == v) return false;
  }
  const auto at = static_cast<std::ptrdiff_t>(number);
  for (Function& g : program.functions) {
    for (Op& op : g.ops) {
      if (!calls(op) || op.callee != static_cast<int>(function)) continue;
      op.operands.erase(op.operands.begin() + at);
      if (op.index_operand == static_cast<int>(number)) op.index_operand = -1;
      if (op.index_operand > static_cast<int>(number)) --op.index_operand;
    }
  }
  f.params.erase(f.params.begin() + at);
  f.param_info.erase(f.param_info.begin() + at);
  return renumber(f);
}

bool drop_unread(Program& program) {
  bool changed = false;
  for (size_t n = program.functions.size(); n-- > 0;) {
    Function& f = program.functions[n];
    for (size_t i = f.ops.size(); i-- > 0;) {
      const auto& results = f.ops[i].results;
      if (std::any_of(results.begin(), results.end(), [&](ValueId v) { return read(f, v); })) continue;
      std::vector<bool> drop(f.ops.size(), false);
      drop[i] = true;
      drop_ops(f, drop);
      changed = true;
    }
    for (size_t p = f.params.size(); p-- > 0;) changed |= drop_parameter(program, n, p);
  }
  // Functions that nobody calls.
  for (size_t n = program.functions.size() - 1; n-- > 0;) {
    bool called = false;
    for (const Function& f : program.functions) {
      for (const Op& op : f.ops) called |= calls(op) && op.callee == static_cast<int>(n);
    }
    if (called) continue;
    program.functions.erase(program.functions.begin() + static_cast<std::ptrdiff_t>(n));
    for (Function& f : program.functions) {
      for (Op& op : f.ops) op.callee -= calls(op) && op.callee > static_cast<int>(n) ? 1 : 0;
    }
    changed = true;
  }
  return changed;
}

bool drop_return(Program& program, size_t function, size_t number) {
  Function& f = program.functions[function];
  if (f.returns.size() < 2) return false;
  for (Function& g : program.functions) {
    for (Op& op : g.ops) {
      if (!calls(op) || op.callee != static_cast<int>(function)) continue;
      if (read(g, op.results[number])) return false;
      op.results.erase(op.results.begin() + static_cast<std::ptrdiff_t>(number));
    }
    renumber(g);
  }
  f.returns.erase(f.returns.begin() + static_cast<std::ptrdiff_t>(number));
  return true;
}

bool cut(Program& program, size_t function, size_t number) {
  Function& f = program.functions[function];
  const size_t last = program.functions.size() - 1;
  for (size_t g = 0; g < last; ++g) {
    for (const Op& op : program.functions[g].ops) {
      if (function != last && calls(op) && op.callee == static_cast<int>(function)) return false;
    }
  }
  for (ValueId v : std::vector<ValueId>(f.ops[number].results)) {
    const ValueInfo like = f.value(v);
    // A parameter is no result: what returned the value has nothing to return.
    if (returned(f, v)) return false;
    replace_reads(f, v, add_param(f, fmt::format("x{}", f.values.size()), like));
    if (function == last) continue;
    Function& main = program.main();
    for (Op& op : main.ops) {
      if (!calls(op) || op.callee != static_cast<int>(function)) continue;
      op.operands.push_back(add_param(main, fmt::format("x{}", main.values.size()), like));
    }
  }
  std::vector<bool> drop(f.ops.size(), false);
  drop[number] = true;
  return drop_ops(f, drop);
}

bool bypass(Program& program, size_t function, size_t number, size_t operand) {
  Function& f = program.functions[function];
  const Op& op = f.ops[number];
  if (op.results.size() != 1 || operand >= op.operands.size() || op.operands[operand] == ValueId::none) return false;
  const ValueId result = op.results[0], by = op.operands[operand];
  if (f.value(result).type != f.value(by).type || !read(f, result)) return false;
  // A call's result is called as the callee's: what is returned keeps its op.
  replace_reads(f, result, by);
  return true;
}

bool call_once(Program& program, size_t function, size_t number) {
  Function& f = program.functions[function];
  Op& op = f.ops[number];
  if (op.kind != Op::repeat || (op.index_operand >= 0 && function + 1 != program.functions.size())) return false;
  op.kind = Op::call;
  op.count = 1;
  if (op.index_operand < 0) return true;
  const auto at = static_cast<size_t>(op.index_operand);
  op.index_operand = -1;
  const Function& callee = program.functions[static_cast<size_t>(op.callee)];
  const ValueId v = add_param(f, fmt::format("x{}", f.values.size()), callee.value(callee.params[at]));
  f.ops[number].operands[at] = v;
  return true;
}

bool inline_call(Program& program, size_t function, size_t number) {
  Function& f = program.functions[function];
  const Op call = f.ops[number];
  if (call.kind != Op::call) return false;
  const Function& callee = program.functions[static_cast<size_t>(call.callee)];
  std::vector<ValueId> to(callee.values.size(), ValueId::none);
  for (size_t p = 0; p < callee.params.size(); ++p) to[index(callee.params[p])] = call.operands[p];
  std::vector<Op> ops(f.ops.begin(), f.ops.begin() + static_cast<std::ptrdiff_t>(number));
  for (Op op : callee.ops) {
    if (calls(op)) op.prefix = join_name(call.prefix, op.prefix);
    for (ValueId& v : op.operands) v = v == ValueId::none ? v : to[index(v)];
    for (ValueId& v : op.results) {
      ValueInfo info = callee.value(v);
      info.name = join_name(call.prefix, info.name);
      if (f.find(info.name) != ValueId::none) info.name += ".in";
      to[index(v)] = static_cast<ValueId>(f.values.size());
      f.values.push_back(std::move(info));
      v = to[index(v)];
    }
    ops.push_back(std::move(op));
  }
  ops.insert(ops.end(), f.ops.begin() + static_cast<std::ptrdiff_t>(number) + 1, f.ops.end());
  f.ops = std::move(ops);
  for (size_t r = 0; r < call.results.size(); ++r) {
    const ValueId by = to[index(callee.returns[r].value)];
    replace_reads(f, call.results[r], by);
  }
  // Names of results must be those of the ops inside; the value that had the name goes.
  return renumber(f);
}

bool drop_atom(Program& program, AtomId atom) {
  const Mesh& before = *program.mesh;
  std::string text;
  std::vector<AxisCut> cuts;
  std::vector<int> to(static_cast<size_t>(before.atom_count()), -1);
  int next = 0;
  for (const Axis& axis : before.axes()) {
    int64_t size = 1;
    std::vector<AxisCut> mine;
    for (AtomId a : axis.atoms) {
      if (a == atom) continue;
      to[a] = next++;
      size *= before.atom_size(a);
      mine.push_back({axis.name, size, {}});
    }
    if (size == 1) continue;
    mine.pop_back();
    cuts.insert(cuts.end(), mine.begin(), mine.end());
    text += fmt::format("{}{}={}", text.empty() ? "" : ", ", axis.name, size);
  }
  if (text.empty()) return false;
  program.mesh = Mesh::parse(text).with_cuts(cuts);
  for (Function& f : program.functions) {
    for (ValueInfo& v : f.values) {
      if (!v.layout) continue;
      for (DimLayout& d : v.layout->dims) {
        Atoms atoms;
        for (AtomId a : d.atoms) {
          if (to[a] >= 0) atoms.push_back(static_cast<AtomId>(to[a]));
        }
        d.atoms = std::move(atoms);
      }
      for (AtomSet& pending : v.layout->pending) {
        AtomSet set;
        for (AtomId a : pending.list()) {
          if (to[a] >= 0) set.add(static_cast<AtomId>(to[a]));
        }
        pending = set;
      }
    }
  }
  return true;
}

bool resize(Program& program, int64_t from, int64_t to) {
  bool changed = false;
  for (Function& f : program.functions) {
    for (ValueInfo& v : f.values) {
      for (int64_t& d : v.type.shape.dims) {
        if (d != from) continue;
        d = to;
        changed = true;
      }
      if (v.below == from) v.below = std::max<int64_t>(to, 1);
    }
    for (Op& op : f.ops) {
      std::vector<std::string> names;
      for (const auto& [name, value] : op.attributes) {
        if (std::holds_alternative<int64_t>(value) && std::get<int64_t>(value) == from) names.push_back(name);
      }
      for (const std::string& name : names) op.attributes.set(name, to);
    }
  }
  return changed;
}

}  // namespace meshard::fuzz
