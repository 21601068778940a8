#include "meshard/sharding/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "meshard/sharding/bill.h"
#include "meshard/sharding/choose.h"

namespace meshard {
namespace {

class Partitioner {
 public:
  Partitioner(const Program& program, const Origins* origins)
      : in_(program), mesh_(*program.mesh), origins_(origins), choices_(choose(program)), done_(program.functions.size(), -1) {
    out_.table = program.table;
    out_.mesh = program.mesh;
  }

  Program run() {
    function(static_cast<int>(in_.functions.size()) - 1);
    return std::move(out_);
  }

  // Index in the output of input function f, which is written at its first call, for all.
  int function(int f);

  const Program& in_;
  const Mesh& mesh_;
  const Origins* origins_;
  const Choices choices_;
  Program out_;
  std::vector<int> done_;
};

// One function's partitioned form, while it is being written.
class FunctionPartitioner {
 public:
  FunctionPartitioner(Partitioner& parent, int function)
      : parent_(parent), index_(function), in_(parent.in_.functions[static_cast<size_t>(function)]), mesh_(parent.mesh_),
        choice_(parent.choices_.functions[static_cast<size_t>(function)]), users_(users(in_)), roots_(in_.values.size()), copies_(in_.values.size()) {
    out_.name = in_.name;
    out_.param_info = in_.param_info;
    for (size_t v = 0; v < roots_.size(); ++v) roots_[v] = ValueId(static_cast<int32_t>(v));
    returned_.resize(in_.values.size());
    for (const Return& r : in_.returns) returned_[index(r.value)] = true;
  }

  Function run() {
    for (size_t p = 0; p < in_.params.size(); ++p) {
      const ValueInfo& v = in_.value(in_.params[p]);
      out_.params.push_back(add_value(v, v.name, choice_.params[p], -1));
      copies_[index(in_.params[p])] = {out_.params.back()};
    }
    for (ParamInfo& info : out_.param_info) {
      if (info.of != ValueId::none) info.of = copies_[index(info.of)][0];
    }
    for (const Op& op : in_.ops) {
      op_ = &op;
      switch (op.kind) {
        case Op::apply: apply(op); break;
        case Op::call:
        case Op::repeat: call(op); break;
        case Op::wait: throw UserError(op.source, "wait belongs to a local program; partition takes a global one");
      }
    }
    op_ = nullptr;
    finish();
    return std::move(out_);
  }

 private:
  const Type& type(ValueId v) const { return in_.value(v).type; }
  const Layout& layout(ValueId out) const { return *out_.value(out).layout; }

  ValueId add_value(const ValueInfo& like, std::string name, const Layout& layout, int op) {
    ValueInfo v = like;
    v.name = std::move(name);
    v.layout = layout;
    v.pinned = false;
    v.op = op;
    out_.values.push_back(std::move(v));
    return ValueId(static_cast<int32_t>(out_.values.size()) - 1);
  }

  std::string copy_name(ValueId v) {
    const auto role = role_names_.find(index(v));
    return fmt::format("{}@{}", role != role_names_.end() ? role->second : in_.value(v).name, ++copy_count_[index(v)]);
  }

  std::string text(const Layout& l) const { return l.str(mesh_); }

  // Why a reshard stands where it does, in one sentence.
  std::string cause(ValueId v, const Layout& from, const Layout& to, std::string_view reader) const {
    const ValueInfo& value = in_.value(v);
    std::string made = "it is an argument";
    if (value.op >= 0) made = fmt::format("it is made by {}", op_text(in_.ops[static_cast<size_t>(value.op)]));
    std::string who;
    if (parent_.origins_ != nullptr) {
      for (AtomId a : (to.split() - from.split()).list()) {
        who += fmt::format("; {} on it comes from {}", mesh_.axis_of(a).name, parent_.origins_->source(parent_.in_, index_, v, a));
        break;
      }
    }
    return fmt::format("{} as {}; {} as {}{}", reader, text(to), made, text(from), who);
  }

  std::string op_text(const Op& op) const {
    if (op.kind != Op::apply) return fmt::format("call {} as {}", parent_.in_.functions[static_cast<size_t>(op.callee)].name, op.prefix);
    std::string s = std::string(op.def->name);
    for (size_t i = 0; i < op.operands.size(); ++i) s += fmt::format("{} %{}", i ? "," : "", in_.value(op.operands[i]).name);
    if (op.source.known()) s += fmt::format(" ({})", op.source.str());
    return s;
  }

  void refuse(ValueId v, const Layout& from, const Layout& to) const {
    const std::string why_not = reshard_obstacle(mesh_, from, to);
    if (!why_not.empty()) throw UserError(in_.value(v).source, fmt::format("%{}: {}", in_.value(v).name, why_not));
  }

