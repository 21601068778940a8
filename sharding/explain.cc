#include "meshard/sharding/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "meshard/sharding/choose.h"

namespace meshard {
namespace {

constexpr size_t kMostAlternatives = 3;  // that are named at one op

// Changes the layout of its values, that is; not one that hands blocks on round a ring.
bool is_collective(const Op& op) { return op.kind == Op::apply && op.def->collective.has_value() && op.def->identity; }
bool hands_on(const Op& op) { return op.kind == Op::apply && op.def->collective.has_value() && !op.def->identity; }

// The change of layout that a collective is a step of: from the value that was made to the one that is read.
struct Reshard {
  ValueId first = ValueId::none, last = ValueId::none;
  int step = 0, steps = 0;   // this collective among those that talk
  std::vector<int> talking;  // ops of the function
};

class Explainer {
 public:
  explicit Explainer(const ExplainInput& in)
      : in_(in), mesh_(*in.local->mesh), closed_(in.closed), local_(*in.local), uses_(in.local->functions.size()) {
    for (size_t f = 0; f < local_.functions.size(); ++f) uses_[f] = users(local_.functions[f]);
  }

  Explanation one(size_t line) {
    const BillLine& bill = in_.bill->lines[line];
    const size_t fi = static_cast<size_t>(bill.function);
    const Function& f = local_.functions[fi];
    const Op& op = f.ops[static_cast<size_t>(bill.op)];
    Explanation e;
    e.line = line;
    if (!op.def->collective) return edges(std::move(e), bill, f, op);
    std::vector<Cause> causes;
    std::vector<int64_t> moved;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      causes.push_back(cause(fi, bill.op, i, bill.count, i == 0 ? &e : nullptr));
      causes.back().value = bill.values[i];
      causes.back().made_value = bill.values[i].substr(0, bill.values[i].find('%') + 1) + causes.back().made_value;
      moved.push_back(busiest_received_elements(mesh_, f.value(op.results[i]).type.shape, step(f, op, i)));
    }
    const std::vector<int64_t> shares = shared_out(bill.bytes, moved);
    for (size_t i = 0; i < causes.size(); ++i) causes[i].bytes = shares[i];
    static_cast<Cause&>(e) = causes[0];
    e.with.assign(causes.begin() + 1, causes.end());
    for (const Cause& c : e.with) {
      e.reshard_bytes += c.reshard_bytes;
      e.reshard_lower_bound += c.reshard_lower_bound;
    }
    if (hands_on(op)) e.ring = op.cause.substr(0, op.cause.find(':'));
    const int64_t each = step_messages(mesh_, f.value(op.results[0]).type.shape, step(f, op, 0));
    e.messages = each * bill.count;
    e.nanoseconds = in_.cost.nanoseconds(mesh_, bill.kind, op.over, each, bill.bytes / std::max<int64_t>(1, bill.count)) * bill.count;
    return e;
  }

 private:
  static ReshardStep step(const Function& f, const Op& op, size_t i) {
    return step_of(*op.def->collective, op.over, *f.value(op.operands[i]).layout, *f.value(op.results[i]).layout);
  }

  // `bytes` in the proportions of `parts`, adding up to it.
  static std::vector<int64_t> shared_out(int64_t bytes, const std::vector<int64_t>& parts) {
    __int128 all = 0, sum = 0;
    for (int64_t n : parts) all += n;
    std::vector<int64_t> out;
    int64_t before = 0;
    for (int64_t n : parts) {
      sum += n;
      const auto until = static_cast<int64_t>(all == 0 ? 0 : bytes * sum / all);
      out.push_back(until - before);
      before = until;
    }
    return out;
  }

