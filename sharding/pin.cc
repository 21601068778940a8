#include "meshard/sharding/pin.h"

#include <fmt/format.h>

#include <map>
#include <set>

namespace meshard {
namespace {

// "block.0.wq.grad" -> "block.0.wq" when the last part is `part`.
std::optional<std::string> without_last(std::string_view name, std::string_view part) {
  if (name.size() > part.size() + 1 && name.ends_with(part) && name[name.size() - part.size() - 1] == '.') {
    return std::string(name.substr(0, name.size() - part.size() - 1));
  }
  return std::nullopt;
}

class Pinner {
 public:
  Pinner(const Program& program, const Plan& plan, const Mesh& mesh) : in_(program), plan_(plan), mesh_(mesh) {
    out_.table = program.table;
    out_.mesh = mesh;
    out_.signatures = program.signatures;
    find_params();
  }

  Program run() {
    const int main = static_cast<int>(in_.functions.size()) - 1;
    clone(main, "");
    plan_.check_all_match(std::vector<std::string>(names_.begin(), names_.end()));
    spread_pins(out_);
    return std::move(out_);
  }

 private:
  // Full names of main's parameters that have roles.
  void find_params() {
    const Function& main = in_.main();
    for (size_t i = 0; i < main.params.size(); ++i) {
      if (main.param_info[i].kind == ParamInfo::param) params_.insert(main.value(main.params[i]).name);
    }
  }

  // The layout that the plan gives to value v of f when f is called under `prefix`, and the line that gives it: the file alone
  // where no line names a parameter.
  std::optional<Layout> planned(const Function& f, bool is_main, size_t v, const std::string& full, Place* where) {
    const ValueInfo& value = f.values[v];
    const auto role_layout = [&](const std::string& param, Role role) {
      std::optional<Layout> found = plan_.find(param, value.type.shape, role, mesh_, where);
      return found ? found : std::optional<Layout>(Layout(value.type.shape.rank()));
    };
    if (is_main && value.op < 0) {
      const int p = f.param_index(ValueId(static_cast<int32_t>(v)));
      const ParamInfo& info = f.param_info[static_cast<size_t>(p)];
      if (info.kind == ParamInfo::param) return role_layout(full, Role::store);
      if (info.kind == ParamInfo::state && info.of == ValueId::none) return Layout(value.type.shape.rank());
      if (info.kind == ParamInfo::state) return role_layout(f.value(info.of).name, Role::state);
    }
    if (value.op >= 0) {
      const Op& op = f.ops[static_cast<size_t>(value.op)];
      if (op.def != nullptr && op.def->role == Role::use) {
        // Of a program of mixed precision a use reads the parameter's cast.
        ValueId read = op.operands[0];
        while (f.value(read).op >= 0 && f.ops[static_cast<size_t>(f.value(read).op)].def != nullptr &&
               f.ops[static_cast<size_t>(f.value(read).op)].def->cast) {
          read = f.ops[static_cast<size_t>(f.value(read).op)].operands[0];
        }
        const std::string operand = f.value(read).name;
        const std::string param = full.substr(0, full.size() - value.name.size()) + operand;
        if (params_.count(param)) return role_layout(param, Role::use);
      }
    }
    for (const auto& [part, role] : {std::pair{"grad", Role::grad}, {"sum", Role::grad}, {"total", Role::state}}) {
      const auto param = without_last(full, part);
      if (param && params_.count(*param)) return role_layout(*param, role);
    }
    if (params_.count(full)) return std::nullopt;  // in a function: flows in from the caller
    names_.insert(full);
    if (auto found = plan_.find(full, value.type.shape, Role::none, mesh_, where)) return found;
    if (const auto primal = without_last(full, "d"); primal && !params_.count(*primal)) {
      return plan_.find(*primal, value.type.shape, Role::none, mesh_, where);
    }
    return std::nullopt;
  }

