#include "meshard/sharding/edits.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace meshard {
namespace {

constexpr size_t kKeptEdits = 3;    // for each collective
constexpr int64_t kFlopsFree = 20;  // a raise by one in so many counts for nothing

// A layout's text cut at its commas: "[(data,model), -] + sum(x)" is {{"data", "model"}, {}} and " + sum(x)".
struct Entries {
  struct Entry {
    std::vector<std::string> axes;
    bool open = false;  // "?" behind them
    bool rest = false;  // "..."
  };
  std::vector<Entry> list;
  std::string tail;

  static Entries parse(const std::string& text) {
    Entries e;
    const size_t end = text.find(']');
    e.tail = text.substr(end + 1);
    std::string word;
    bool inside = false, any = false;
    Entry entry;
    const auto flush_word = [&] {
      if (word == "...") entry.rest = true;
      else if (word == "?") entry.open = true;
      else if (!word.empty() && word != "-") entry.axes.push_back(word);
      word.clear();
    };
    // Parentheses hold a list, or, behind a colon, the factor before a part: "model:(2)4".
    bool part = false;
    for (char c : text.substr(1, end - 1)) {
      any = any || c != ' ';
      if (c == '(' && !word.empty() && word.back() == ':') part = true;
      if (part) {
        word += c;
        part = c != ')';
      } else if (c == '(') {
        inside = true;
      } else if (c == ')') {
        flush_word();
        inside = false;
      } else if (c == ',') {
        flush_word();
        if (!inside) e.list.push_back(std::exchange(entry, {}));
      } else if (c != ' ') {
        word += c;
      }
    }
    flush_word();
    if (any) e.list.push_back(entry);
    return e;
  }

  std::string str() const {
    std::string out = "[";
    for (size_t i = 0; i < list.size(); ++i) {
      const Entry& e = list[i];
      out += i ? ", " : "";
      if (e.rest) out += "...";
      else if (e.axes.empty()) out += e.open ? "?" : "-";
      else if (e.axes.size() == 1) out += e.axes[0];
      else out += fmt::format("({})", fmt::join(e.axes, ","));
    }
    return out + "]" + tail;
  }

  bool uses(const std::string& axis) const {
    for (const Entry& e : list) {
      for (const std::string& a : e.axes) {
        if (a == axis || a.starts_with(axis + ":")) return true;
      }
    }
    return tail.find("(" + axis) != tail.npos || tail.find("," + axis) != tail.npos;
  }
};

// Each way to put `axis` on one entry of `e`, but not on entry `except`.
void put(const Entries& e, const std::string& axis, size_t except, std::vector<std::string>& out) {
  for (size_t i = 0; i < e.list.size(); ++i) {
    if (i == except) continue;
    Entries changed = e;
    if (!e.list[i].rest) {
      changed.list[i].axes.push_back(axis);
      out.push_back(changed.str());
      continue;
    }
    // Before and behind "...", for a dimension that it stood for.
    changed.list.insert(changed.list.begin() + static_cast<std::ptrdiff_t>(i), Entries::Entry{{axis}, false, false});
    out.push_back(changed.str());
    changed = e;
    changed.list.insert(changed.list.begin() + static_cast<std::ptrdiff_t>(i) + 1, Entries::Entry{{axis}, false, false});
    out.push_back(changed.str());
  }
}

// "block.0" and "wq" are named "block.*.wq" in a plan, so that all layers have the line.
std::string pattern_of(const std::string& full) {
  std::string out;
  size_t begin = 0;
  while (begin <= full.size()) {
    const size_t end = std::min(full.find('.', begin), full.size());
    const std::string part = full.substr(begin, end - begin);
    const bool layer = begin > 0 && end < full.size() && part.find_first_not_of("0123456789") == part.npos;
    out += (out.empty() ? "" : ".") + (layer ? "*" : part);
    begin = end + 1;
  }
  return out;
}

// The prefixes under which function f is called, from main down: the first way found. nullopt: nobody calls it.
std::optional<std::string> prefix_of(const Program& p, int f) {
  if (f + 1 == static_cast<int>(p.functions.size())) return "";
  for (size_t caller = p.functions.size(); caller-- > static_cast<size_t>(f) + 1;) {
    for (const Op& op : p.functions[caller].ops) {
      if ((op.kind != Op::call && op.kind != Op::repeat) || op.callee != f) continue;
      if (const auto above = prefix_of(p, static_cast<int>(caller))) return join_name(*above, op.prefix);
    }
  }
  return std::nullopt;
}

struct Named {
  int function = -1;
  ValueId value = ValueId::none;
};

// "block: %add" -> function and value.
Named find_value(const Program& p, const std::string& name) {
  const size_t mark = name.find('%');
  Named n;
  n.function = mark == 0 ? static_cast<int>(p.functions.size()) - 1 : p.find(name.substr(0, mark - 2));
  if (n.function >= 0) n.value = p.functions[static_cast<size_t>(n.function)].find(name.substr(mark + 1));
  return n;
}

// The entry of the plan at a place, and its role.
std::pair<const PlanLine::Entry*, Role> entry_at(const Plan& plan, const Place& place) {
  for (const PlanLine& line : plan.lines()) {
    for (int r = 0; r < kRoles; ++r) {
      if (line.roles[r].given && line.roles[r].place == place) return {&line.roles[r], static_cast<Role>(r)};
    }
  }
  return {nullptr, Role::none};
}

std::string replaced(const std::string& text, const Place& place, const std::string& before, const std::string& after) {
  size_t at = 0;
  for (int line = 1; line < place.line; ++line) at = text.find('\n', at) + 1;
  at += static_cast<size_t>(place.column) - 1;
  MESHARD_CHECK(text.compare(at, before.size(), before) == 0, "a plan's layout stands where it was read");
  return text.substr(0, at) + after + text.substr(at + before.size());
}

// The bytes of the collectives that carry the value over these axes; -1: there is none.
int64_t bytes_of(const Bill& bill, const Mesh& mesh, const std::string& value, AtomSet atoms) {
  const std::string over = mesh.atoms_text(atoms);
  int64_t bytes = -1;
  for (const BillLine& l : bill.lines) {
    if (std::find(l.values.begin(), l.values.end(), value) == l.values.end() || bill.mesh.atoms_text(l.over) != over) continue;
    bytes = std::max<int64_t>(bytes, 0) + l.bytes;
  }
  return bytes;
}

}  // namespace