  // Appends the steps from one copy to `to`; the last value is called `name` (empty: the next X@k).
  ValueId emit_steps(ValueId v, ValueId from, const Layout& to, const std::string& name, const std::string& why) {
    refuse(v, layout(from), to);
    const std::vector<ReshardStep> steps = plan_reshard(mesh_, type(v).shape, layout(from), to);
    ValueId last = from;
    for (size_t i = 0; i < steps.size(); ++i) {
      const bool is_last = i + 1 == steps.size();
      Op op;
      op.def = &parent_.in_.table->collective(steps[i].kind);
      op.operands = {last};
      op.over = steps[i].over;
      op.source = op_ != nullptr ? op_->source : in_.value(v).source;
      op.cause = why;
      op.asked = asked_;
      if (op_ != nullptr) op.guard = op_->guard;
      last = add_value(in_.value(v), is_last && !name.empty() ? name : copy_name(v), steps[i].to, static_cast<int>(out_.ops.size()));
      op.results = {last};
      out_.ops.push_back(std::move(op));
    }
    return last;
  }

  // The value that v is, through roles that change nothing.
  ValueId root(ValueId v) const { return roots_[index(v)]; }

  // A value made by an op without operands is made anew wherever another layout of it is read.
  bool remade(ValueId v) const {
    const int op = in_.value(root(v)).op;
    if (op < 0) return false;
    const Op& maker = in_.ops[static_cast<size_t>(op)];
    return maker.kind == Op::apply && maker.operands.empty();
  }

  ValueId remake(ValueId v, const Layout& to) {
    Op op = in_.ops[static_cast<size_t>(in_.value(v).op)];
    const bool first = copies_[index(v)].empty();
    const ValueId made = add_value(in_.value(v), first ? in_.value(v).name : copy_name(v), to, static_cast<int>(out_.ops.size()));
    op.results = {made};
    out_.ops.push_back(std::move(op));
    copies_[index(v)].push_back(made);
    return made;
  }

  // A copy of v in layout `to`, made where there is none, from the copy that `choose` says. What is not shared is made from v itself.
  ValueId fetch(ValueId v, const Layout& to, const std::string& why, const std::string& name = "", bool shared = true) {
    v = root(v);
    auto& copies = copies_[index(v)];
    for (ValueId c : copies) {
      if (layout(c) == to) return c;
    }
    if (remade(v)) return to.is_pending() && !zero(v) ? take_part(v, remake(v, to.without_pending()), to, name) : remake(v, to);
    ValueId from = copies[0];
    const auto& plan = choice_.copies[index(v)];
    for (const CopyChoice& c : plan) {
      if (shared && c.layout == to && c.parent >= 0) from = fetch(v, plan[static_cast<size_t>(c.parent)].layout, why);
    }
    const ValueId made = emit_steps(v, from, to, name, cause(v, layout(from), to, why));
    if (shared) copies_[index(v)].push_back(made);
    return made;
  }

  // `needed` without the sums that a whole value gives at no cost when it is taken in parts (ReshardCosts::before_part).
  Layout before_part(ValueId v, const Layout& needed) const {
    Layout whole = needed;
    AtomSet used = whole.split();
    const auto& copies = copies_[index(root(v))];
    if (!copies.empty()) used = used | (layout(copies[0]).used() - layout(copies[0]).split());
    AtomSet& sums = whole.pending_of(Reduction::sum);
    sums = sums & used;
    return whole;
  }

  // As fetch; a sum that the value is whole for is taken in parts: all on the first device, zeros on the others.
  ValueId fetch_part(ValueId v, const Layout& to, const std::string& why, const std::string& name = "", bool shared = true) {
    v = root(v);
    if (copies_[index(v)].empty() && zero(v)) return fetch(v, to, why, name, shared);
    const Layout whole = before_part(v, to);
    if (whole == to) return fetch(v, to, why, name, shared);
    for (ValueId c : copies_[index(v)]) {
      if (layout(c) == to) return c;
    }
    return take_part(v, fetch(v, whole, why, "", shared), to, name);
  }

  // All of the copy `from` on the first device of each sum of `to` that it is whole for, zeros on the others.
  ValueId take_part(ValueId v, ValueId from, const Layout& to, const std::string& name) {
    Layout before = to;
    before.pending_of(Reduction::sum) = layout(from).pending_of(Reduction::sum);
    refuse(v, layout(from), before);
    Op op;
    op.def = &parent_.in_.table->collective(Collective::slice);
    op.operands = {from};
    op.over = to.pending_of(Reduction::sum) - layout(from).pending_of(Reduction::sum);
    op.source = op_ != nullptr ? op_->source : in_.value(v).source;
    if (op_ != nullptr) op.guard = op_->guard;
    const ValueId part = add_value(in_.value(v), name.empty() ? copy_name(v) : name, to, static_cast<int>(out_.ops.size()));
    op.results = {part};
    out_.ops.push_back(std::move(op));
    copies_[index(v)].push_back(part);
    return part;
  }

