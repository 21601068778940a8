#include "meshard/sharding/choice_model.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

#include "meshard/base/error.h"
#include "meshard/ir/halo.h"

namespace meshard {
namespace {

constexpr Cost kPenalty = Cost{1} << 104;        // more than all bytes: only where nothing else is left
constexpr Cost kTieUnits = 1 << 26;              // work and memory of the whole program each are this many
constexpr int64_t kAlwaysHeld = int64_t{16} << 20;  // a block of so many bytes is never too large

int64_t ceil_div(int64_t a, int64_t b) { return b == 0 ? a : (a + b - 1) / b; }

template <typename T>
void append(std::string& key, const T& value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Products of sizes, which saturate.
int64_t times(int64_t a, int64_t b) {
  constexpr Cost kMost = Cost{1} << 62;
  return static_cast<int64_t>(std::min(Cost{a} * b, kMost));
}

}  // namespace

struct ChoiceModel::Ids {
  absl::flat_hash_map<std::string, int> signatures, kinds, splits;
  absl::flat_hash_map<SplitId, LabelListId> only;
  absl::flat_hash_map<std::pair<SplitId, int64_t>, LabelListId> all;
  absl::flat_hash_map<std::tuple<SplitId, int64_t, uint64_t, uint64_t>, LabelListId> varied;
};

ChoiceModel::~ChoiceModel() = default;

ChoiceModel::ChoiceModel(const Program& program) : mesh_(*program.mesh), costs_(mesh_), ids_(std::make_unique<Ids>()) {
  const size_t n = program.functions.size();
  roots_.resize(n), remade_.resize(n), nodes_.resize(n), op_sites_.resize(n), param_sites_.resize(n), return_sites_.resize(n);
  const std::vector<int64_t> counts = run_counts(program);
  for (size_t f = 0; f < n; ++f) read(program, static_cast<int>(f), std::max<int64_t>(counts[f], 1));
  for (size_t f = 0; f < n; ++f) read_edges(program, static_cast<int>(f));
  work_rate_ = (kTieUnits << 64) / work_;
  memory_rate_ = (kTieUnits << 64) / memory_;
}

bool ChoiceModel::remade(int function, ValueId v) const {
  return remade_[static_cast<size_t>(function)][index(root(function, v))] != 0;
}

std::vector<SplitId> ChoiceModel::propagated() const {
  std::vector<SplitId> labels;
  for (const Site& s : sites_) labels.push_back(s.propagated);
  return labels;
}

int ChoiceModel::add_signature(const OpDef& def, const Op& op, const std::vector<Type>& operands, const std::vector<Type>& results) {
  std::string key(def.name);
  key += op.attributes.str();
  for (const auto* types : {&operands, &results}) {
    key.push_back('|');
    for (const Type& t : *types) {
      append(key, t.dtype);
      for (int64_t d : t.shape.dims) append(key, d);
      key.push_back(';');
    }
  }
  const auto [it, fresh] = ids_->signatures.try_emplace(std::move(key), static_cast<int>(signatures_.size()));
  if (fresh) {
    ChoiceSignature s{&def, bind_rule(def, op.attributes, operands, results, op.source), {}, {}, def.linear, std::max<int64_t>(1, static_cast<int64_t>(def.flops_per_point))};
    if (def.reach != nullptr) {
      s.operands = operands;
      s.attributes = op.attributes;
    }
    for (const Type& t : results) {
      s.result_shapes.push_back(costs_.shape(t.shape));
      s.result_sizes.push_back(size_bytes(t.dtype));
    }
    set_kind(s);
    signatures_.push_back(std::move(s));
  }
  return it->second;
}

// What of its sizes a split depends on: which parts divide a factor, and which have blocks left empty.
void ChoiceModel::set_kind(ChoiceSignature& s) {
  std::string key;
  append(key, s.def);
  if (!s.operands.empty()) append(key, signatures_.size());  // edges depend on all sizes
  for (const Factor& f : s.rule.factors) {
    append(key, std::gcd(f.size, mesh_.size()));
    append(key, std::min(f.size, mesh_.size() + 1));
    key.push_back(static_cast<char>(f.whole + 2 * f.lower));
  }
  for (const auto* tensors : {&s.rule.operands, &s.rule.results}) {
    key.push_back('|');
    for (const auto& dims : *tensors) {
      key.push_back(';');
      for (const auto& dim : dims) {
        key.push_back(',');
        for (int f : dim) append(key, f);
      }
    }
  }
  key.push_back(static_cast<char>(s.linear.size()));
  key.push_back(static_cast<char>(s.def == nullptr ? -1 : s.def->base));
  const auto [it, fresh] = ids_->kinds.try_emplace(std::move(key), static_cast<int>(kinds_.size()));
  if (fresh) kinds_.push_back(static_cast<int>(signatures_.size()));
  s.kind = it->second;
}

// A parameter or result of a function: every dimension is a factor, and sums pass.
int ChoiceModel::port_signature(const Type& type) {
  std::string key = "port";
  append(key, type.dtype);
  for (int64_t d : type.shape.dims) append(key, d);
  const auto [it, fresh] = ids_->signatures.try_emplace(std::move(key), static_cast<int>(signatures_.size()));
  if (fresh) {
    ChoiceSignature s;
    s.rule.operands.emplace_back();
    for (int d = 0; d < type.shape.rank(); ++d) {
      s.rule.factors.push_back({std::to_string(d), type.shape[d]});
      s.rule.operands[0].push_back({d});
    }
    s.rule.results = s.rule.operands;
    s.result_shapes = {costs_.shape(type.shape)};
    s.result_sizes = {size_bytes(type.dtype)};
    if (is_float(type.dtype)) s.linear = {{0}};
    set_kind(s);
    signatures_.push_back(std::move(s));
  }
  return it->second;
}

SplitId ChoiceModel::intern(int kind, OpSplit split, int group) {
  std::string key;
  append(key, kind);
  append(key, group);
  for (const Atoms& atoms : split.atoms) {
    for (AtomId a : atoms) key.push_back(static_cast<char>(a));
    key.push_back('\x7f');
  }
  append(key, split.passing[static_cast<size_t>(Reduction::sum)].bits);
  const auto [it, fresh] = ids_->splits.try_emplace(std::move(key), static_cast<int>(splits_.size()));
  if (!fresh) return it->second;
  const ChoiceSignature& s = signatures_[static_cast<size_t>(kinds_[static_cast<size_t>(kind)])];
  const bool together = group >= 0 && s.linear[static_cast<size_t>(group)].size() > 1, based = s.def != nullptr && s.def->base >= 0;
  Split made{kind, std::move(split), group, together || based, {}, {}, 1};
  std::vector<Layout> needed, results;
  if (s.def != nullptr) {
    needed = operand_layouts(*s.def, s.rule, made.split, group);
    results = result_layouts(*s.def, s.rule, made.split);
  } else {
    needed = {layout_from_factors(s.rule.operands[0], made.split.atoms)};
    needed[0].pending = made.split.passing;
    results = needed;
  }
  for (const Layout& l : needed) made.needed.push_back(costs_.layout(l));
  for (const Layout& l : results) made.made.push_back(costs_.layout(l));
  for (size_t k = 0; k < made.split.atoms.size(); ++k) {
    made.shares *= std::clamp<int64_t>(s.rule.factors[k].size, 1, mesh_.parts(made.split.atoms[k]));
  }
  for (size_t i = 0; i < s.operands.size(); ++i) {
    const int64_t elements = halo_elements(mesh_, *s.def, s.attributes, s.rule, s.operands, made.split.atoms, static_cast<int>(i));
    made.edge_bytes += elements * size_bytes(s.operands[i].dtype);
    made.edge_messages += elements > 0;
  }
  splits_.push_back(std::move(made));
  return it->second;
}

// What propagation decided for an op: what its results have first, then its operands, as far as they do not contradict.
SplitId ChoiceModel::propagated_split(int signature, const std::vector<Layout>& operands, const std::vector<Layout>& results) {
  const ChoiceSignature& s = signatures_[static_cast<size_t>(signature)];
  FactorAtoms atoms(s.rule.factors.size());
  const auto merge = [&](const std::vector<BoundRule::Dim>& dims, const Layout& layout) {
    FactorAtoms wish(s.rule.factors.size());
    pour_layout(mesh_, s.rule, dims, layout, wish);
    for (size_t k = 0; k < wish.size(); ++k) {
      if (wish[k].size() <= atoms[k].size() || s.rule.factors[k].whole || s.rule.factors[k].lower) continue;
      if (!std::equal(atoms[k].begin(), atoms[k].end(), wish[k].begin())) continue;
      for (size_t i = atoms[k].size(); i < wish[k].size(); ++i) {
        atoms[k].push_back(wish[k][i]);
        if (illegal_split(mesh_, s.rule, atoms).empty()) continue;
        atoms[k].pop_back();
        break;
      }
    }
  };
  for (size_t r = 0; r < results.size(); ++r) merge(s.rule.results[r], results[r]);
  for (size_t i = 0; i < operands.size(); ++i) merge(s.rule.operands[i], operands[i]);
  return intern(s.kind, {std::move(atoms), {}}, -1);
}

int ChoiceModel::add_port(const Program&, Site::Kind kind, int function, int i, const ValueInfo& value, int64_t weight) {
  const int signature = port_signature(value.type);
  const Layout whole = value.layout->without_pending();
  sites_.push_back({kind, function, i, signature, weight, propagated_split(signature, {}, {whole}), true});
  return static_cast<int>(sites_.size()) - 1;
}

// The sites of one function, and what stands for what.
void ChoiceModel::read(const Program& program, int function, int64_t weight) {
  const auto at = static_cast<size_t>(function);
  const Function& f = program.functions[at];
  const bool is_main = &f == &program.main();
  roots_[at].resize(f.values.size());
  remade_[at].assign(f.values.size(), 0);
  nodes_[at].assign(f.values.size(), -1);
  op_sites_[at].assign(f.ops.size(), -1);
  param_sites_[at].assign(f.params.size(), -1);
  return_sites_[at].assign(f.returns.size(), -1);
  for (size_t v = 0; v < f.values.size(); ++v) {
    const ValueInfo& info = f.values[v];
    roots_[at][v] = ValueId(static_cast<int32_t>(v));
    const int64_t elements = std::max<int64_t>(info.type.shape.elements(), 1) * size_bytes(info.type.dtype);
    memory_ += Cost{elements} * weight;
    const LayoutId layout = costs_.layout(*info.layout);
    largest_block_ = std::max(largest_block_, costs_.block_elements(costs_.shape(info.type.shape), layout) * size_bytes(info.type.dtype));
  }
  for (size_t p = 0; p < f.params.size(); ++p) {
    const ValueInfo& info = f.value(f.params[p]);
    if (!is_main && !info.pinned) param_sites_[at][p] = add_port(program, Site::param, function, static_cast<int>(p), info, weight);
  }
  for (size_t i = 0; i < f.ops.size(); ++i) {
    const Op& op = f.ops[i];
    if (op.kind != Op::apply || op.def->collective) continue;
    if (op.def->identity) {
      if (!f.value(op.results[0]).pinned) roots_[at][index(op.results[0])] = root(function, op.operands[0]);
      continue;
    }
    if (op.operands.empty()) {
      for (ValueId v : op.results) remade_[at][index(v)] = 1;
      continue;
    }
    std::vector<Type> operands, results;
    std::vector<Layout> operand_layouts, result_layouts;
    for (ValueId v : op.operands) {
      operands.push_back(f.value(v).type);
      operand_layouts.push_back(f.value(v).layout->without_pending());
    }
    for (ValueId v : op.results) {
      results.push_back(f.value(v).type);
      result_layouts.push_back(f.value(v).layout->without_pending());
    }
    const int signature = add_signature(*op.def, op, operands, results);
    const SplitId first = propagated_split(signature, operand_layouts, result_layouts);
    op_sites_[at][i] = static_cast<int>(sites_.size());
    sites_.push_back({Site::op, function, static_cast<int>(i), signature, weight, first, true});
    int64_t points = signatures_[static_cast<size_t>(signature)].flops_per_point;
    for (const Factor& k : signatures_[static_cast<size_t>(signature)].rule.factors) points = times(points, k.size);
    work_ += Cost{points} * weight;
  }
  for (size_t r = 0; r < f.returns.size(); ++r) {
    const ValueInfo& info = f.value(f.returns[r].value);
    if (is_main || info.pinned || f.returns[r].in_place != ValueId::none) continue;
    return_sites_[at][r] = add_port(program, Site::returned, function, static_cast<int>(r), info, weight);
  }
}

// Makers and readers of the values of one function.
void ChoiceModel::read_edges(const Program& program, int function) {
  const auto at = static_cast<size_t>(function);
  const Function& f = program.functions[at];
  const bool is_main = &f == &program.main();
  const std::vector<int64_t> counts = run_counts(program);
  const int64_t weight = std::max<int64_t>(counts[at], 1);
  const auto add_node = [&](ValueId v) -> ValueNode& {
    const ValueInfo& info = f.value(v);
    ValueNode node;
    node.function = function;
    node.value = v;
    node.shape = costs_.shape(info.type.shape);
    node.size = size_bytes(info.type.dtype);
    node.weight = weight;
    node.propagated = costs_.layout(info.layout->without_pending());
    nodes_[at][index(v)] = static_cast<int>(values_.size());
    values_.push_back(std::move(node));
    return values_.back();
  };
  const auto reader_of = [&](ValueId v) -> std::vector<Reader>* {
    const ValueId r = root(function, v);
    return nodes_[at][index(r)] < 0 ? nullptr : &values_[static_cast<size_t>(nodes_[at][index(r)])].readers;
  };
  // A pinned value is brought there at once, and that copy is what readers see.
  const auto settle = [&](ValueId v) {
    const ValueInfo& info = f.value(v);
    if (!info.pinned) return;
    const LayoutId pinned = costs_.layout(*info.layout);
    reader_of(v)->push_back({Reader::fixed, -1, 0, pinned});
    add_node(v).layout = pinned;
  };
  for (size_t p = 0; p < f.params.size(); ++p) {
    ValueNode& node = add_node(f.params[p]);
    node.maker = param_sites_[at][p];
    node.layout = costs_.layout(*f.value(f.params[p]).layout);
  }
  for (size_t i = 0; i < f.ops.size(); ++i) {
    const Op& op = f.ops[i];
    if (op.kind == Op::wait || (op.kind == Op::apply && op.def->collective)) continue;
    if (op.kind != Op::apply) {
      const auto callee = static_cast<size_t>(op.callee);
      const Function& g = program.functions[callee];
      for (size_t a = 0; a < op.operands.size(); ++a) {
        std::vector<Reader>* readers = op.operands[a] == ValueId::none ? nullptr : reader_of(op.operands[a]);
        if (readers == nullptr) continue;
        const int site = param_sites_[callee][a];
        readers->push_back({site < 0 ? Reader::fixed : Reader::label, site, 0, costs_.layout(*g.value(g.params[a]).layout)});
      }
      for (size_t r = 0; r < op.results.size(); ++r) {
        const Return& back = g.returns[r];
        ValueNode& node = add_node(op.results[r]);
        const int p = back.in_place == ValueId::none ? -1 : g.param_index(back.in_place);
        node.maker = p >= 0 ? param_sites_[callee][static_cast<size_t>(p)] : return_sites_[callee][r];
        node.layout = costs_.layout(*g.value(p >= 0 ? back.in_place : back.value).layout);
        settle(op.results[r]);
      }
      continue;
    }
    if (op.def->identity) {
      const ValueId v = op.results[0];
      if (!f.value(v).pinned) continue;
      const LayoutId pinned = costs_.layout(*f.value(v).layout);
      if (auto* readers = reader_of(op.operands[0])) {
        readers->push_back({op.def->role == Role::none ? Reader::fixed : Reader::separate, -1, 0, pinned});
      }
      ValueNode& node = add_node(v);
      node.layout = pinned;
      node.binds = op.def->role == Role::use;
      continue;
    }
    if (op.operands.empty()) continue;
    for (size_t o = 0; o < op.operands.size(); ++o) {
      if (auto* readers = reader_of(op.operands[o])) readers->push_back({Reader::label, op_sites_[at][i], static_cast<int>(o), -1});
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      ValueNode& node = add_node(op.results[r]);
      node.maker = op_sites_[at][i];
      node.port = static_cast<int>(r);
      settle(op.results[r]);
    }
  }
  for (size_t r = 0; r < f.returns.size(); ++r) {
    const Return& back = f.returns[r];
    std::vector<Reader>* readers = reader_of(back.value);
    if (readers == nullptr) continue;
    if (back.in_place != ValueId::none) {
      const int site = param_sites_[at][static_cast<size_t>(f.param_index(back.in_place))];
      readers->push_back({site < 0 ? Reader::fixed : Reader::label, site, 0, costs_.layout(*f.value(back.in_place).layout)});
    } else if (f.value(back.value).pinned) {
      readers->push_back({Reader::fixed, -1, 0, costs_.layout(*f.value(back.value).layout)});
    } else if (is_main) {
      readers->push_back({Reader::reduced, -1, 0, -1});
    } else {
      readers->push_back({Reader::label, return_sites_[at][r], 0, -1});
    }
  }
}

bool ChoiceModel::allowed(const Site& site, const Split& split) const {
  if (!site.limited) return true;
  // What crosses into or out of a function, such as what the forward pass saves for the backward one, is never held in larger blocks
  // than propagation laid out: a copy gathered in one is gathered again in the other.
  // Adding up terms that are still sums is no work done twice: each device has terms of its own, and they are reduced once.
  const int64_t terms = split.parts ? mesh_.parts(split.split.passing[static_cast<size_t>(Reduction::sum)]) : 1;
  return split.shares * terms >= splits_[static_cast<size_t>(site.propagated)].shares;
}

void ChoiceModel::neighbours(const Split& from, const Atoms& unit, bool all_positions, std::vector<SplitId>& out) {
  const int kind = from.kind;
  const ChoiceSignature& s = signatures_[static_cast<size_t>(kinds_[static_cast<size_t>(kind)])];
  const AtomSet moved = AtomSet::of(unit);
  constexpr auto kSum = static_cast<size_t>(Reduction::sum);
  OpSplit base = from.split;
  for (Atoms& atoms : base.atoms) erase_if(atoms, [&](AtomId a) { return moved.has(a); });
  base.passing[kSum] = base.passing[kSum] - moved;
  const int group = base.passing[kSum].empty() ? -1 : from.group;
  const auto add = [&](OpSplit split, int g) {
    if (illegal_split(mesh_, s.rule, split.atoms).empty()) out.push_back(intern(kind, std::move(split), g));
  };
  for (size_t k = 0; k < s.rule.factors.size(); ++k) {
    const Factor& factor = s.rule.factors[k];
    if (factor.whole || factor.lower || factor.size < 2) continue;
    const size_t length = base.atoms[k].size();
    // Between atoms that are there: where mesh order puts it, and, being few, all places.
    for (size_t place = 0; place <= length; ++place) {
      const bool in_order = (place == 0 || base.atoms[k][place - 1] < unit.front()) && (place == length || unit.front() < base.atoms[k][place]);
      if (!in_order && place != length && !all_positions && length > 2) continue;
      // Factors of one axis stay in its order: no other is cheaper, but where a layout that is given has it.
      bool turned = false;
      for (size_t i = 0; i < length; ++i) {
        const AtomId other = base.atoms[k][i];
        turned |= &mesh_.axis_of(other) == &mesh_.axis_of(unit.front()) && (other < unit.front()) != (i < place);
      }
      if (turned) continue;
      OpSplit split = base;
      split.atoms[k].insert(split.atoms[k].begin() + static_cast<std::ptrdiff_t>(place), unit.begin(), unit.end());
      add(std::move(split), group);
    }
  }
  add(base, group);
  for (int g = 0; g < static_cast<int>(s.linear.size()); ++g) {
    if (group >= 0 && group != g) continue;
    OpSplit split = base;
    split.passing[kSum] = split.passing[kSum] | moved;
    add(std::move(split), g);
  }
}

LabelListId ChoiceModel::only(SplitId id) {
  const auto [it, fresh] = ids_->only.try_emplace(id, static_cast<int>(lists_.size()));
  if (fresh) lists_.push_back({id});
  return it->second;
}

LabelListId ChoiceModel::vary(size_t site, SplitId current, const std::vector<Atoms>& units) {
  const Site& s = sites_[site];
  const int64_t least = s.limited ? splits_[static_cast<size_t>(s.propagated)].shares : 0;
  const uint64_t first = AtomSet::of(units[0]).bits, second = units.size() > 1 ? AtomSet::of(units[1]).bits : 0;
  const auto [it, fresh] = ids_->varied.try_emplace(std::tuple(current, least, first, second), static_cast<int>(lists_.size()));
  if (!fresh) return it->second;
  std::vector<SplitId> found = {current};
  for (const Atoms& unit : units) {
    for (size_t i = 0, n = found.size(); i < n; ++i) neighbours(split(found[i]), unit, false, found);
    std::vector<SplitId> once;
    for (SplitId id : found) {
      if (std::find(once.begin(), once.end(), id) == once.end()) once.push_back(id);
    }
    found = std::move(once);
  }
  std::erase_if(found, [&](SplitId id) { return id != current && !allowed(s, split(id)); });
  lists_.push_back(std::move(found));
  return it->second;
}

LabelListId ChoiceModel::all_labels(size_t site, size_t most) {
  const Site& s = sites_[site];
  const int64_t least = s.limited ? splits_[static_cast<size_t>(s.propagated)].shares : 0;
  const auto [it, fresh] = ids_->all.try_emplace(std::pair(s.propagated, least), static_cast<int>(lists_.size()));
  if (!fresh) return it->second;
  const int id = it->second;
  double choices = 1;  // where each atom may go, orders aside
  for (int a = 0; a < mesh_.atom_count(); ++a) choices *= static_cast<double>(signature(s.signature).rule.factors.size() + 1);
  if (choices > 16 * static_cast<double>(most)) {
    lists_.emplace_back();
    return id;
  }
  std::vector<SplitId> found = {s.propagated, intern(signature(s.signature).kind, {FactorAtoms(signature(s.signature).rule.factors.size()), {}}, -1)};
  std::set<SplitId> seen(found.begin(), found.end());
  for (size_t i = 0; i < found.size() && found.size() <= 16 * most; ++i) {
    std::vector<SplitId> next;
    for (AtomId a = 0; a < mesh_.atom_count(); ++a) neighbours(Split(split(found[i])), {a}, true, next);
    for (SplitId n : next) {
      if (seen.insert(n).second) found.push_back(n);
    }
  }
  std::erase_if(found, [&](SplitId f) { return f != s.propagated && !allowed(s, split(f)); });
  std::vector<SplitId> list;
  for (SplitId f : found) {
    if (std::find(list.begin(), list.end(), f) == list.end()) list.push_back(f);
  }
  if (list.size() > most) list.clear();
  lists_.push_back(std::move(list));
  return id;
}

LayoutId ChoiceModel::effective(const ValueNode& value, const Reader& reader, const Split* label, LayoutId made) {
  switch (reader.kind) {
    case Reader::label: {
      const LayoutId needed = label->needed[static_cast<size_t>(reader.port)];
      return label->parts ? costs_.before_part(made, needed) : needed;
    }
    case Reader::fixed: return costs_.before_part(made, reader.layout);
    case Reader::separate: return made;  // paid by value_cost's caller
    case Reader::reduced: {
      const Layout& have = costs_.layout(made);
      if (!have.is_pending()) return made;
      const LayoutId plain = costs_.layout(have.without_pending());
      const auto to_plain = costs_.get(value.shape, made, plain), to_wanted = costs_.get(value.shape, made, value.propagated);
      return to_wanted.possible && to_wanted.elements <= to_plain.elements ? value.propagated : plain;
    }
  }
  return made;
}

Cost ChoiceModel::value_cost(const ValueNode& value, LayoutId made, std::vector<LayoutId>& needs) {
  std::erase(needs, made);
  std::sort(needs.begin(), needs.end());
  needs.erase(std::unique(needs.begin(), needs.end()), needs.end());
  const Cost extra = separate_cost(value, made);
  if (needs.empty()) return value_cost(value, 0, extra, 0);
  const auto& copies = costs_.copies(value.shape, made, needs);
  if (!copies.possible) return kInfinite;
  Cost held = 0;
  for (LayoutId n : needs) held += Cost{costs_.block_elements(value.shape, n)} * value.size * value.weight;
  return value_cost(value, price(value, {copies.elements, static_cast<int32_t>(copies.messages), true}), extra, held);
}

Cost ChoiceModel::price(const ValueNode& value, const ReshardCosts::Entry& entry) const {
  const Cost bytes = Cost{entry.elements} * value.size * value.weight;
  if (!entry.possible || bytes >> 62 != 0) return kInfinite;
  return (bytes << kBytesShift) + (Cost{entry.messages} * value.weight << kMessagesShift);
}

Cost ChoiceModel::separate_cost(const ValueNode& value, LayoutId made) {
  Cost sum = 0;
  for (const Reader& r : value.readers) {
    if (r.kind == Reader::separate) sum = add_costs(sum, price(value, costs_.get(value.shape, made, costs_.before_part(made, r.layout))));
  }
  return sum;
}

Cost ChoiceModel::value_cost(const ValueNode& value, Cost moved, Cost extra, Cost held) const {
  const bool forbidden = value.binds && moved >> kBytesShift != 0;
  return std::min(moved + extra + (held * memory_rate_ >> 64) + (forbidden ? kPenalty : 0), kInfinite);
}

Cost ChoiceModel::own_cost(size_t site, SplitId label) {
  const Site& s = sites_[site];
  // Of equal choices a call's operands and results are laid out as propagation said: what has to move does so inside, written once.
  if (s.kind != Site::op) return label == s.propagated ? 0 : 64 + 4 * s.weight;  // more than what rounding shares gives
  const Split& l = split(label);
  const ChoiceSignature& sig = signatures_[static_cast<size_t>(s.signature)];
  int64_t flops = sig.flops_per_point;
  for (size_t k = 0; k < l.split.atoms.size(); ++k) {
    if (!l.split.atoms[k].empty()) flops = times(flops, ceil_div(sig.rule.factors[k].size, mesh_.parts(l.split.atoms[k])));
    else flops = times(flops, sig.rule.factors[k].size);
  }
  Cost tie = Cost{flops} * s.weight * work_rate_ >> 64, penalty = 0;
  for (size_t r = 0; r < l.made.size(); ++r) {
    const int64_t bytes = costs_.block_elements(sig.result_shapes[r], l.made[r]) * sig.result_sizes[r];
    tie += Cost{bytes} * s.weight * memory_rate_ >> 64;
    if (bytes > kAlwaysHeld && bytes / 4 > largest_block_) penalty = kPenalty;
  }
  const Cost edges = (Cost{l.edge_bytes} << kBytesShift) + (Cost{l.edge_messages} << kMessagesShift);
  return tie + penalty + edges * s.weight;
}

LayoutId ChoiceModel::made(const ValueNode& value, const std::vector<SplitId>& labels) const {
  return value.maker < 0 ? value.layout : split(labels[static_cast<size_t>(value.maker)]).made[static_cast<size_t>(value.port)];
}

std::vector<LayoutId> ChoiceModel::needs(const ValueNode& value, const std::vector<SplitId>& labels, LayoutId made) {
  std::vector<LayoutId> list;
  for (const Reader& r : value.readers) {
    const Split* label = r.site < 0 ? nullptr : &split(labels[static_cast<size_t>(r.site)]);
    list.push_back(effective(value, r, label, made));
  }
  return list;
}

}  // namespace meshard
