// The printer's rules where the text leaves a choice:
// - A header of more than two entries, after runs are written once, has one line for each; a return breaks before its
// ninth name.
//   Both depend on counts only, never on widths, so that 12 layers and 100 give the same lines.
// - A call's arguments that bind by name are left out; a call's results have the types of the callee's and are never
// written.
// - Calls next to one another, of one function with one guard, whose prefixes differ in one number that counts up or
// down
//   by one, are one line for as long as argument_pattern() (ir/runs.h) can say what they pass.
#include <algorithm>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "meshard/base/text.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/runs.h"

namespace meshard {
namespace {

// Calls op .. op + numbers.length() - 1 as one.
struct CallRun {
  Range numbers;
  size_t part = 0;  // of the prefix
  int64_t length() const { return numbers.length(); }
};

class Printer {
 public:
  explicit Printer(const Program& program) : program_(program), mesh_(program.mesh.value_or(Mesh())) {}

  // Lines of a whole program mark what is pinned where not everything is.
  void find_pinned() {
    bool pinned = false, free = false;
    for (const Function& f : program_.functions) {
      for (const ValueInfo& v : f.values) {
        if (!v.layout || made_by_call(f, v)) continue;
        (v.pinned ? pinned : free) = true;
      }
    }
    mark_pinned_ = pinned && free;
  }

  std::string program() const {
    std::string out = fmt::format("meshard {}\n", kTextVersion);
    if (program_.mesh) out += fmt::format("mesh {}\n", mesh_.str());
    for (const Function& f : program_.functions) out += "\n" + function(f);
    return out;
  }

  // One op, or a run of calls that begins with it.
  std::string op(const Function& f, const Op& op, const std::optional<CallRun>& run = {}) const {
    switch (op.kind) {
      case Op::apply:
        return apply(f, op);
      case Op::wait:
        return fmt::format("wait {}{}", name(f, op.operands[0]), guard(op));
      case Op::call:
      case Op::repeat:
        return call(f, op, run);
    }
    return "";
  }

 private:
  static bool made_by_call(const Function& f, const ValueInfo& v) {
    if (v.op < 0 || static_cast<size_t>(v.op) >= f.ops.size()) return false;
    const Op::Kind kind = f.ops[static_cast<size_t>(v.op)].kind;
    return kind == Op::call || kind == Op::repeat;
  }

  static std::string name(const Function& f, ValueId v) { return v == ValueId::none ? "%none" : "%" + f.value(v).name; }
  static std::string names(const Function& f, const std::vector<ValueId>& values) {
    return absl::StrJoin(values, ", ", [&](std::string* out, ValueId v) { *out += name(f, v); });
  }

  // "f32[3,5] [data, -]! below=13"
  std::string type(const ValueInfo& v) const {
    std::string out = v.type.str();
    if (v.layout) out += " " + v.layout->str(mesh_) + (mark_pinned_ && v.pinned ? "!" : "");
    if (v.below > 0) out += fmt::format(" below={}", v.below);
    return out;
  }

  std::string guard(const Op& op) const {
    std::vector<std::string> out;
    for (const auto& [axis, coordinate] : op.guard) {
      out.push_back(fmt::format("{}={}", mesh_.axes()[static_cast<size_t>(axis)].name, coordinate));
    }
    return out.empty() ? "" : " at " + absl::StrJoin(out, ", ");
  }

  std::string apply(const Function& f, const Op& op) const {
    std::string out = fmt::format("{} = {}{}", names(f, op.results), op.start ? "start " : "", op.def->name);
    if (!op.operands.empty()) out += " " + names(f, op.operands);
    std::string attributes = op.attributes.str();
    if (!op.over.empty()) {
      const std::string over = fmt::format("{{over = {}", mesh_.atoms_text(op.over));
      attributes = over + (attributes.empty() ? "}" : ", " + attributes.substr(1));
    }
    if (!attributes.empty()) out += " " + attributes;
    const std::string types =
        absl::StrJoin(op.results, ", ", [&](std::string* text, ValueId v) { *text += type(f.value(v)); });
    return out + guard(op) + " : " + types;
  }