  // Whether v is a constant of zeros, which may be called a pending sum over anything.
  bool zero(ValueId v) const {
    const int op = in_.value(v).op;
    if (op < 0) return false;
    const Op& maker = in_.ops[static_cast<size_t>(op)];
    return maker.kind == Op::apply && maker.def->zero_if_value0 && maker.attributes.number("value") == 0;
  }

  void apply(const Op& op) {
    if (op.def->collective) {
      throw UserError(op.source, fmt::format("{} is an op of local programs; in a global one write reshard and a layout", op.def->name));
    }
    if (op.def->identity) return identity(op);
    if (op.operands.empty()) return;  // made where it is read
    const OpChoice& choice = choice_.ops[static_cast<size_t>(&op - in_.ops.data())];
    Op local = op;
    const std::string reader = fmt::format("{} reads %{{}}", op_text(op));
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const std::string why = fmt::format(fmt::runtime(reader), in_.value(op.operands[i]).name);
      local.operands[i] = choice.parts ? fetch_part(op.operands[i], choice.operands[i], why) : fetch(op.operands[i], choice.operands[i], why);
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      const ValueId v = op.results[r];
      local.results[r] = add_value(in_.value(v), in_.value(v).name, choice.results[r], static_cast<int>(out_.ops.size()));
      copies_[index(v)] = {local.results[r]};
    }
    out_.ops.push_back(std::move(local));
    for (ValueId v : op.results) settle(v);
  }

  // What is pinned is brought there at once, and that copy is what readers see.
  void settle(ValueId v) {
    const ValueInfo& info = in_.value(v);
    if (!info.pinned || copies_[index(v)].empty() || layout(copies_[index(v)][0]) == *info.layout) return;
    asked_ = true;
    const ValueId pinned = fetch_part(v, *info.layout, fmt::format("%{} is laid out", info.name));
    asked_ = false;
    copies_[index(v)] = {pinned};
  }

  // use, grad, reshard and the like: the operand in the result's layout, under the result's name.
  void identity(const Op& op) {
    const ValueId from = root(op.operands[0]), to = op.results[0];
    const ValueInfo& info = in_.value(to);
    if (copies_[index(from)].empty()) fetch(from, *in_.value(from).layout, "");
    ValueId copy = copies_[index(from)][0];
    if (info.pinned) {
      // A role's copy is its own: what is gathered in the forward pass is not held for the backward one.
      const std::string why = fmt::format("{} is laid out", op.def->role == Role::none ? "%" + info.name : fmt::format("the {} of %{}", name(op.def->role), in_.value(from).name));
      asked_ = true;
      copy = fetch_part(from, *info.layout, why, info.name, op.def->role == Role::none);
      asked_ = false;
      copies_[index(to)] = {copy};
    } else {  // with no layout of its own, it is what its operand is; a role that nobody gave reduces nothing
      roots_[index(to)] = from;
    }
    // A vanished role hands its name on where the operand was made for nothing else, so that results keep their names. What a call
    // gives is called as its function returns it.
    ValueInfo& held = out_.value(copy);
    const bool may_rename = held.op >= 0 && out_.ops[static_cast<size_t>(held.op)].kind == Op::apply;
    if (may_rename && held.name == in_.value(from).name && users_[index(from)].size() == 1 && !returned_[index(from)] &&
        out_.find(info.name) == ValueId::none && !waits_for_readers(op)) {
      held.name = role_names_[index(from)] = info.name;
    }
  }

  // Whether the role's result is returned in place of what is read between its operand's maker and the role.
  bool waits_for_readers(const Op& role) const {
    const auto at = static_cast<size_t>(&role - in_.ops.data());
    const int made = in_.value(root(role.operands[0])).op;
    for (const Return& r : in_.returns) {
      if (r.value != role.results[0] || r.in_place == ValueId::none) continue;
      for (size_t i = static_cast<size_t>(made + 1); i < at; ++i) {
        const auto& operands = in_.ops[i].operands;
        if (std::find(operands.begin(), operands.end(), r.in_place) != operands.end()) return true;
      }
    }
    return false;
  }

  void call(const Op& op) {
    Op local = op;
    local.callee = parent_.function(op.callee);
    const Function& callee = parent_.out_.functions[static_cast<size_t>(local.callee)];
    for (size_t a = 0; a < op.operands.size(); ++a) {
      if (op.operands[a] == ValueId::none) continue;
      const Layout wanted = *callee.value(callee.params[a]).layout;
      local.operands[a] = fetch_part(op.operands[a], wanted, fmt::format("call {} reads %{}", op.prefix, in_.value(op.operands[a]).name));
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      const ValueId v = op.results[r];
      local.results[r] = add_value(in_.value(v), in_.value(v).name, *callee.value(callee.returns[r].value).layout, static_cast<int>(out_.ops.size()));
      copies_[index(v)] = {local.results[r]};
    }
    out_.ops.push_back(std::move(local));
    for (ValueId v : op.results) settle(v);
  }