  // The index in the result of the function that `f` becomes under `prefix`.
  int clone(int f, const std::string& prefix) {
    const Function& source = in_.functions[static_cast<size_t>(f)];
    const bool is_main = f + 1 == static_cast<int>(in_.functions.size());
    Function copy = source;
    std::string key = fmt::format("{}", f);
    for (size_t v = 0; v < copy.values.size(); ++v) {
      ValueInfo& value = copy.values[v];
      const std::string full = join_name(prefix, value.name);
      if (params_.count(full)) names_.insert(full);
      Place where{plan_.file(), 0, 0};
      if (const auto layout = planned(source, is_main, v, full, &where)) {
        value.layout = layout;
        value.pinned = true;
        value.pinned_by = where;
      }
      key += value.layout && value.pinned ? "|" + value.layout->str(mesh_) : "|";
    }
    for (Op& op : copy.ops) {
      if (op.kind != Op::call && op.kind != Op::repeat) continue;
      op.callee = clone(op.callee, join_name(prefix, op.prefix));
      key += fmt::format("|f{}", op.callee);
    }
    const auto [it, fresh] = clones_.try_emplace(key, 0);
    if (!fresh) return it->second;
    int variant = 1;
    while (out_.find(copy.name) >= 0) copy.name = fmt::format("{}_{}", source.name, ++variant);
    out_.functions.push_back(std::move(copy));
    return it->second = static_cast<int>(out_.functions.size()) - 1;
  }

  const Program& in_;
  const Plan& plan_;
  const Mesh& mesh_;
  Program out_;
  std::set<std::string> params_, names_;
  std::map<std::string, int> clones_;
};

// Copies a pinned layout to an unpinned value; true if it did.
bool flow(const ValueInfo& from, ValueInfo& to) {
  if (!from.pinned || to.pinned || !from.layout || from.layout->has_open()) return false;
  to.layout = from.layout;
  to.pinned = true;
  to.pinned_by = from.pinned_by;
  return true;
}

}  // namespace

void spread_pins(Program& program) {
  // What a caller hands to all calls alike, pinned, is pinned inside; and the other way round for results.
  bool changed = true;
  while (changed) {
    changed = false;
    struct Argument {
      std::optional<Layout> layout;  // nullopt: the calls differ
      Place pinned_by;
    };
    std::map<std::pair<int, int>, Argument> arguments;  // of (callee, parameter)
    for (Function& f : program.functions) {
      for (const Return& r : f.returns) {
        if (r.in_place == ValueId::none) continue;
        changed |= flow(f.value(r.in_place), f.value(r.value));
      }
      for (const Op& op : f.ops) {
        if (op.kind != Op::call && op.kind != Op::repeat) continue;
        const Function& callee = program.functions[static_cast<size_t>(op.callee)];
        for (size_t r = 0; r < op.results.size(); ++r) {
          changed |= flow(callee.value(callee.returns[r].value), f.value(op.results[r]));
        }
        for (size_t a = 0; a < op.operands.size(); ++a) {
          if (op.operands[a] == ValueId::none) continue;
          const ValueInfo& value = f.value(op.operands[a]);
          const std::optional<Layout> layout =
              value.pinned && !value.layout->has_open() ? value.layout : std::optional<Layout>();
          const auto [it, fresh] = arguments.try_emplace({op.callee, static_cast<int>(a)}, Argument{layout, value.pinned_by});
          if (!fresh && it->second.layout != layout) it->second.layout = std::nullopt;
        }
      }
    }
    for (const auto& [where, argument] : arguments) {
      Function& callee = program.functions[static_cast<size_t>(where.first)];
      ValueInfo& param = callee.value(callee.params[static_cast<size_t>(where.second)]);
      if (!argument.layout || param.pinned) continue;
      param.layout = argument.layout;
      param.pinned = true;
      param.pinned_by = argument.pinned_by;
      changed = true;
    }
  }
}

Program pin(const Program& program, const Plan& plan, const Mesh& mesh) { return Pinner(program, plan, mesh).run(); }

}  // namespace meshard