  static std::string init(const Init& init) {
    switch (init.kind) {
      case Init::zeros:
        return "";
      case Init::ones:
        return " init=ones";
      case Init::constant:
        return fmt::format(" init=constant({})", number_text(init.scale));
      case Init::normal:
        return fmt::format(" init=normal({})", number_text(init.scale));
      case Init::uniform:
        return fmt::format(" init=uniform({})", number_text(init.scale));
    }
    return "";
  }

  // What argument `a` of a call is, "" if it binds by name.
  std::string argument(const Function& f, const Op& op, size_t a) const {
    if (op.kind == Op::repeat && static_cast<int>(a) == op.index_operand) return "index";
    const std::string& parameter = callee_parameter(op, a);
    const std::string value = name(f, op.operands[a]);
    return value == "%" + join_name(op.prefix, parameter) ? "" : value;
  }

  const std::string& callee_parameter(const Op& op, size_t a) const {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    return callee.value(callee.params[a]).name;
  }

  // The argument `a` over a run of calls, "" if it binds by name in each, nullopt if there is no way to say it.
  std::optional<std::string> argument(const Function& f, std::span<const Op> calls, const CallRun& run,
                                      size_t a) const {
    bool by_name = true;
    std::vector<std::string> values;
    for (const Op& op : calls) {
      by_name = by_name && argument(f, op, a).empty();
      values.push_back(f.value(op.operands[a]).name);
    }
    if (by_name) return "";
    return argument_pattern(values, run.numbers, split_name(calls[0].prefix), run.part);
  }

  std::string call(const Function& f, const Op& op, const std::optional<CallRun>& run) const {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    std::string out = op.kind == Op::repeat ? fmt::format("repeat {} call ", op.count) : "call ";
    out += callee.name;
    NameParts prefix = split_name(op.prefix);
    if (run) prefix[run->part] = range_text(run->numbers);
    if (!op.prefix.empty()) out += " as " + (run ? join_parts(prefix) : op.prefix);
    const std::span<const Op> calls(&op, run ? static_cast<size_t>(run->length()) : 1);
    std::vector<std::string> arguments;
    for (size_t a = 0; a < op.operands.size(); ++a) {
      const std::string text = run ? *argument(f, calls, *run, a) : argument(f, op, a);
      if (!text.empty()) arguments.push_back(fmt::format("{} = {}", callee_parameter(op, a), text));
    }
    if (!arguments.empty()) out += fmt::format(" ({})", absl::StrJoin(arguments, ", "));
    return out + guard(op);
  }

