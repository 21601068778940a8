#include "meshard/sharding/propagate.h"

#include <absl/container/flat_hash_map.h>
#include <fmt/format.h>

#include <bit>

#include "meshard/ir/parse.h"
#include "meshard/ir/signature.h"
#include "meshard/sharding/pin.h"

namespace meshard {

void Origins::record(int function, ValueId value, AtomId atom, Origin origin) {
  const auto f = static_cast<size_t>(function);
  if (entries_.size() <= f) entries_.resize(f + 1);
  if (entries_[f].size() <= index(value)) entries_[f].resize(index(value) + 1);
  entries_[f][index(value)].push_back({atom, std::move(origin)});
}

const Origin* Origins::find(int function, ValueId value, AtomId atom) const {
  const auto f = static_cast<size_t>(function);
  if (f >= entries_.size() || index(value) >= entries_[f].size()) return nullptr;
  for (const Entry& entry : entries_[f][index(value)]) {
    if (entry.atom == atom) return &entry.origin;
  }
  return nullptr;
}

void Origins::fill_in(const Origins& old, const Program& before, const Program& after) {
  std::vector<absl::flat_hash_map<std::string_view, ValueId>> ids(after.functions.size());  // only looked up
  for (size_t f = 0; f < ids.size(); ++f) {
    for (size_t v = 0; v < after.functions[f].values.size(); ++v) ids[f].emplace(after.functions[f].values[v].name, static_cast<ValueId>(v));
  }
  const auto now = [&](int f, ValueId v) {
    const auto& known = ids[static_cast<size_t>(f)];
    const auto at = known.find(before.functions[static_cast<size_t>(f)].value(v).name);
    return at == known.end() ? ValueId::none : at->second;
  };
  for (size_t f = 0; f < old.entries_.size(); ++f) {
    for (size_t v = 0; v < old.entries_[f].size(); ++v) {
      const ValueId to = old.entries_[f][v].empty() ? ValueId::none : now(static_cast<int>(f), static_cast<ValueId>(v));
      if (to == ValueId::none) continue;
      for (const Entry& entry : old.entries_[f][v]) {
        Origin origin = entry.origin;
        if (find(static_cast<int>(f), to, entry.atom) != nullptr || origin.function < 0) continue;
        origin.from = now(origin.function, origin.from);
        if (origin.from != ValueId::none) record(static_cast<int>(f), to, entry.atom, std::move(origin));
      }
    }
  }
}

std::string Origins::source(const Program& program, int function, ValueId value, AtomId atom) const {
  for (int hops = 0; hops < 1000; ++hops) {
    const Origin* origin = find(function, value, atom);
    if (origin == nullptr || origin->through.empty()) break;
    function = origin->function;
    value = origin->from;
  }
  return "%" + program.functions[static_cast<size_t>(function)].value(value).name;
}

namespace {

// Which ops take part in a round.
enum class Round { aligned, passing, all };

// Numbers below n that wait to be visited, in order, from either end.
class Waiting {
 public:
  explicit Waiting(size_t n = 0) : words_((n + 63) / 64) {}
  void add(size_t i) { words_[i / 64] |= uint64_t{1} << i % 64; }
  void remove(size_t i) { words_[i / 64] &= ~(uint64_t{1} << i % 64); }

  static constexpr size_t kNone = SIZE_MAX;
  // The lowest from i on; the highest below i.
  size_t from(size_t i) const {
    for (size_t w = i / 64; w < words_.size(); ++w) {
      const uint64_t bits = words_[w] & (w == i / 64 ? ~uint64_t{0} << i % 64 : ~uint64_t{0});
      if (bits != 0) return 64 * w + static_cast<size_t>(std::countr_zero(bits));
    }
    return kNone;
  }
  size_t below(size_t i) const {
    for (size_t w = std::min(i / 64 + 1, words_.size()); w-- > 0;) {
      const uint64_t bits = words_[w] & (w == i / 64 ? (uint64_t{1} << i % 64) - 1 : ~uint64_t{0});
      if (bits != 0) return 64 * w + 63 - static_cast<size_t>(std::countl_zero(bits));
    }
    return kNone;
  }

