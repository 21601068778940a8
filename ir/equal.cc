#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "meshard/ir/parse.h"

namespace meshard {
namespace {

// Texts of two things that must agree. Layouts and axes are compared as text: a mesh read from text may order the
// factors of an axis otherwise where no layout names a part of it.
class Side {
 public:
  explicit Side(const Program& program) : program_(program), mesh_(program.mesh.value_or(Mesh())) {}

  const Function& function(size_t i) const { return program_.functions[i]; }
  std::string mesh() const { return program_.mesh ? "mesh " + mesh_.str() : "no mesh"; }

  std::string value(const Function& f, ValueId v, bool types) const {
    if (v == ValueId::none) return "none";
    const ValueInfo& info = f.value(v);
    if (!types) return "%" + info.name;
    return fmt::format("%{}: {} {} below={}", info.name, info.type.str(), info.layout ? info.layout->str(mesh_) : "",
                       info.below);
  }
  std::string values(const Function& f, const std::vector<ValueId>& list, bool types) const {
    return absl::StrJoin(list, ", ", [&](std::string* out, ValueId v) { *out += value(f, v, types); });
  }

  std::string parameter(const Function& f, size_t i) const {
    const ParamInfo& p = f.param_info[i];
    return fmt::format("{} kind {} of {} init {} {}", value(f, f.params[i], true), static_cast<int>(p.kind),
                       value(f, p.of, false), static_cast<int>(p.init.kind), p.init.scale);
  }

  std::string op(const Function& f, const Op& op) const {
    const bool call = op.kind == Op::call || op.kind == Op::repeat;
    std::string guard;
    for (const auto& [axis, at] : op.guard) guard += fmt::format(" at {}={}", axis, at);
    // Types and layouts of a call's results are the callee's.
    return fmt::format("{} = {}{} {} {}over {}{} callee {} as \"{}\" x{} index {} kind {}",
                       values(f, op.results, !call), op.start ? "start " : "", op.def ? op.def->name : "",
                       values(f, op.operands, false), op.attributes.str(), mesh_.atoms_text(op.over), guard,
                       call ? program_.functions[static_cast<size_t>(op.callee)].name : "", op.prefix, op.count,
                       op.index_operand, static_cast<int>(op.kind));
  }

  std::string returned(const Function& f, const Return& r) const {
    return fmt::format("return {} -> {}", value(f, r.value, false), value(f, r.in_place, false));
  }

 private:
  const Program& program_;
  Mesh mesh_;
};

std::string difference(const Program& a, const Program& b) {
  const Side x(a), y(b);
  const auto differ = [](const std::string& p, const std::string& q) { return fmt::format("{} | {}", p, q); };
  if (x.mesh() != y.mesh()) return differ(x.mesh(), y.mesh());
  if (a.functions.size() != b.functions.size())
    return fmt::format("{} functions | {}", a.functions.size(), b.functions.size());
  for (size_t i = 0; i < a.functions.size(); ++i) {
    const Function &f = x.function(i), &g = y.function(i);
    if (f.name != g.name) return differ("func " + f.name, "func " + g.name);
    // The first of `n` and `m` things, written by `text`, that differs.
    const auto compare = [&](std::string_view what, size_t n, size_t m, const auto& text_f,
                             const auto& text_g) -> std::string {
      for (size_t k = 0; k < std::min(n, m); ++k) {
        if (text_f(k) != text_g(k)) return fmt::format("func {}: {}", f.name, differ(text_f(k), text_g(k)));
      }
      return n == m ? "" : fmt::format("func {}: {} {} | {}", f.name, n, what, m);
    };
    std::string why = compare(
        "parameters", f.params.size(), g.params.size(), [&](size_t k) { return x.parameter(f, k); },
        [&](size_t k) { return y.parameter(g, k); });
    if (why.empty()) {
      why = compare(
          "ops", f.ops.size(), g.ops.size(), [&](size_t k) { return x.op(f, f.ops[k]); },
          [&](size_t k) { return y.op(g, g.ops[k]); });
    }
    if (why.empty()) {
      why = compare(
          "returned values", f.returns.size(), g.returns.size(), [&](size_t k) { return x.returned(f, f.returns[k]); },
          [&](size_t k) { return y.returned(g, g.returns[k]); });
    }
    if (!why.empty()) return why;
  }
  return "";
}

}  // namespace

bool equal(const Program& a, const Program& b, std::string* why) {
  const std::string text = difference(a, b);
  if (why != nullptr) *why = text;
  return text.empty();
}

}  // namespace meshard