  // Why the i-th value of the message moves; `chosen` gets the op that it follows from. made_value: without its function.
  Cause cause(size_t fi, int at, size_t i, int64_t count, Explanation* chosen) {
    const Function& f = local_.functions[fi];
    const Op& op = f.ops[static_cast<size_t>(at)];
    const Reshard reshard = hands_on(op) ? turned(f, op) : chain(fi, at, i);
    Cause c;
    const ValueInfo &first = f.value(reshard.first), &last = f.value(reshard.last);
    Layout from = *first.layout, to = *last.layout;
    const std::vector<int> readers = readers_of(fi, reshard.last);
    if (hands_on(op)) before_ring(f, op, readers, from, to);
    c.type = last.type.str();
    c.from = from.str(mesh_);
    c.to = to.str(mesh_);
    c.step = reshard.step;
    c.steps = reshard.steps;
    c.made_value = std::string(base_name(first.name));
    c.made = made_by(f, reshard.first);
    c.read = read_by(fi, reshard.last);
    const int g = closed_ == nullptr ? -1 : closed_->find(f.name);
    if (g >= 0) {
      c.from_asked = asked_by(g, f, reshard.first, from, -1);
      c.to_asked = asked_by(g, f, reshard.last, to, readers.empty() ? -1 : readers[0]);
      add_lost(c, g, f, reshard, from.used() - to.used(), readers);
      if (chosen != nullptr) find_op(*chosen, g, f, readers.empty() ? -1 : readers[0]);
      if (chosen != nullptr && chosen->closed_op < 0) find_op(*chosen, g, f, first.op);
    }
    if (hands_on(op)) {
      c.reshard_bytes = c.reshard_lower_bound = busiest_received_elements(mesh_, last.type.shape, step(f, op, i)) * size_bytes(last.type.dtype) * count;
    } else {
      bound(c, f, reshard, count);
    }
    return c;
  }

  // What an op reads of its neighbours' blocks (ir/halo.h): no layout changes.
  Explanation edges(Explanation e, const BillLine& bill, const Function& f, const Op& op) const {
    const auto is_it = [&](ValueId v) { return v != ValueId::none && bill.values[0].ends_with(fmt::format("%{}", base_name(f.value(v).name))); };
    const ValueId v = *std::find_if(op.operands.begin(), op.operands.end(), is_it);
    const int g = closed_ == nullptr ? -1 : closed_->find(f.name);
    e.value = e.made_value = bill.values[0];
    e.type = f.value(v).type.str();
    e.from = e.to = f.value(v).layout->str(mesh_);
    e.made = made_by(f, v);
    e.read = "the edges of other devices' blocks, read by " + op_text(f, op);
    if (g >= 0) e.from_asked = asked_by(g, f, v, *f.value(v).layout, -1);
    if (g >= 0 && !op.results.empty()) {
      find_op(e, g, f, f.value(op.results[0]).op);
      e.to_asked = asked_by(g, f, op.results[0], *f.value(op.results[0]).layout, -1);
    }
    e.bytes = e.reshard_bytes = e.reshard_lower_bound = bill.bytes;
    e.messages = std::min<int64_t>(bill.group - 1, 2) * bill.count;
    e.nanoseconds = CostModel::nanoseconds(in_.cost.link(mesh_, bill.over), std::min<int64_t>(bill.group - 1, 2), bill.bytes / std::max<int64_t>(1, bill.count)) * bill.count;
    return e;
  }

  // Back to the block of which the turn's operand is a neighbour's.
  Reshard turned(const Function& f, const Op& op) const {
    Reshard r{op.operands[0], op.results[0], 1, 1, {}};
    while (f.value(r.first).op >= 0 && hands_on(f.ops[static_cast<size_t>(f.value(r.first).op)])) {
      r.first = f.ops[static_cast<size_t>(f.value(r.first).op)].operands[0];
    }
    return r;
  }

  // The layouts between which the ring stands: blocks that a product reads were to be gathered, others are sums that were to
  // be scattered.
  void before_ring(const Function& f, const Op& op, const std::vector<int>& readers, Layout& from, Layout& to) const {
    const bool gathers = std::any_of(readers.begin(), readers.end(), [&](int r) {
      const Op& reader = f.ops[static_cast<size_t>(r)];
      return reader.kind == Op::apply && reader.def->by_blocks != nullptr;
    });
    Layout& whole = gathers ? to : from;
    for (DimLayout& dim : whole.dims) {
      Atoms left;
      for (AtomId atom : dim.atoms) {
        if (!op.over.has(atom)) left.push_back(atom);
      }
      dim.atoms = left;
    }
    if (!gathers) whole.pending_of(Reduction::sum) = whole.pending_of(Reduction::sum) | op.over;
  }