 private:
  std::vector<uint64_t> words_;
};

// What all ops of one signature have in common.
struct RuleUse {
  bool aligned = true;                     // every factor is in every tensor that is not a scalar
  std::vector<bool> passes;                // of each factor: from an operand to a result
  std::vector<std::vector<bool>> tensors;  // operands, then results: which factors each has

  explicit RuleUse(const BoundRule& rule) : passes(rule.factors.size()) {
    for (const auto* list : {&rule.operands, &rule.results}) {
      for (const auto& dims : *list) {
        std::vector<bool>& has = tensors.emplace_back(rule.factors.size());
        for (const BoundRule::Dim& dim : dims) {
          for (int k : dim) has[static_cast<size_t>(k)] = true;
        }
        aligned = aligned && (dims.empty() || std::find(has.begin(), has.end(), false) == has.end());
      }
    }
    for (size_t k = 0; k < passes.size(); ++k) {
      bool operand = false, result = false;
      for (size_t t = 0; t < tensors.size(); ++t) (t < rule.operands.size() ? operand : result) |= tensors[t][k];
      passes[k] = operand && result;
    }
  }
};

// A sweep goes through all ops forward, all calls and returns, all ops backward, and those again; rounds end with a sweep
// that changes nothing. What an op does depends on the layouts of its tensors alone, so that only those are visited of
// which a tensor has changed since they were: the same result, in time linear in the ops and the changes.
class Propagator {
 public:
  Propagator(Program program, Origins* origins, const PropagateOptions& options)
      : program_(std::move(program)), mesh_(*program_.mesh), origins_(origins), visit_all_(options.visit_all) {
    for (size_t f = 0; f < program_.functions.size(); ++f) bind(static_cast<int>(f));
    for (size_t f = 0; f < program_.functions.size(); ++f) find_edges(static_cast<int>(f));
    waiting_ops_ = Waiting(bound_.size());
    waiting_edges_ = Waiting(edges_.size());
    all_edges();
  }

  Program run() {
    for (Round round : {Round::aligned, Round::passing, Round::all}) {
      all_ops();
      while (sweep(round)) {
      }
    }
    for (Function& f : program_.functions) {
      for (ValueInfo& v : f.values) {
        for (DimLayout& dim : v.layout->dims) dim.open = false;
      }
    }
    return std::move(program_);
  }

 private:
  struct Bound {
    int function = 0, op = 0;
    const BoundRule* rule = nullptr;
    const RuleUse* use = nullptr;
  };
  // Two values of which one is the other: an argument and a parameter, a value returned in place.
  struct Edge {
    int af = 0;
    ValueId a = ValueId::none;
    int bf = 0;
    ValueId b = ValueId::none;
    const char* through = "";
  };
  // What is to be visited when a value changes.
  struct Readers {
    InlineVector<int, 4> ops, edges;
  };

  Readers& readers(int function, ValueId v) { return readers_[static_cast<size_t>(function)][index(v)]; }

  void bind(int function) {
    Function& f = program_.functions[static_cast<size_t>(function)];
    readers_.emplace_back(f.values.size());
    for (ValueInfo& v : f.values) {
      if (!v.layout) v.layout = Layout::open(v.type.shape.rank());
    }
    for (size_t i = 0; i < f.ops.size(); ++i) {
      const Op& op = f.ops[i];
      if (op.kind != Op::apply || op.operands.empty()) continue;
      // A reshard, or a parameter's role, is there to change the layout: what is given on one side says nothing of the other.
      if (op.def->identity && f.value(op.results[0]).pinned) continue;
      const BoundRule& rule = bound_rule(program_, f, op);
      auto& use = uses_[&rule];
      if (use == nullptr) use = std::make_unique<RuleUse>(rule);
      const int number = static_cast<int>(bound_.size());
      for (ValueId v : op.operands) readers(function, v).ops.push_back(number);
      for (ValueId v : op.results) readers(function, v).ops.push_back(number);
      bound_.push_back({function, static_cast<int>(i), &rule, use.get()});
    }
  }