std::string LayoutEdit::text() const {
  if (!pattern.empty()) return fmt::format("add the line \"{} {}\"", pattern, after);
  if (before.empty()) return fmt::format("write {} behind %{}", after, value);
  return fmt::format("{}{} -> {}", role.empty() ? "" : role + " ", before, after);
}

std::vector<std::string> layouts_near(const std::string& layout, const Mesh& mesh) {
  const Entries e = Entries::parse(layout);
  std::vector<std::string> out;
  for (size_t i = 0; i < e.list.size(); ++i) {
    for (size_t k = 0; k < e.list[i].axes.size(); ++k) {
      Entries without = e;
      const std::string axis = e.list[i].axes[k];
      without.list[i].axes.erase(without.list[i].axes.begin() + static_cast<std::ptrdiff_t>(k));
      out.push_back(without.str());
      put(without, axis, i, out);
    }
  }
  for (const Axis& axis : mesh.axes()) {
    if (axis.size > 1 && !e.uses(axis.name)) put(e, axis.name, e.list.size(), out);
  }
  std::vector<std::string> distinct;
  for (std::string& s : out) {
    if (s != e.str() && std::find(distinct.begin(), distinct.end(), s) == distinct.end()) distinct.push_back(std::move(s));
  }
  return distinct;
}

std::vector<LayoutEdit> edits_of(const Program& closed, const Plan* plan, const Asked& pin) {
  std::vector<LayoutEdit> out;
  if (!pin.place.known() || pin.place.line == 0) return out;
  if (plan != nullptr && pin.place.file == plan->file()) {
    const auto [entry, role] = entry_at(*plan, pin.place);
    if (entry == nullptr) return out;
    for (std::string& after : layouts_near(entry->text, *closed.mesh)) {
      out.push_back({pin.place, entry->text, std::move(after), "", role == Role::none ? "" : std::string(name(role)), "", ""});
    }
    return out;
  }
  const Function& f = closed.functions[static_cast<size_t>(pin.function)];
  const ValueInfo& value = f.value(pin.id);
  const std::string before = value.layout->str(*closed.mesh);
  for (std::string& after : layouts_near(before, *closed.mesh)) {
    out.push_back({pin.place, before, std::move(after), "", "", f.name, value.name});
  }
  return out;
}

std::vector<LayoutEdit> edits_that_pin(const Program& closed, const Plan* plan, const std::string& name, const std::string& from, const std::string& to) {
  const Named at = find_value(closed, name);
  if (at.value == ValueId::none) return {};
  const Function& f = closed.functions[static_cast<size_t>(at.function)];
  const ValueInfo& value = f.value(at.value);
  if (value.pinned) return {};
  const Mesh& mesh = *closed.mesh;
  const Layout made = Layout::parse(from, mesh, value.type.shape.rank()), whole = made.without_pending();
  std::vector<std::string> layouts{to, whole.str(mesh)};
  for (int d = 0; d < whole.rank() && made.is_pending(); ++d) {
    Layout scattered = whole;
    for (AtomId a : made.pending_atoms().list()) scattered.dims[static_cast<size_t>(d)].atoms.push_back(a);
    layouts.push_back(scattered.str(mesh));
  }
  std::string pattern;
  if (plan != nullptr) {
    const auto prefix = prefix_of(closed, at.function);
    if (!prefix) return {};
    pattern = pattern_of(join_name(*prefix, value.name));
  }
  std::vector<LayoutEdit> out;
  for (std::string& layout : layouts) {
    LayoutEdit edit{plan != nullptr ? Place{} : value.source, "", std::move(layout), pattern, "", f.name, value.name};
    if (std::find(out.begin(), out.end(), edit) == out.end()) out.push_back(std::move(edit));
  }
  return out;
}

