#include "meshard/ir/mixed.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "meshard/ir/trace.h"

namespace meshard {
namespace {

using Flags = std::vector<bool>;

// A function for one kind of call: which arguments are narrow, which results are wanted in f32.
struct Version {
  enum class Mode : uint8_t { leave, wide, narrow };  // what an op computes in

  int function = 0;
  Flags narrow;             // of each value
  std::vector<Mode> modes;  // of each op
  std::vector<int> callees;  // of each op: a version, or -1
  Flags returns;            // narrow
  int made = -1;            // its function in the program that is made
};

class Mixer {
 public:
  Mixer(const Program& program, const MixedOptions& options) : in_(program), options_(options) {
    out_.table = program.table;
    out_.mesh = program.mesh;
    out_.signatures = program.signatures;
    for (const Function& f : program.functions) {
      for (const ValueInfo& v : f.values) names_.insert(v.name);
    }
  }

  Program run() {
    const int main = static_cast<int>(in_.functions.size()) - 1;
    Flags args;
    for (ValueId p : in_.main().params) args.push_back(in_.main().value(p).type.dtype == options_.narrow);
    const Flags wanted(in_.main().returns.size(), true);
    const int version = find_version(main, args, wanted, "");
    check_patterns();
    emit(version);
    return std::move(out_);
  }

 private:
  using Mode = Version::Mode;

  const Function& source(int f) const { return in_.functions[static_cast<size_t>(f)]; }
  bool is_main(int f) const { return f + 1 == static_cast<int>(in_.functions.size()); }
  // Takes part: f32, or narrow as it was written.
  bool mixes(Dtype dtype) const { return dtype == Dtype::f32 || dtype == options_.narrow; }
  bool mixes(const ValueInfo& v) const { return mixes(v.type.dtype); }

  // What --keep-f32 names among the values of f under a prefix, and of what it calls.
  struct Kept {
    Flags values;
    std::string key;
  };

  Kept kept(int f, const std::string& prefix) {
    Kept out{Flags(source(f).values.size()), {}};
    if (options_.keep_f32.empty()) return out;
    for (size_t v = 0; v < out.values.size(); ++v) {
      const ValueInfo& value = source(f).values[v];
      if (!mixes(value)) continue;
      std::string name = join_name(prefix, value.name);
      if (is_main(f) || value.op >= 0) seen_.insert(name);
      out.values[v] = matches_any(name);
      if (!out.values[v] && name.ends_with(".d")) out.values[v] = matches_any(name.substr(0, name.size() - 2));
      if (out.values[v]) out.key += fmt::format(" {}", v);
    }
    for (const Op& op : source(f).ops) {
      if (op.callee >= 0) out.key += "(" + kept(op.callee, join_name(prefix, op.prefix)).key + ")";
    }
    return out;
  }

  bool matches_any(std::string_view name) {
    bool any = false;
    for (size_t p = 0; p < options_.keep_f32.size(); ++p) {
      if (!matches(options_.keep_f32[p], name)) continue;
      any = true;
      used_.insert(p);
    }
    return any;
  }

  void check_patterns() const {
    const std::vector<std::string> known(seen_.begin(), seen_.end());
    for (size_t p = 0; p < options_.keep_f32.size() && !options_.optional; ++p) {
      if (used_.count(p)) continue;
      const std::string& pattern = options_.keep_f32[p];
      throw UserError(fmt::format("--keep-f32: \"{}\" matches no f32 value{}", pattern, did_you_mean(pattern, known)));
    }
  }

  // Of each value whether all that reads it wants f32. Unread: no.
  enum class Need : uint8_t { none, wide, any };
  static void merge(Need& need, Need more) { need = need == Need::none || need == more ? more : more == Need::none ? need : Need::any; }