  // The ops that read a value, but those that only wait for it or hand it on round a ring.
  std::vector<int> readers_of(size_t fi, ValueId v) const {
    std::vector<int> out;
    for (int r : uses_[fi][index(v)]) {
      const Op& op = local_.functions[fi].ops[static_cast<size_t>(r)];
      if (op.kind != Op::wait && !hands_on(op)) out.push_back(r);
    }
    return out;
  }

  // The op of the closed program that a local one is.
  void find_op(Explanation& e, int g, const Function& f, int local_op) const {
    if (local_op < 0 || f.ops[static_cast<size_t>(local_op)].kind != Op::apply) return;
    const Op& op = f.ops[static_cast<size_t>(local_op)];
    if (op.results.empty() || op.def->identity) return;
    const ValueId v = global(g, f.value(op.results[0]).name);
    if (v == ValueId::none) return;
    e.closed_function = g;
    e.closed_op = closed_->functions[static_cast<size_t>(g)].value(v).op;
  }

  // Of which operand of its collective a value is the result.
  static ValueId operand_of(const Function& f, ValueId v) {
    const Op& op = f.ops[static_cast<size_t>(f.value(v).op)];
    return op.operands[static_cast<size_t>(std::find(op.results.begin(), op.results.end(), v) - op.results.begin())];
  }

  Reshard chain(size_t fi, int op, size_t i) const {
    const Function& f = local_.functions[fi];
    Reshard r;
    r.first = f.ops[static_cast<size_t>(op)].operands[i];
    while (f.value(r.first).op >= 0 && is_collective(f.ops[static_cast<size_t>(f.value(r.first).op)])) r.first = operand_of(f, r.first);
    // Forward as long as nobody but the next step reads.
    r.last = f.ops[static_cast<size_t>(op)].results[i];
    while (true) {
      const std::vector<int> readers = readers_of(fi, r.last);
      const bool returned = std::any_of(f.returns.begin(), f.returns.end(), [&](const Return& x) { return x.value == r.last; });
      if (returned || readers.size() != 1 || !is_collective(f.ops[static_cast<size_t>(readers[0])])) break;
      const Op& next = f.ops[static_cast<size_t>(readers[0])];
      r.last = next.results[static_cast<size_t>(std::find(next.operands.begin(), next.operands.end(), r.last) - next.operands.begin())];
    }
    for (ValueId v = r.last; v != r.first; v = operand_of(f, v)) {
      const int made = f.value(v).op;
      if (*f.ops[static_cast<size_t>(made)].def->collective != Collective::slice) r.talking.push_back(made);
    }
    std::reverse(r.talking.begin(), r.talking.end());
    r.steps = static_cast<int>(r.talking.size());
    r.step = static_cast<int>(std::find(r.talking.begin(), r.talking.end(), op) - r.talking.begin()) + 1;
    return r;
  }

  std::string op_text(const Function& f, const Op& op) const {
    std::string s;
    if (op.kind == Op::wait) return "wait";
    if (op.kind != Op::apply) {
      s = fmt::format("call {}", op.prefix.empty() ? local_.functions[static_cast<size_t>(op.callee)].name : op.prefix);
    } else {
      s = std::string(op.def->name);
      for (size_t i = 0; i < op.operands.size(); ++i) s += fmt::format("{} %{}", i ? "," : "", f.value(op.operands[i]).name);
    }
    if (op.source.known()) s += fmt::format(" ({})", op.source.str());
    return s;
  }

  std::string made_by(const Function& f, ValueId v) const {
    const ValueInfo& value = f.value(v);
    if (value.op >= 0) return "made by " + op_text(f, f.ops[static_cast<size_t>(value.op)]);
    const bool is_main = &f == &local_.main();
    if (!is_main) return fmt::format("%{}, an argument of {}", value.name, f.name);
    const int p = f.param_index(v);
    const auto kind = p < 0 ? ParamInfo::input : f.param_info[static_cast<size_t>(p)].kind;
    return kind == ParamInfo::param ? "a parameter, as it is stored" : kind == ParamInfo::state ? "the optimizer's state" : "an input";
  }

