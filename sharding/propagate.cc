#include "meshard/sharding/propagate.h"

#include <fmt/format.h>

#include "meshard/ir/parse.h"
#include "meshard/ir/signature.h"
#include "meshard/sharding/pin.h"

namespace meshard {

const Origin* Origins::find(int function, ValueId value, AtomId atom) const {
  const auto it = map_.find({function, value, atom});
  return it == map_.end() ? nullptr : &it->second;
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

class Propagator {
 public:
  Propagator(Program program, Origins* origins) : program_(std::move(program)), mesh_(*program_.mesh), origins_(origins) {
    for (size_t f = 0; f < program_.functions.size(); ++f) bind(static_cast<int>(f));
  }

  Program run() {
    for (Round round : {Round::aligned, Round::passing, Round::all}) {
      while (sweep(round)) {
      }
    }
    for (Function& f : program_.functions) {
      for (ValueInfo& v : f.values) v.layout = v.layout->closed();
    }
    return std::move(program_);
  }

 private:
  struct Bound {
    int function = 0, op = 0;
    const BoundRule& rule;
    bool aligned = false;  // every factor is in every tensor that is not a scalar
  };

  void bind(int function) {
    Function& f = program_.functions[static_cast<size_t>(function)];
    for (ValueInfo& v : f.values) {
      if (!v.layout) v.layout = Layout::open(v.type.shape.rank());
    }
    for (size_t i = 0; i < f.ops.size(); ++i) {
      const Op& op = f.ops[i];
      if (op.kind != Op::apply || op.operands.empty()) continue;
      // A reshard, or a parameter's role, is there to change the layout: what is given on one side says nothing of the other.
      if (op.def->identity && f.value(op.results[0]).pinned) continue;
      Bound b{function, static_cast<int>(i), bound_rule(program_, f, op), true};
      for (const auto& terms : {b.rule.operands, b.rule.results}) {
        for (const auto& dims : terms) {
          for (size_t k = 0; k < b.rule.factors.size() && !dims.empty(); ++k) {
            b.aligned = b.aligned && b.rule.in(dims, static_cast<int>(k));
          }
        }
      }
      bound_.push_back(std::move(b));
    }
  }

  bool sweep(Round round) {
    bool changed = false;
    for (size_t i = 0; i < bound_.size(); ++i) changed |= visit(bound_[i], round);
    changed |= edges();
    for (size_t i = bound_.size(); i-- > 0;) changed |= visit(bound_[i], round);
    changed |= edges();
    return changed;
  }

  // Appends to `to` what `from` has more, dimension by dimension; true if something changed.
  bool extend(int to_function, ValueId to, int from_function, ValueId from, const std::string& through) {
    const ValueInfo& source = program_.functions[static_cast<size_t>(from_function)].value(from);
    ValueInfo& target = program_.functions[static_cast<size_t>(to_function)].value(to);
    bool changed = false;
    for (int d = 0; d < target.type.shape.rank(); ++d) {
      changed |= grow(to_function, to, d, source.layout->atoms(d), {from_function, from, through});
    }
    return changed;
  }

  // Makes dimension d of the value begin with `atoms` where what it has is a prefix of them and they are free.
  bool grow(int function, ValueId value, int d, const Atoms& atoms, const Origin& origin) {
    ValueInfo& info = program_.functions[static_cast<size_t>(function)].value(value);
    DimLayout& dim = info.layout->dims[static_cast<size_t>(d)];
    if (!dim.open || atoms.size() <= dim.atoms.size()) return false;
    if (!std::equal(dim.atoms.begin(), dim.atoms.end(), atoms.begin())) return false;
    bool changed = false;
    for (size_t i = dim.atoms.size(); i < atoms.size(); ++i) {
      if (info.layout->used().has(atoms[i])) break;
      dim.atoms.push_back(atoms[i]);
      if (origins_ != nullptr) origins_->record(function, value, atoms[i], origin);
      changed = true;
    }
    return changed;
  }

  bool visit(const Bound& b, Round round) {
    if (round == Round::aligned && !b.aligned) return false;
    Function& f = program_.functions[static_cast<size_t>(b.function)];
    const Op& op = f.ops[static_cast<size_t>(b.op)];
    struct Tensor {
      ValueId value;
      const std::vector<BoundRule::Dim>* dims;
      FactorAtoms atoms;
    };
    std::vector<Tensor> tensors;
    const auto add = [&](ValueId v, const std::vector<BoundRule::Dim>& dims) {
      Tensor t{v, &dims, FactorAtoms(b.rule.factors.size())};
      pour_layout(mesh_, b.rule, dims, *f.value(v).layout, t.atoms);
      tensors.push_back(std::move(t));
    };
    for (size_t i = 0; i < op.operands.size(); ++i) add(op.operands[i], b.rule.operands[i]);
    for (size_t i = 0; i < op.results.size(); ++i) add(op.results[i], b.rule.results[i]);

    bool changed = false;
    for (size_t k = 0; k < b.rule.factors.size(); ++k) {
      const Factor& factor = b.rule.factors[k];
      if (factor.whole) continue;
      if (round == Round::passing && !passes(b.rule, static_cast<int>(k))) continue;
      // The longest list of which all others are prefixes; where two tensors disagree, neither moves the other.
      const Tensor* longest = nullptr;
      bool agree = true;
      for (const Tensor& t : tensors) {
        if (longest == nullptr || t.atoms[k].size() > longest->atoms[k].size()) longest = &t;
      }
      if (longest == nullptr || longest->atoms[k].empty()) continue;
      const Atoms& atoms = longest->atoms[k];
      for (const Tensor& t : tensors) {
        if (!b.rule.in(*t.dims, static_cast<int>(k))) continue;
        agree = agree && std::equal(t.atoms[k].begin(), t.atoms[k].end(), atoms.begin());
      }
      // An axis that another factor has elsewhere in this op would have to be moved.
      for (const Tensor& t : tensors) {
        for (size_t other = 0; other < t.atoms.size(); ++other) {
          if (other != k && !(AtomSet::of(t.atoms[other]) & AtomSet::of(atoms)).empty()) agree = false;
        }
      }
      if (!agree) continue;
      for (const Tensor& t : tensors) {
        if (!b.rule.in(*t.dims, static_cast<int>(k)) || t.atoms[k].size() >= atoms.size()) continue;
        FactorAtoms wanted = t.atoms;
        wanted[k] = atoms;
        if (!illegal_split(mesh_, b.rule, wanted).empty()) continue;
        const Layout layout = layout_from_factors(*t.dims, wanted);
        for (int d = 0; d < layout.rank(); ++d) {
          changed |= grow(b.function, t.value, d, layout.atoms(d), {b.function, longest->value, "op"});
        }
      }
    }
    return changed;
  }

  static bool passes(const BoundRule& rule, int factor) {
    if (!rule.in_operands(factor)) return false;
    for (const auto& dims : rule.results) {
      if (rule.in(dims, factor)) return true;
    }
    return false;
  }

  // Calls and in-place returns are identities between functions.
  bool edges() {
    bool changed = false;
    for (size_t fi = 0; fi < program_.functions.size(); ++fi) {
      const int function = static_cast<int>(fi);
      const Function& f = program_.functions[fi];
      const auto both = [&](int af, ValueId a, int bf, ValueId b, const char* through) {
        changed |= extend(bf, b, af, a, through);
        changed |= extend(af, a, bf, b, through);
      };
      for (const Return& r : f.returns) {
        if (r.in_place != ValueId::none) both(function, r.value, function, r.in_place, "an in-place return");
      }
      for (const Op& op : f.ops) {
        if (op.kind != Op::call && op.kind != Op::repeat) continue;
        const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
        for (size_t a = 0; a < op.operands.size(); ++a) {
          if (op.operands[a] != ValueId::none) both(function, op.operands[a], op.callee, callee.params[a], "a call");
        }
        for (size_t r = 0; r < op.results.size(); ++r) {
          both(function, op.results[r], op.callee, callee.returns[r].value, "a call");
        }
      }
    }
    return changed;
  }

  Program program_;
  const Mesh mesh_;
  Origins* origins_;
  std::vector<Bound> bound_;
};

}  // namespace

Program propagate(const Program& program, Origins* origins) {
  if (!program.mesh) throw UserError("propagate needs a mesh; write a line \"mesh data=2, model=2\" or give --mesh");
  Program copy = program;
  spread_pins(copy);
  return Propagator(std::move(copy), origins).run();
}

}  // namespace meshard