  const std::vector<Need>& needs(int f, const Flags& wanted, const Kept& kept, const std::string& prefix) {
    const auto [it, fresh] = needs_.try_emplace({f, wanted, kept.key});
    if (!fresh) return it->second;
    const Function& from = source(f);
    std::vector<Need> out(from.values.size(), Need::none);
    for (size_t r = 0; r < from.returns.size(); ++r) {
      const Return& back = from.returns[r];
      merge(out[index(back.value)], back.in_place != ValueId::none || wanted[r] ? Need::wide : Need::any);
    }
    for (size_t i = from.ops.size(); i-- > 0;) {
      const Op& op = from.ops[i];
      if (op.kind == Op::apply) {
        op_needs(from, op, kept, out);
        continue;
      }
      if (op.callee < 0) continue;
      Flags results;
      for (ValueId r : op.results) results.push_back(out[index(r)] == Need::wide);
      const std::string under = join_name(prefix, op.prefix);
      const std::vector<Need>& inside = needs(op.callee, results, this->kept(op.callee, under), under);
      const Function& callee = source(op.callee);
      for (size_t a = 0; a < op.operands.size(); ++a) {
        if (op.operands[a] != ValueId::none) merge(out[index(op.operands[a])], inside[index(callee.params[a])]);
      }
    }
    return needs_[{f, wanted, kept.key}] = std::move(out);
  }

  void op_needs(const Function& f, const Op& op, const Kept& kept, std::vector<Need>& out) const {
    const OpDef& def = *op.def;
    bool follows_wide = def.precision == Precision::follows && !def.cast;
    bool any = false;
    for (size_t r = 0; r < op.results.size(); ++r) {
      if (def.may_be_wide(r) || !mixes(f.value(op.results[r]))) continue;
      any = true;
      follows_wide = follows_wide && (out[index(op.results[r])] == Need::wide || kept.values[index(op.results[r])]);
    }
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const bool wide = def.precision == Precision::keeps || def.wide_operand(i) || (any && follows_wide);
      merge(out[index(op.operands[i])], wide ? Need::wide : Need::any);
    }
  }

  int find_version(int f, const Flags& args, const Flags& wanted, const std::string& prefix) {
    const Kept kept = this->kept(f, prefix);
    const auto key = std::make_tuple(f, args, wanted, kept.key);
    if (const auto found = by_key_.find(key); found != by_key_.end()) return found->second;
    const Function& from = source(f);
    const std::vector<Need> need = needs(f, wanted, kept, prefix);
    Version v;
    v.function = f;
    v.narrow.assign(from.values.size(), false);
    v.modes.assign(from.ops.size(), Mode::leave);
    v.callees.assign(from.ops.size(), -1);
    // Made from nothing narrow or wide, and scalars: an op that reads them follows its other operands.
    Flags neutral(from.values.size());
    for (size_t i = 0; i < from.values.size(); ++i) v.narrow[i] = from.values[i].type.dtype == options_.narrow;
    for (size_t p = 0; p < args.size(); ++p) {
      const ValueId param = from.params[p];
      v.narrow[index(param)] = args[p];
      neutral[index(param)] = !args[p] && from.value(param).type.shape.rank() == 0;
    }
    for (size_t i = 0; i < from.ops.size(); ++i) {
      const Op& op = from.ops[i];
      if (op.kind == Op::apply) {
        v.modes[i] = decide(from, op, kept, need, v.narrow, neutral);
      } else if (op.callee >= 0) {
        Flags mine, results;
        for (ValueId a : op.operands) mine.push_back(a != ValueId::none && v.narrow[index(a)]);
        for (ValueId r : op.results) results.push_back(need[index(r)] == Need::wide);
        v.callees[i] = find_version(op.callee, mine, results, join_name(prefix, op.prefix));
        const Flags& made = versions_[static_cast<size_t>(v.callees[i])].returns;
        for (size_t r = 0; r < op.results.size(); ++r) v.narrow[index(op.results[r])] = made[r];
      }
      for (ValueId r : op.results) {
        if (from.value(r).type.shape.rank() == 0 && !v.narrow[index(r)]) neutral[index(r)] = true;
      }
    }
    for (const Return& back : from.returns) v.returns.push_back(v.narrow[index(back.in_place != ValueId::none ? back.in_place : back.value)]);
    versions_.push_back(std::move(v));
    return by_key_[key] = static_cast<int>(versions_.size()) - 1;
  }