  std::string read_by(size_t fi, ValueId v) const {
    const Function& f = local_.functions[fi];
    const std::vector<int> readers = readers_of(fi, v);
    std::string out;
    if (!readers.empty()) {
      out = "read by " + op_text(f, f.ops[static_cast<size_t>(readers[0])]);
      std::vector<int> distinct = readers;
      distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
      if (distinct.size() > 1) out += fmt::format(" and {} more", distinct.size() - 1);
    }
    for (const Return& r : f.returns) {
      if (r.value != v) continue;
      out += out.empty() ? "" : "; ";
      out += fmt::format("{} returns it", fi + 1 == local_.functions.size() ? "the program" : f.name);
      if (r.in_place != ValueId::none) out += fmt::format(" in place of %{}", f.value(r.in_place).name);
      break;
    }
    return out.empty() ? "read by nobody" : out;
  }

  // The value of the closed program that a local one is a copy of.
  ValueId global(int g, const std::string& local_name) const {
    if (g < 0) return ValueId::none;
    return closed_->functions[static_cast<size_t>(g)].find(base_name(local_name));
  }

  std::string full_name(int g, ValueId v) const {
    const Function& f = closed_->functions[static_cast<size_t>(g)];
    const bool is_main = g + 1 == static_cast<int>(closed_->functions.size());
    return is_main ? fmt::format("%{}", f.value(v).name) : fmt::format("{}: %{}", f.name, f.value(v).name);
  }

  // The pinned value from which `atom` came to value v of function g; none: nobody knows.
  std::optional<Asked> root(int g, ValueId v, AtomId atom, int* far = nullptr) const {
    constexpr int kMostHops = 100'000;
    for (int hops = 0; hops < kMostHops; ++hops) {
      if (far != nullptr) *far = hops;
      const Origin* origin = in_.origins == nullptr ? nullptr : in_.origins->find(g, v, atom);
      if (origin == nullptr || origin->function < 0) break;
      g = origin->function;
      v = origin->from;
    }
    const ValueInfo& info = closed_->functions[static_cast<size_t>(g)].value(v);
    if (!info.pinned || !info.layout || !info.layout->used().has(atom)) return std::nullopt;
    return Asked{"", full_name(g, v), info.pinned_by, g, v, false, false};
  }

  // Adds the atom to the entry of the pin that put it there.
  void add(std::vector<Asked>& list, Asked pin, AtomId atom) const {
    pin.axes = mesh_.axis_of(atom).name;
    for (const Asked& a : list) {
      if (a.place == pin.place && a.value == pin.value && a.axes == pin.axes) return;
    }
    list.push_back(std::move(pin));
  }

  // The pins behind a layout of local value v, which may be another than its own: its own, or those of its axes; where propagation gave none, an axis comes from
  // another tensor of the op that makes or reads it.
  std::vector<Asked> asked_by(int g, const Function& f, ValueId v, const Layout& layout, int reader) const {
    std::vector<Asked> list;
    const ValueInfo& value = f.value(v);
    const ValueId at = global(g, value.name);
    if (at == ValueId::none) return list;
    const ValueInfo& info = closed_->functions[static_cast<size_t>(g)].value(at);
    if (info.pinned && info.layout && info.layout->closed() == layout) {
      list.push_back({"", full_name(g, at), info.pinned_by, g, at, false, false});
      return list;
    }
    for (AtomId atom : layout.split().list()) {
      if (auto pin = find_root(g, f, v, reader, atom)) add(list, std::move(*pin), atom);
    }
    for (AtomId atom : layout.pending_atoms().list()) {
      auto pin = pending_root(g, f, v, atom);
      if (!pin) continue;
      for (Reduction kind : {Reduction::max, Reduction::min}) {
        if (layout.pending_of(kind).has(atom)) pin->reduction = kind;
      }
      add(list, std::move(*pin), atom);
    }
    return list;
  }