Edited apply(const LayoutEdit& edit, const Program& program, const Plan* plan) {
  Edited out{program, plan == nullptr ? std::nullopt : std::optional<Plan>(*plan)};
  if (plan != nullptr && !edit.pattern.empty()) {
    std::string text = plan->text();
    if (!text.empty() && text.back() != '\n') text += '\n';
    out.plan = Plan::parse(text + edit.pattern + " optional " + edit.after + "\n", plan->file());
    return out;
  }
  if (plan != nullptr && edit.place.file == plan->file()) {
    out.plan = Plan::parse(replaced(plan->text(), edit.place, edit.before, edit.after), plan->file());
    return out;
  }
  const int f = out.program.find(edit.function);
  if (f < 0) throw UserError(fmt::format("no function {}", edit.function));
  Function& function = out.program.functions[static_cast<size_t>(f)];
  const ValueId v = function.find(edit.value);
  if (v == ValueId::none) throw UserError(fmt::format("no value %{}", edit.value));
  ValueInfo& value = function.value(v);
  value.layout = Layout::parse(edit.after, *out.program.mesh, value.type.shape.rank());
  value.pinned = true;
  value.pinned_by = edit.place;
  return out;
}

void find_edits(Explanations& all, const Program& closed, const Program& program, const Plan* plan, const Replan& replan, size_t most) {
  using Key = std::tuple<std::string, int, int, std::string, std::string, std::string, std::string>;
  std::map<Key, std::optional<Bill>> bills;
  bool all_tried = true;
  const auto bill_of = [&](const LayoutEdit& edit) -> const Bill* {
    const Key key{edit.place.file, edit.place.line, edit.place.column, edit.after, edit.pattern, edit.function, edit.value};
    const auto found = bills.find(key);
    if (found != bills.end()) return found->second ? &*found->second : nullptr;
    if (bills.size() >= most) {
      all_tried = false;
      return nullptr;
    }
    auto& bill = bills[key];
    try {
      const Edited changed = apply(edit, program, plan);
      bill = replan(changed.program, changed.plan ? &*changed.plan : nullptr);
    } catch (const UserError&) {
      // Not a legal layout there.
    }
    return bill ? &*bill : nullptr;
  };
  for (Explanation& e : all.list) {
    const BillLine& line = all.lines[e.line];
    std::vector<LayoutEdit> edits;
    for (const auto* asked : {&e.from_asked, &e.to_asked}) {
      for (const Asked& pin : *asked) {
        for (LayoutEdit& edit : edits_of(closed, plan, pin)) edits.push_back(std::move(edit));
      }
    }
    for (LayoutEdit& edit : edits_that_pin(closed, plan, e.value, e.from, e.to)) edits.push_back(std::move(edit));
    all_tried = true;
    for (const LayoutEdit& edit : edits) {
      const Bill* bill = bill_of(edit);
      if (bill == nullptr) continue;
      const int64_t left = bytes_of(*bill, all.mesh, e.value, line.over);
      const bool cheaper = left < line.bytes && bill->bytes_all_devices < all.bytes_all_devices;
      // What moves as much in as many collectives only calls it by another name.
      const bool same = bill->bytes_all_devices == all.bytes_all_devices && bill->collectives() == all.collectives;
      if (same || (left >= 0 && !cheaper)) continue;
      RemovingEdit r{left < 0, edit.place, edit.text(), bill->bytes - all.bytes, bill->bytes_all_devices - all.bytes_all_devices,
                     bill->peak_bytes - all.peak_bytes, bill->flops - all.flops, bill->collectives() - all.collectives};
      const bool known = std::any_of(e.edits.begin(), e.edits.end(), [&](const RemovingEdit& x) { return x.place == r.place && x.change == r.change; });
      if (!known) e.edits.push_back(std::move(r));
    }
    e.edits_searched = all_tried;
    const auto raised = [&](const RemovingEdit& x) { return std::max<int64_t>(x.flops - all.flops / kFlopsFree, 0); };
    std::stable_sort(e.edits.begin(), e.edits.end(), [&](const RemovingEdit& a, const RemovingEdit& b) {
      return std::tuple(!a.removes, raised(a), a.bytes_all_devices, a.peak_bytes) < std::tuple(!b.removes, raised(b), b.bytes_all_devices, b.peak_bytes);
    });
    while (!e.edits.empty() && e.edits[0].removes != e.edits.back().removes) e.edits.pop_back();
    if (e.edits.size() > kKeptEdits) e.edits.resize(kKeptEdits);
  }
}

}  // namespace meshard
