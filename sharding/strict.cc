#include "meshard/sharding/strict.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace meshard {
namespace {

constexpr int64_t kWarnBytes = 1 << 20;
constexpr size_t kMostListed = 12;  // collectives with their choices in one error
constexpr size_t kMostChoices = 3;
constexpr size_t kMostEdits = 200;  // compiled to find what fits a budget

// "block_vjp_2: %x.d.1" -> "block_2: %x", the primal of a cotangent; "" if it is none.
std::string primal(const std::string& value) {
  const size_t mark = value.find('%');
  std::string function = value.substr(0, mark), name = value.substr(mark);
  if (const size_t vjp = function.find("_vjp"); vjp != function.npos) function.erase(vjp, 4);
  if (const size_t dot = name.find_last_of('.'); dot != name.npos && name.find_first_not_of("0123456789", dot + 1) == name.npos) name.resize(dot);
  if (name.size() < 4 || !name.ends_with(".d")) return "";
  return function + name.substr(0, name.size() - 2);
}

// The cotangent of what is whole over an axis may be a sum over it; of what is split, it is split alike.
bool cotangent_of(const Layout& cotangent, const Layout& value) {
  for (int d = 0; d < value.rank(); ++d) {
    if (cotangent.atoms(d) != value.atoms(d)) return false;
  }
  return (cotangent.pending_atoms() & value.split()).empty();
}

struct Change {
  Layout from, to;
};

Change change_of(const Explanations& all, const Explanation& e) {
  return {Layout::parse(e.from, all.mesh), Layout::parse(e.to, all.mesh)};
}

std::string describe(const Explanations& all, const Explanation& e) {
  const BillLine& line = all.lines[e.line];
  return fmt::format("{} over {} of {} {}, {} bytes: {} as {}, {} as {}", name(line.kind), all.mesh.atoms_text(line.over), e.value, e.type,
                     line.bytes, e.made, e.from, e.read, e.to);
}

// Whether nothing of this value moves unasked in another bill.
bool settled(const Bill& bill, const std::string& value) {
  return std::none_of(bill.lines.begin(), bill.lines.end(), [&](const BillLine& l) { return !l.asked && std::find(l.values.begin(), l.values.end(), value) != l.values.end(); });
}

std::vector<std::string> choices(const Explanations& all, const Explanation& e, const Program& closed, const Program& program, const Plan* plan,
                                 const Replan& replan) {
  std::vector<LayoutEdit> edits = edits_that_pin(closed, plan, e.value, e.from, e.to);
  for (const auto* asked : {&e.from_asked, &e.to_asked}) {
    for (const Asked& pin : *asked) {
      for (LayoutEdit& edit : edits_of(closed, plan, pin)) edits.push_back(std::move(edit));
    }
  }
  struct Choice {
    int64_t flops = 0, bytes = 0;
    std::string text;
  };
  std::vector<Choice> list;
  for (const LayoutEdit& edit : edits) {
    try {
      const Edited changed = apply(edit, program, plan);
      const Bill bill = replan(changed.program, changed.plan ? &*changed.plan : nullptr);
      if (!settled(bill, e.value)) continue;
      const std::string where = edit.place.line > 0 ? edit.place.str() + ": " : "";
      list.push_back({std::max<int64_t>(bill.flops - all.flops, 0), bill.bytes_all_devices,
                      fmt::format("{}{}: then {} bytes over all devices, now {}", where, edit.text(), bill.bytes_all_devices, all.bytes_all_devices)});
    } catch (const UserError&) {
      // Not a legal layout there.
    }
  }
  std::stable_sort(list.begin(), list.end(), [](const Choice& a, const Choice& b) { return std::tie(a.flops, a.bytes) < std::tie(b.flops, b.bytes); });
  std::vector<std::string> out;
  for (const Choice& c : list) {
    if (out.size() < kMostChoices && std::find(out.begin(), out.end(), c.text) == out.end()) out.push_back(c.text);
  }
  if (out.empty()) out.push_back(fmt::format("write a reshard of {} to {} in the program, and read its result there", e.value.substr(e.value.find('%')), e.to));
  return out;
}

[[noreturn]] void explicit_error(const Explanations& all, const std::vector<bool>& is_written, const Program& closed, const Program& program,
                                 const Plan* plan, const Replan& replan) {
  const auto count = static_cast<size_t>(std::count(is_written.begin(), is_written.end(), false));
  std::vector<std::string> notes;
  size_t listed = 0;
  for (size_t i = 0; i < all.list.size(); ++i) {
    if (is_written[i]) continue;
    if (++listed > kMostListed) break;
    notes.push_back(describe(all, all.list[i]));
    for (const std::string& choice : choices(all, all.list[i], closed, program, plan, replan)) notes.push_back("  " + choice);
  }
  if (count > kMostListed) notes.push_back(fmt::format("and {} smaller ones", count - kMostListed));
  throw UserError(fmt::format("explicit mode: {} {} neither written nor the transpose of a written one; write a line for each", count,
                              count == 1 ? "collective is" : "collectives are"),
                  notes);
}

[[noreturn]] void budget_error(int64_t budget, Explanations all, const Program& closed, const Program& program, const Plan* plan, const Replan& replan) {
  std::vector<std::string> notes;
  const size_t most = std::min<size_t>(all.list.size(), 5);
  for (size_t i = 0; i < most; ++i) notes.push_back(describe(all, all.list[i]));
  if (all.list.size() > most) notes.push_back(fmt::format("and {} smaller ones", all.list.size() - most));
  find_edits(all, closed, program, plan, replan, kMostEdits);
  std::vector<const RemovingEdit*> fitting;
  for (const Explanation& e : all.list) {
    for (const RemovingEdit& edit : e.edits) {
      const bool known = std::any_of(fitting.begin(), fitting.end(), [&](const RemovingEdit* x) { return x->place == edit.place && x->change == edit.change; });
      if (!known && edit.flops <= all.flops / 20 && all.bytes + edit.bytes <= budget) fitting.push_back(&edit);
    }
  }
  std::stable_sort(fitting.begin(), fitting.end(), [](const RemovingEdit* a, const RemovingEdit* b) { return a->peak_bytes < b->peak_bytes; });
  if (fitting.size() > kMostChoices) fitting.resize(kMostChoices);
  for (const RemovingEdit* edit : fitting) {
    const std::string where = edit->place.line > 0 ? edit->place.str() + ": " : "";
    notes.push_back(fmt::format("{}{} fits: {} bytes", where, edit->change, all.bytes + edit->bytes));
  }
  if (fitting.empty()) notes.push_back("no change of one layout fits the budget");
  throw UserError(fmt::format("the program moves {} bytes on its busiest device, over the budget of {}; {} is the least known for these layouts", all.bytes,
                              budget, all.bytes),
                  notes);
}

}  // namespace