  std::optional<Asked> find_root(int g, const Function& f, ValueId v, int reader, AtomId atom) const {
    const ValueId at = global(g, f.value(v).name);
    if (at != ValueId::none) {
      const ValueInfo& info = closed_->functions[static_cast<size_t>(g)].value(at);
      if (info.layout && info.layout->split().has(atom)) {
        if (auto pin = root(g, at, atom)) return pin;
      }
    }
    const int op = reader >= 0 ? reader : f.value(v).op;
    return op < 0 ? std::nullopt : other_root(g, f, f.ops[static_cast<size_t>(op)], v, atom);
  }

  // Whence another tensor of `op` has the atom: of several the one whose pin is nearest.
  std::optional<Asked> other_root(int g, const Function& f, const Op& op, ValueId except, AtomId atom) const {
    std::optional<Asked> nearest;
    int least = 0;
    for (const auto* list : {&op.operands, &op.results}) {
      for (ValueId v : *list) {
        if (v == ValueId::none || v == except || !f.value(v).layout->split().has(atom)) continue;
        const ValueId at = global(g, f.value(v).name);
        if (at == ValueId::none) continue;
        const ValueInfo& info = closed_->functions[static_cast<size_t>(g)].value(at);
        if (!info.layout || !info.layout->split().has(atom)) continue;
        int far = 0;
        auto pin = root(g, at, atom, &far);
        if (!pin || (nearest && far >= least)) continue;
        nearest = std::move(pin);
        least = far;
      }
    }
    return nearest;
  }

  // Back through the ops that pass a sum on, the calls that return it and those that hand it in, to an op of which a split
  // factor became the sum.
  std::optional<Asked> pending_root(int g, const Function& f, ValueId v, AtomId atom) const {
    std::set<std::pair<const Function*, ValueId>> seen;
    auto pin = pending_root(g, f, v, atom, seen);
    if (pin) pin->pending = true;
    return pin;
  }

  std::optional<Asked> pending_root(int g, const Function& f, ValueId v, AtomId atom, std::set<std::pair<const Function*, ValueId>>& seen) const {
    if (g < 0 || !seen.insert({&f, v}).second) return std::nullopt;
    const int made = f.value(v).op;
    if (made < 0) {
      const ValueId at = global(g, f.value(v).name);
      if (auto pin = at == ValueId::none ? std::nullopt : root(g, at, atom)) return pin;
      return handed_in(f, v, atom, seen);
    }
    const Op& op = f.ops[static_cast<size_t>(made)];
    if (op.kind == Op::wait) return std::nullopt;
    if (op.kind != Op::apply) {
      // What a call returns: on inside the function.
      const Function& inner = local_.functions[static_cast<size_t>(op.callee)];
      const auto r = std::find(op.results.begin(), op.results.end(), v) - op.results.begin();
      return pending_root(closed_->find(inner.name), inner, inner.returns[static_cast<size_t>(r)].value, atom, seen);
    }
    bool passed = false;
    for (size_t o = op.operands.size(); o-- > 0;) {
      if (!f.value(op.operands[o]).layout->pending_atoms().has(atom)) continue;
      passed = true;
      if (auto pin = pending_root(g, f, op.operands[o], atom, seen)) return pin;
    }
    return passed ? std::nullopt : other_root(g, f, op, v, atom);
  }

  // Of a parameter of f: of the first argument that tells.
  std::optional<Asked> handed_in(const Function& f, ValueId v, AtomId atom, std::set<std::pair<const Function*, ValueId>>& seen) const {
    const int p = f.param_index(v);
    for (const Function& caller : local_.functions) {
      for (const Op& op : caller.ops) {
        if (op.callee < 0 || &local_.functions[static_cast<size_t>(op.callee)] != &f || p < 0) continue;
        const ValueId argument = op.operands[static_cast<size_t>(p)];
        if (argument == ValueId::none) continue;
        if (auto pin = pending_root(closed_->find(caller.name), caller, argument, atom, seen)) return pin;
      }
    }
    return std::nullopt;
  }

