#include <fmt/format.h>

#include <map>

#include "meshard/sharding/partition.h"

namespace meshard {

Program erase(const Program& program) {
  Program out;
  out.table = program.table;
  out.signatures = program.signatures;
  for (const Function& f : program.functions) {
    Function g;
    g.name = f.name;
    g.param_info = f.param_info;
    std::vector<ValueId> map(f.values.size(), ValueId::none);
    const auto keep = [&](ValueId v, int op) {
      ValueInfo info = f.value(v);
      info.layout = std::nullopt;
      info.pinned = false;
      info.op = op;
      info.name = fmt::format("v{}", g.values.size());
      g.values.push_back(std::move(info));
      return map[index(v)] = ValueId(static_cast<int32_t>(g.values.size()) - 1);
    };
    for (ValueId v : f.params) g.params.push_back(keep(v, -1));
    // Constants are made where they are first read, and equal ones once: a local program makes them anew where it likes.
    std::vector<const Op*> constants(f.values.size(), nullptr);
    std::map<std::string, ValueId, std::less<>> made;
    const auto read = [&](ValueId v) {
      if (v == ValueId::none) return v;
      if (map[index(v)] == ValueId::none && constants[index(v)] != nullptr) {
        Op copy = *constants[index(v)];
        const std::string says = std::string(copy.def->name) + copy.attributes.str() + f.value(v).type.str();
        if (const auto it = made.find(says); it != made.end()) return map[index(v)] = it->second;
        copy.results = {keep(v, static_cast<int>(g.ops.size()))};
        made[says] = copy.results[0];
        g.ops.push_back(std::move(copy));
      }
      return map[index(v)];
    };
    for (ParamInfo& info : g.param_info) {
      if (info.of != ValueId::none) info.of = map[index(info.of)];
    }
    for (const Op& op : f.ops) {
      if (op.kind == Op::apply && op.def->identity) {
        map[index(op.results[0])] = map[index(op.operands[0])];
        constants[index(op.results[0])] = constants[index(op.operands[0])];
        continue;
      }
      if (op.kind == Op::apply && op.operands.empty()) {
        constants[index(op.results[0])] = &op;
        continue;
      }
      Op copy = op;
      for (ValueId& v : copy.operands) v = read(v);
      for (ValueId& v : copy.results) v = keep(v, static_cast<int>(g.ops.size()));
      copy.cause.clear();
      if (copy.kind != Op::apply) copy.prefix = fmt::format("c{}", g.ops.size());
      g.ops.push_back(std::move(copy));
    }
    for (const Return& r : f.returns) g.returns.push_back({read(r.value), r.in_place == ValueId::none ? r.in_place : map[index(r.in_place)]});
    out.functions.push_back(std::move(g));
  }
  return out;
}

}  // namespace meshard