  void finish() {
    const bool is_main = &in_ == &parent_.in_.main();
    for (size_t i = 0; i < in_.returns.size(); ++i) {
      const Return& r = in_.returns[i];
      const ValueInfo& info = in_.value(r.value);
      if (copies_[index(root(r.value))].empty()) {
        const Layout made = is_main || info.pinned || r.in_place != ValueId::none ? info.layout->without_pending() : choice_.returns[i];
        fetch_part(r.value, made, "");
      }
      Layout target = layout(copies_[index(root(r.value))][0]);
      ValueId in_place = ValueId::none;
      if (r.in_place != ValueId::none) {
        in_place = copies_[index(r.in_place)][0];
        target = layout(in_place);
        asked_ = true;
      } else if (info.pinned) {
        target = *info.layout;
        asked_ = true;
      } else if (!is_main) {
        target = choice_.returns[i];
      } else if (target.is_pending()) {
        target = reduced(r.value);
      }
      const std::string why = is_main ? "the program returns it" : fmt::format("{} returns it", in_.name);
      ValueId value = fetch_part(r.value, target, why);
      asked_ = false;
      value = keep_role(r.value, value);
      out_.returns.push_back({value, in_place});
    }
    // Constants that nobody read do not come back; nothing else is dropped.
  }

  // What main returns pending: the copy without sums that `choose` planned for it.
  Layout reduced(ValueId v) {
    const Layout made = layout(copies_[index(root(v))][0]).without_pending();
    const Layout wanted = in_.value(root(v)).layout->without_pending();
    for (const CopyChoice& c : choice_.copies[index(root(v))]) {
      if (c.layout == wanted) return wanted;
    }
    return made;
  }

  // A role that changes nothing stays, as a line without effect, where its result is returned: callers bind by its name.
  ValueId keep_role(ValueId v, ValueId copy) {
    const int op = in_.value(v).op;
    if (op < 0 || in_.ops[static_cast<size_t>(op)].kind != Op::apply || !in_.ops[static_cast<size_t>(op)].def->identity) return copy;
    if (base_name(out_.value(copy).name) == in_.value(v).name) return copy;
    Op kept = in_.ops[static_cast<size_t>(in_.value(v).op)];
    kept.operands = {copy};
    kept.results = {add_value(in_.value(v), in_.value(v).name, layout(copy), static_cast<int>(out_.ops.size()))};
    out_.ops.push_back(kept);
    return kept.results[0];
  }

  Partitioner& parent_;
  int index_;
  const Function& in_;
  const Mesh& mesh_;
  const FunctionChoice& choice_;
  std::vector<std::vector<int>> users_;
  std::vector<ValueId> roots_;
  std::vector<std::vector<ValueId>> copies_;  // of each value of the input, in the output; [0] as made or pinned
  std::map<size_t, int> copy_count_;
  std::map<size_t, std::string> role_names_;  // of values that are called as the role that vanished
  std::vector<bool> returned_;
  Function out_;
  const Op* op_ = nullptr;
  bool asked_ = false;  // the reshard at hand is written: a role, a pinned value, an in-place return
};

int Partitioner::function(int f) {
  int& done = done_[static_cast<size_t>(f)];
  if (done < 0) {
    Function made = FunctionPartitioner(*this, f).run();
    out_.functions.push_back(std::move(made));  // after the functions it calls
    done = static_cast<int>(out_.functions.size()) - 1;
  }
  return done;
}

}  // namespace

PartitionOptions parse_mode(std::string_view text) {
  if (text == "auto") return {};
  if (text == "explicit") return {Mode::explicit_only, 0};
  if (text.starts_with("budget=")) {
    int64_t bytes = 0;
    const std::string_view digits = text.substr(7);
    const bool numeric = !digits.empty() && digits.size() < 18 && digits.find_first_not_of("0123456789") == digits.npos;
    for (char c : numeric ? digits : std::string_view()) bytes = bytes * 10 + (c - '0');
    if (numeric) return {Mode::budget, bytes};
  }
  throw UserError(fmt::format("--mode is \"{}\"; write auto, explicit, or budget=BYTES (a whole number)", text));
}

Program partition(const Program& program, const Origins* origins) {
  if (!program.mesh) throw UserError("partition needs a mesh; write a line \"mesh data=2, model=2\" or give --mesh");
  return Partitioner(program, origins).run();
}

}  // namespace meshard