  // The longest run of calls that begins at ops[begin] and can be printed as one.
  std::optional<CallRun> find_calls(const Function& f, size_t begin) const {
    const std::span<const Op> ops = std::span(f.ops).subspan(begin);
    if (ops.size() < 2 || ops[0].kind != Op::call) return std::nullopt;
    const auto follows = [&](const Op& op) {
      return op.kind == Op::call && op.callee == ops[0].callee && op.guard == ops[0].guard;
    };
    NameParts prefix = split_name(ops[0].prefix);
    const NameParts next = split_name(ops[1].prefix);
    if (!follows(ops[1]) || prefix.empty() || prefix.size() != next.size()) return std::nullopt;
    const auto part =
        static_cast<size_t>(std::mismatch(prefix.begin(), prefix.end(), next.begin()).first - prefix.begin());
    if (part == prefix.size()) return std::nullopt;
    const std::optional<int64_t> first = part_number(prefix[part]), second = part_number(next[part]);
    if (!first || !second || (*second != *first + 1 && *second != *first - 1)) return std::nullopt;
    const int64_t step = *second - *first;

    size_t length = 1;  // of a run by prefixes, as far as it was looked for
    const auto runs_to = [&](size_t wanted) {
      for (; length < std::min(wanted, ops.size()) && follows(ops[length]); ++length) {
        const int64_t number = *first + step * static_cast<int64_t>(length);
        if (number < 0) break;
        prefix[part] = std::to_string(number);
        if (ops[length].prefix != join_parts(prefix)) break;
      }
      return std::min(length, wanted);
    };
    // What can be said of a run can be said of its beginning: the longest is found by doubling, then by halving.
    const auto fits = [&](size_t n) {
      const CallRun run{{*first, *first + step * static_cast<int64_t>(n - 1)}, part};
      for (size_t a = 0; a < ops[0].operands.size(); ++a) {
        if (!argument(f, ops.first(n), run, a)) return false;
      }
      return true;
    };
    size_t low = 1, high = 1;
    for (size_t wanted = 2;; wanted *= 2) {
      high = runs_to(wanted);
      if (high == low) break;
      if (!fits(high)) {
        --high;
        break;
      }
      low = high;
    }
    while (low < high) {
      const size_t middle = (low + high + 1) / 2;
      if (fits(middle)) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    if (low < 2) return std::nullopt;
    return CallRun{{*first, *first + step * static_cast<int64_t>(low - 1)}, part};
  }

  std::string header(const Function& f) const {
    std::vector<RunItem> items;
    for (size_t i = 0; i < f.params.size(); ++i) {
      const ValueInfo& v = f.value(f.params[i]);
      const ParamInfo& info = f.param_info[i];
      RunItem item{.name = split_name(v.name), .payload = i};
      // The parts before and after the link.
      item.text = fmt::format(": {}\n{}", type(v), init(info.init));
      if (info.kind == ParamInfo::param) item.text.insert(item.text.find('\n'), " param");
      if (info.kind == ParamInfo::state) {
        const bool of_run = info.of == ValueId::none;
        item.text.insert(item.text.find('\n'), of_run ? " state" : " state of ");
        if (!of_run) item.link = split_name(f.value(info.of).name);
      }
      items.push_back(std::move(item));
    }
    items = compress_runs(items);
    const bool lines = items.size() > 2;
    std::string out;
    for (size_t i = 0; i < items.size(); ++i) {
      const RunItem& item = items[i];
      const size_t link = item.text.find('\n');
      const std::string target = item.link.empty() ? "" : "%" + join_parts(item.link);
      if (lines) out += "\n    ";
      out += "%" + join_parts(item.name) + item.text.substr(0, link) + target + item.text.substr(link + 1);
      if (i + 1 < items.size()) out += std::string(item.ends_run ? ";" : ",") + (lines ? "" : " ");
    }
    return out;
  }

  std::string returns(const Function& f) const {
    std::vector<RunItem> items;
    for (const Return& r : f.returns) {
      RunItem item{.name = split_name(f.value(r.value).name)};
      if (r.in_place != ValueId::none) item.link = split_name(f.value(r.in_place).name);
      items.push_back(std::move(item));
    }
    items = compress_runs(items);
    constexpr size_t kNamesInLine = 8;
    std::string out = "  return ";
    size_t names = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      const size_t more = items[i].link.empty() ? 1 : 2;
      if (i > 0) {
        out += items[i - 1].ends_run ? ";" : ",";
        out += names + more > kNamesInLine ? "\n      " : " ";
        if (names + more > kNamesInLine) names = 0;
      }
      names += more;
      out += "%" + join_parts(items[i].name);
      if (!items[i].link.empty()) out += " -> %" + join_parts(items[i].link);
    }
    return out + "\n";
  }

  std::string function(const Function& f) const {
    std::string out = fmt::format("func {}({}) {{\n", f.name, header(f));
    for (size_t i = 0; i < f.ops.size();) {
      const std::optional<CallRun> run = find_calls(f, i);
      out += "  " + op(f, f.ops[i], run) + "\n";
      i += run ? static_cast<size_t>(run->length()) : 1;
    }
    if (!f.returns.empty()) out += returns(f);
    return out + "}\n";
  }

  const Program& program_;
  Mesh mesh_;
  bool mark_pinned_ = false;
};

}  // namespace

std::string print(const Program& program) {
  Printer printer(program);
  printer.find_pinned();
  return printer.program();
}

std::string print_op(const Program& program, const Function& function, const Op& op) {
  return Printer(program).op(function, op);
}

}  // namespace meshard