std::vector<bool> written(const Explanations& all) {
  struct Written {
    std::string made, value;
    Change change;
  };
  std::vector<Written> list;
  for (const Explanation& e : all.list) {
    if (all.lines[e.line].asked) list.push_back({e.made_value, e.value, change_of(all, e)});
  }
  std::vector<bool> out;
  for (const Explanation& e : all.list) {
    bool good = all.lines[e.line].asked;
    const std::string of = good ? "" : primal(e.value), of_made = good ? "" : primal(e.made_value);
    const Change back = change_of(all, e);
    for (const Written& w : list) {
      if (good) break;
      const bool same = (!of.empty() && (of == w.value || of == w.made)) || (!of_made.empty() && (of_made == w.value || of_made == w.made));
      good = same && back.from.rank() == w.change.to.rank() && cotangent_of(back.from, w.change.to) && cotangent_of(back.to, w.change.from);
    }
    out.push_back(good);
  }
  return out;
}

std::vector<Diagnostic> reshard_warnings(const Explanations& all) {
  std::vector<Diagnostic> out;
  for (const Explanation& e : all.list) {
    const bool last = e.step == e.steps;  // one warning for all steps
    if (!last || e.reshard_bytes <= kWarnBytes || e.reshard_bytes <= 2 * e.reshard_lower_bound) continue;
    out.push_back({all.lines[e.line].source, fmt::format("{} {} from {} to {} receives {} where {} would do: {}, {}", e.value, e.type, e.from, e.to,
                                                         bytes_text(e.reshard_bytes), bytes_text(e.reshard_lower_bound), e.made, e.read),
                   {}});
  }
  return out;
}

void enforce(const PartitionOptions& mode, const Explanations& all, const Program& closed, const Program& program, const Plan* plan,
             const Replan& replan) {
  if (mode.mode == Mode::budget && all.bytes > mode.budget_bytes) budget_error(mode.budget_bytes, all, closed, program, plan, replan);
  if (mode.mode != Mode::explicit_only) return;
  const std::vector<bool> is_written = written(all);
  if (std::find(is_written.begin(), is_written.end(), false) != is_written.end()) explicit_error(all, is_written, closed, program, plan, replan);
}

}  // namespace meshard