  // What the op computes in; sets which of its results are narrow and which are neutral.
  Mode decide(const Function& f, const Op& op, const Kept& kept, const std::vector<Need>& need, Flags& narrow, Flags& neutral) const {
    const OpDef& def = *op.def;
    const auto takes_part = [&](ValueId v) { return mixes(f.value(v)); };
    const auto other_float = [&](ValueId v) { return is_float(f.value(v).type.dtype) && !takes_part(v); };
    if (std::any_of(op.operands.begin(), op.operands.end(), other_float) || def.cast) {
      for (ValueId r : op.results) neutral[index(r)] = def.cast && !is_float(f.value(op.operands[0]).type.dtype);
      return Mode::leave;
    }
    if (std::none_of(op.operands.begin(), op.operands.end(), takes_part)) {
      for (ValueId r : op.results) neutral[index(r)] = !narrow[index(r)];
      return Mode::leave;
    }
    bool reads_kept = false, reads_others = false, reads_wide = false, all_neutral = true;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      const ValueId v = op.operands[i];
      if (!takes_part(v) || def.wide_operand(i)) continue;
      (kept.values[index(v)] && !narrow[index(v)] ? reads_kept : reads_others) = true;
      if (neutral[index(v)]) continue;
      all_neutral = false;
      reads_wide = reads_wide || !narrow[index(v)];
    }
    bool kept_result = false, wanted = true, any = false;
    for (size_t r = 0; r < op.results.size(); ++r) {
      const ValueId v = op.results[r];
      if (!takes_part(v)) continue;
      kept_result = kept_result || kept.values[index(v)];
      if (def.may_be_wide(r)) continue;
      any = true;
      wanted = wanted && need[index(v)] == Need::wide;
    }
    bool wide = reads_kept;
    if (def.role == Role::use) {
      wide = wide || kept_result || need[index(op.results[0])] == Need::wide;
    } else if (def.precision == Precision::keeps) {
      wide = true;
    } else if (def.precision == Precision::computes) {
      wide = reads_others ? kept_result && !def.widens : reads_kept;
    } else {
      wide = wide || reads_wide || all_neutral || kept_result || (any && wanted);
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      const ValueId v = op.results[r];
      if (!takes_part(v)) continue;
      const bool stays = def.widens && r == 0 ? kept.values[index(v)] || need[index(v)] == Need::wide : def.may_be_wide(r);
      narrow[index(v)] = !wide && !stays;
      neutral[index(v)] = wide && all_neutral && def.precision == Precision::follows;
    }
    return wide ? Mode::wide : Mode::narrow;
  }

  std::string fresh(const std::string& wanted) {
    std::string name = wanted;
    for (int k = 1; !names_.insert(name).second; ++k) name = fmt::format("{}.{}", wanted, k);
    return name;
  }

  int emit(int number) {
    if (versions_[static_cast<size_t>(number)].made >= 0) return versions_[static_cast<size_t>(number)].made;
    const Version v = versions_[static_cast<size_t>(number)];
    std::vector<int> callees;
    for (int callee : v.callees) callees.push_back(callee < 0 ? -1 : emit(callee));
    const Function& from = source(v.function);
    Function g{from.name, {}, {}, from.param_info, {}, {}};
    for (int k = 2; out_.find(g.name) >= 0; ++k) g.name = fmt::format("{}_{}", from.name, k);
    out_.functions.push_back(std::move(g));
    const int made = versions_[static_cast<size_t>(number)].made = static_cast<int>(out_.functions.size()) - 1;
    Builder builder(out_, made);
    Emission e{v, from, builder, std::vector<ValueId>(from.values.size(), ValueId::none), std::vector<ValueId>(from.values.size(), ValueId::none)};
    Function& f = out_.functions.back();
    for (ValueId p : from.params) f.params.push_back(keep(e, p, -1));
    for (ParamInfo& info : f.param_info) {
      if (info.of != ValueId::none) info.of = e.map[index(info.of)];
    }
    for (size_t i = 0; i < from.ops.size(); ++i) emit_op(e, from.ops[i], v.modes[i], callees[i]);
    for (size_t r = 0; r < from.returns.size(); ++r) emit_return(e, from.returns[r]);
    return made;
  }

  struct Emission {
    const Version& version;
    const Function& from;
    Builder& builder;
    std::vector<ValueId> map, narrow_copy;  // of each value of `from`
  };

  ValueId keep(Emission& e, ValueId v, int op) const {
    ValueInfo info = e.from.value(v);
    if (mixes(info)) info.type.dtype = e.version.narrow[index(v)] ? options_.narrow : Dtype::f32;
    info.op = op;
    Function& f = e.builder.function();
    f.values.push_back(std::move(info));
    return e.map[index(v)] = static_cast<ValueId>(f.values.size() - 1);
  }