  // Calls and in-place returns are identities between functions.
  void find_edges(int function) {
    const Function& f = program_.functions[static_cast<size_t>(function)];
    const auto add = [&](int af, ValueId a, int bf, ValueId b, const char* through) {
      readers(af, a).edges.push_back(static_cast<int>(edges_.size()));
      readers(bf, b).edges.push_back(static_cast<int>(edges_.size()));
      edges_.push_back({af, a, bf, b, through});
    };
    for (const Return& r : f.returns) {
      if (r.in_place != ValueId::none) add(function, r.value, function, r.in_place, "an in-place return");
    }
    for (const Op& op : f.ops) {
      if (op.kind != Op::call && op.kind != Op::repeat) continue;
      const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
      for (size_t a = 0; a < op.operands.size(); ++a) {
        if (op.operands[a] != ValueId::none) add(function, op.operands[a], op.callee, callee.params[a], "a call");
      }
      for (size_t r = 0; r < op.results.size(); ++r) {
        add(function, op.results[r], op.callee, callee.returns[r].value, "a call");
      }
    }
  }

  void all_ops() {
    for (size_t i = 0; i < bound_.size(); ++i) waiting_ops_.add(i);
  }
  void all_edges() {
    for (size_t e = 0; e < edges_.size(); ++e) waiting_edges_.add(e);
  }

  bool sweep(Round round) {
    bool changed = false;
    const auto visit_op = [&](size_t i) {
      waiting_ops_.remove(i);  // before: a change of its own tensors makes it wait again
      changed |= visit(bound_[i], round);
    };
    if (visit_all_) all_ops();
    for (size_t i = waiting_ops_.from(0); i != Waiting::kNone; i = waiting_ops_.from(i + 1)) visit_op(i);
    changed |= visit_edges();
    if (visit_all_) all_ops();
    for (size_t i = waiting_ops_.below(bound_.size()); i != Waiting::kNone; i = waiting_ops_.below(i)) visit_op(i);
    changed |= visit_edges();
    return changed;
  }

  bool visit_edges() {
    bool changed = false;
    if (visit_all_) all_edges();
    for (size_t i = waiting_edges_.from(0); i != Waiting::kNone; i = waiting_edges_.from(i + 1)) {
      waiting_edges_.remove(i);
      const Edge& e = edges_[i];
      changed |= extend(e.bf, e.b, e.af, e.a, e.through);
      changed |= extend(e.af, e.a, e.bf, e.b, e.through);
    }
    return changed;
  }

  // Appends to `to` what `from` has more, dimension by dimension; true if something changed.
  bool extend(int to_function, ValueId to, int from_function, ValueId from, const char* through) {
    const ValueInfo& source = program_.functions[static_cast<size_t>(from_function)].value(from);
    const int rank = source.type.shape.rank();
    bool changed = false;
    for (int d = 0; d < rank; ++d) {
      changed |= grow(to_function, to, d, source.layout->atoms(d), from_function, from, through);
    }
    return changed;
  }

  // Makes dimension d of the value begin with `atoms`, which another value has, where what it has is a prefix of them and
  // they are free.
  bool grow(int function, ValueId value, int d, const Atoms& atoms, int from_function, ValueId from, const char* through) {
    ValueInfo& info = program_.functions[static_cast<size_t>(function)].value(value);
    DimLayout& dim = info.layout->dims[static_cast<size_t>(d)];
    if (!dim.open || atoms.size() <= dim.atoms.size()) return false;
    if (!std::equal(dim.atoms.begin(), dim.atoms.end(), atoms.begin())) return false;
    bool changed = false;
    for (size_t i = dim.atoms.size(); i < atoms.size(); ++i) {
      if (info.layout->used().has(atoms[i])) break;
      dim.atoms.push_back(atoms[i]);
      if (origins_ != nullptr) origins_->record(function, value, atoms[i], {from_function, from, through});
      changed = true;
    }
    if (changed) {
      const Readers& who = readers(function, value);
      for (int i : who.ops) waiting_ops_.add(static_cast<size_t>(i));
      for (int i : who.edges) waiting_edges_.add(static_cast<size_t>(i));
    }
    return changed;
  }