  // Where the reader takes an axis away: the tensor of the reader that has it on another of its dimensions.
  void add_lost(Cause& e, int g, const Function& f, const Reshard& r, AtomSet lost, const std::vector<int>& readers) const {
    if (readers.empty() || !e.to_asked.empty()) return;
    const Op& reader = f.ops[static_cast<size_t>(readers[0])];
    for (AtomId atom : lost.list()) {
      auto pin = other_root(g, f, reader, r.last, atom);
      if (!pin) continue;
      pin->elsewhere = true;
      add(e.to_asked, std::move(*pin), atom);
    }
  }

  // The bytes of all steps, and the least that any way from the first layout to the last one takes: without a reduction what the
  // busiest device needs and lacks; with one the planner's own steps, which start from these two layouts alone.
  void bound(Cause& e, const Function& f, const Reshard& r, int64_t count) const {
    const ValueInfo &first = f.value(r.first), &last = f.value(r.last);
    const int64_t scale = size_bytes(last.type.dtype) * count;
    for (int at : r.talking) {
      const Op& op = f.ops[static_cast<size_t>(at)];
      // Of this value's part of a message, which is all of it but where several are carried.
      ValueId v = r.last;
      while (f.value(v).op != at) v = operand_of(f, v);
      const ReshardStep step = step_of(*op.def->collective, op.over, *f.value(operand_of(f, v)).layout, *f.value(v).layout);
      e.reshard_bytes += busiest_received_elements(mesh_, last.type.shape, step) * scale;
    }
    if (!first.layout->is_pending()) {
      e.reshard_lower_bound = lower_bound_elements(mesh_, last.type.shape, *first.layout, *last.layout) * scale;
    } else if (!reshard_obstacle(mesh_, *first.layout, *last.layout).empty()) {
      e.reshard_lower_bound = e.reshard_bytes;
    } else {
      for (const ReshardStep& step : plan_reshard(mesh_, last.type.shape, *first.layout, *last.layout)) {
        e.reshard_lower_bound += busiest_received_elements(mesh_, last.type.shape, step) * scale;
      }
    }
  }

  const ExplainInput& in_;
  const Mesh& mesh_;
  const Program* closed_;  // may be null
  const Program& local_;
  std::vector<std::vector<std::vector<int>>> uses_;
};

}  // namespace

Explanations explain(const ExplainInput& input) {
  const Bill& bill = *input.bill;
  Explanations out;
  out.mesh = bill.mesh;
  out.bytes = bill.bytes;
  out.bytes_all_devices = bill.bytes_all_devices;
  out.collectives = bill.collectives();
  out.peak_bytes = bill.peak_bytes;
  out.flops = bill.flops;
  out.lines = bill.lines;
  Explainer explainer(input);
  for (size_t i = 0; i < bill.lines.size(); ++i) {
    if (bill.lines[i].bytes < input.least_bytes) continue;
    out.list.push_back(explainer.one(i));
    out.messages += out.list.back().messages;
    out.nanoseconds += out.list.back().nanoseconds;
  }
  std::stable_sort(out.list.begin(), out.list.end(),
                   [&](const Explanation& a, const Explanation& b) { return bill.lines[a.line].bytes > bill.lines[b.line].bytes; });
  return out;
}

void find_alternatives(Explanations& all, const Program& closed, size_t most) {
  if (most == 0 || all.list.empty()) return;
  const Choices taken = choose(closed);
  std::map<std::pair<int, int>, std::vector<NotTaken>> done;
  for (Explanation& e : all.list) {
    if (e.closed_op < 0) continue;
    const std::pair at(e.closed_function, e.closed_op);
    if (!done.count(at)) {
      if (done.size() == most) continue;
      const OpChoice& chosen = taken.functions[static_cast<size_t>(at.first)].ops[static_cast<size_t>(at.second)];
      for (const Alternative& a : alternatives(closed, at.first, at.second)) {
        if (a.choice.operands == chosen.operands && a.choice.results == chosen.results) continue;
        // Of those that cost alike, the first; one that costs what was chosen says nothing.
        std::vector<NotTaken>& list = done[at];
        const int64_t more = a.bytes - taken.bytes;
        if (more > (list.empty() ? 0 : list.back().bytes_all_devices) && list.size() < kMostAlternatives) list.push_back({a.text, more});
      }
      done.try_emplace(at);
    }
    e.not_taken = done[at];
  }
}

}  // namespace meshard