  ValueId cast(Emission& e, ValueId value, Dtype dtype, std::string name, const Place& place) {
    const Type type{dtype, e.builder.function().value(value).type.shape};
    const std::vector<Value> made = e.builder.apply(out_.table->cast(), {Value(&e.builder, value)}, {}, {type}, name, place);
    return made[0].id();
  }

  // The value v of the source in this dtype. Narrow copies are kept; a wide one is made where it is read, since it takes
  // twice the memory of what it comes from.
  ValueId in_dtype(Emission& e, ValueId v, Dtype dtype, const Place& place) {
    const ValueId there = e.map[index(v)];
    const ValueInfo& info = e.builder.function().value(there);
    if (info.type.dtype == dtype || !mixes(info)) return there;
    if (dtype == options_.narrow && e.narrow_copy[index(v)] != ValueId::none) return e.narrow_copy[index(v)];
    const ValueId made = cast(e, there, dtype, fresh(fmt::format("{}.{}", info.name, name(dtype))), place);
    if (dtype == options_.narrow) e.narrow_copy[index(v)] = made;
    return made;
  }

  void emit_op(Emission& e, const Op& op, Mode mode, int callee) {
    Op copy = op;
    for (size_t i = 0; i < copy.operands.size(); ++i) {
      ValueId& v = copy.operands[i];
      if (v == ValueId::none) continue;
      if (op.kind != Op::apply || mode == Mode::leave) {
        // A cast reads what there is; another op that is left as it is reads what it was traced with.
        const bool as_it_is = op.kind != Op::apply || op.def->cast;
        v = as_it_is ? e.map[index(v)] : in_dtype(e, v, e.from.value(v).type.dtype, op.source);
        continue;
      }
      const bool wide = mode == Mode::wide || op.def->wide_operand(i);
      v = mixes(e.from.value(v)) ? in_dtype(e, v, wide ? Dtype::f32 : options_.narrow, op.source) : e.map[index(v)];
    }
    copy.callee = callee;
    const int number = static_cast<int>(e.builder.function().ops.size());
    for (ValueId& v : copy.results) v = keep(e, v, number);
    e.builder.function().ops.push_back(std::move(copy));
  }

  // Main gives the types that it was traced with, an in-place result that of its parameter. The cast has the name; what a
  // call makes keeps its own, which the callee's says, and the cast is a copy under it.
  void emit_return(Emission& e, const Return& back) {
    Return r{e.map[index(back.value)], back.in_place == ValueId::none ? ValueId::none : e.map[index(back.in_place)]};
    Function& f = e.builder.function();
    const ValueInfo& original = e.from.value(back.value);
    const Dtype have = f.value(r.value).type.dtype;
    const Dtype want = r.in_place != ValueId::none ? f.value(r.in_place).type.dtype : is_main(e.version.function) ? original.type.dtype : have;
    if (have != want) {
      const bool called = original.op >= 0 && e.from.ops[static_cast<size_t>(original.op)].kind != Op::apply;
      if (!called) e.builder.rename(r.value, fresh(fmt::format("{}.{}", original.name, name(have))));
      const ValueId made = cast(e, r.value, want, original.name + (called ? "@0" : ""), original.source);
      ValueInfo& info = f.value(made);
      info.layout = original.layout;
      info.pinned = original.pinned;
      info.pinned_by = original.pinned_by;
      r.value = made;
    }
    f.returns.push_back(r);
  }

  const Program& in_;
  const MixedOptions& options_;
  Program out_;
  std::vector<Version> versions_;
  std::map<std::tuple<int, Flags, Flags, std::string>, int> by_key_;
  std::map<std::tuple<int, Flags, std::string>, std::vector<Need>> needs_;
  std::set<std::string> names_;  // of all values: a function and its gradient are inlined side by side
  std::set<std::string> seen_;   // what --keep-f32 may name
  std::set<size_t> used_;
};

}  // namespace

Program mixed(const Program& program, const MixedOptions& options) {
  MESHARD_CHECK(is_narrow(options.narrow), "values are made narrow as bf16 or f16");
  return Mixer(program, options).run();
}

}  // namespace meshard