  bool visit(const Bound& b, Round round) {
    if (round == Round::aligned && !b.use->aligned) return false;
    Function& f = program_.functions[static_cast<size_t>(b.function)];
    const Op& op = f.ops[static_cast<size_t>(b.op)];
    const BoundRule& rule = *b.rule;
    const size_t factors = rule.factors.size(), tensors = op.operands.size() + op.results.size();
    const auto value = [&](size_t t) {
      return t < op.operands.size() ? op.operands[t] : op.results[t - op.operands.size()];
    };
    const auto dims = [&](size_t t) -> const std::vector<BoundRule::Dim>& {
      return t < op.operands.size() ? rule.operands[t] : rule.results[t - op.operands.size()];
    };
    // What the layouts put on factors before anything changes: of each tensor, and of all together.
    if (poured_.size() < tensors) poured_.resize(tensors);
    placed_.assign(factors, AtomSet());
    AtomSet any;
    for (size_t t = 0; t < tensors; ++t) {
      poured_[t].assign(factors, Atoms());
      pour_layout(mesh_, rule, dims(t), *f.value(value(t)).layout, poured_[t]);
      for (size_t k = 0; k < factors; ++k) placed_[k] = placed_[k] | AtomSet::of(poured_[t][k]);
    }
    for (AtomSet set : placed_) any = any | set;
    if (any.empty()) return false;

    bool changed = false;
    for (size_t k = 0; k < factors; ++k) {
      if (rule.factors[k].whole || placed_[k].empty()) continue;
      if (round == Round::passing && !b.use->passes[k]) continue;
      // The longest list of which all others are prefixes; where two tensors disagree, neither moves the other.
      size_t longest = 0;
      for (size_t t = 1; t < tensors; ++t) {
        if (poured_[t][k].size() > poured_[longest][k].size()) longest = t;
      }
      const Atoms& atoms = poured_[longest][k];
      bool agree = true;
      for (size_t t = 0; t < tensors; ++t) {
        if (b.use->tensors[t][k]) agree = agree && std::equal(poured_[t][k].begin(), poured_[t][k].end(), atoms.begin());
      }
      // An axis that another factor has elsewhere in this op would have to be moved.
      const AtomSet set = AtomSet::of(atoms);
      for (size_t other = 0; other < factors; ++other) {
        if (other != k && !(placed_[other] & set).empty()) agree = false;
      }
      if (!agree) continue;
      for (size_t t = 0; t < tensors; ++t) {
        if (!b.use->tensors[t][k] || poured_[t][k].size() >= atoms.size()) continue;
        wanted_ = poured_[t];
        wanted_[k] = atoms;
        if (!illegal_split(mesh_, rule, wanted_).empty()) continue;
        const Layout layout = layout_from_factors(dims(t), wanted_);
        for (int d = 0; d < layout.rank(); ++d) {
          changed |= grow(b.function, value(t), d, layout.atoms(d), b.function, value(longest), "op");
        }
      }
    }
    return changed;
  }

  Program program_;
  const Mesh mesh_;
  Origins* origins_;
  const bool visit_all_;
  std::vector<Bound> bound_;  // in the order of functions and ops
  std::vector<Edge> edges_;
  std::vector<std::vector<Readers>> readers_;  // of each value of each function
  absl::flat_hash_map<const BoundRule*, std::unique_ptr<const RuleUse>> uses_;  // only looked up
  Waiting waiting_ops_, waiting_edges_;
  // Of the op that is visited.
  std::vector<FactorAtoms> poured_;  // of each tensor
  std::vector<AtomSet> placed_;      // of each factor
  FactorAtoms wanted_;
};

}  // namespace

Program propagate(Program program, Origins* origins, const PropagateOptions& options) {
  if (!program.mesh) throw UserError("propagate needs a mesh; write a line \"mesh data=2, model=2\" or give --mesh");
  spread_pins(program);
  return Propagator(std::move(program), origins, options).run();
}

}  // namespace meshard
