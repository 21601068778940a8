#include "propose.h"

#include <algorithm>
#include <map>

#include "meshard/base/text.h"

namespace meshard::fuzz {
namespace {

using Term = Rule::Term;
using Names = std::vector<std::string>;

bool is_leading(const Names& dim) { return dim.size() == 1 && dim[0] == "..."; }
bool has_leading(const Term& t) { return std::any_of(t.dims.begin(), t.dims.end(), is_leading); }

int64_t draw_size(Rng& rng) {
  const int64_t kind = rng.below(20);
  if (kind == 0) return 0;
  if (kind < 4) return 1;
  return rng.between(2, kind < 15 ? 6 : 9);
}

// Other letters for a rule that is an attribute: what results is a rule as often as not, which infer_types tells.
void mutate(Rng& rng, Rule& rule) {
  const auto any_term = [&]() -> Term& {
    const int64_t i = rng.below(static_cast<int64_t>(rule.operands.size() + rule.results.size()));
    return i < static_cast<int64_t>(rule.operands.size()) ? rule.operands[static_cast<size_t>(i)]
                                                          : rule.results[static_cast<size_t>(i) - rule.operands.size()];
  };
  const auto insert = [&](Term& t, Names dim) {
    t.dims.insert(t.dims.begin() + rng.below(static_cast<int64_t>(t.dims.size()) + 1), std::move(dim));
  };
  switch (rng.below(7)) {
    case 0:
      rng.shuffle(any_term().dims);
      break;
    case 1: {
      Term& t = any_term();
      if (!t.dims.empty()) t.dims.erase(t.dims.begin() + rng.below(static_cast<int64_t>(t.dims.size())));
      break;
    }
    case 2:  // a letter everywhere
      for (Term& t : rule.operands) insert(t, {"z"});
      for (Term& t : rule.results) insert(t, {"z"});
      break;
    case 3:
      insert(any_term(), {"y"});
      break;
    case 4: {  // from one operand to the results
      if (rule.operands.empty()) break;
      insert(rule.operands[static_cast<size_t>(rng.below(static_cast<int64_t>(rule.operands.size())))], {"x"});
      for (Term& t : rule.results) insert(t, {"x"});
      break;
    }
    case 5: {  // two dimensions become one
      Term& t = any_term();
      if (t.dims.size() < 2) break;
      const auto at = static_cast<size_t>(rng.below(static_cast<int64_t>(t.dims.size()) - 1));
      if (is_leading(t.dims[at]) || is_leading(t.dims[at + 1])) break;
      t.dims[at].insert(t.dims[at].end(), t.dims[at + 1].begin(), t.dims[at + 1].end());
      t.dims.erase(t.dims.begin() + static_cast<std::ptrdiff_t>(at) + 1);
      break;
    }
    default:
      insert(any_term(), {});
      break;
  }
}

// Sizes of a rule's names, and of what "..." stands for.
struct Sizes {
  std::map<std::string, int64_t> names;
  std::vector<int64_t> leading;

  int64_t of(Rng& rng, const std::string& name) {
    const auto found = names.find(name);
    if (found != names.end()) return found->second;
    return names[name] = draw_size(rng);
  }
};

Shape shape_of(Rng& rng, const Term& term, Sizes& sizes) {
  Shape shape;
  for (const Names& dim : term.dims) {
    if (is_leading(dim)) {
      shape.dims.insert(shape.dims.end(), sizes.leading.begin(), sizes.leading.end());
      continue;
    }
    int64_t size = 1;
    for (const std::string& name : dim) {
      if (dim.size() > 1 && !sizes.names.count(name)) sizes.names[name] = rng.between(1, 4);
      size *= sizes.of(rng, name);
    }
    shape.dims.push_back(size);
  }
  return shape;
}

// Takes over the sizes of a tensor that is there already; false where it does not fit the term.
bool take_sizes(Rng& rng, const Term& term, const Shape& shape, Sizes& sizes) {
  const auto written = static_cast<int>(term.dims.size()) - (has_leading(term) ? 1 : 0);
  const int leading = shape.rank() - written;
  if (leading < 0 || (leading > 0 && !has_leading(term))) return false;
  size_t at = 0;
  for (const Names& dim : term.dims) {
    if (is_leading(dim)) {
      sizes.leading.assign(shape.dims.begin() + static_cast<std::ptrdiff_t>(at),
                           shape.dims.begin() + static_cast<std::ptrdiff_t>(at) + leading);
      at += static_cast<size_t>(leading);
      continue;
    }
    int64_t size = shape.dims[at++];
    if (dim.empty() && size != 1) return false;
    for (size_t i = 0; i < dim.size(); ++i) {
      int64_t part = size;
      if (i + 1 < dim.size()) {
        std::vector<int64_t> divisors;
        for (int64_t d = 1; d <= std::max<int64_t>(size, 1); ++d) {
          if (size % d == 0) divisors.push_back(d);
        }
        part = rng.pick(divisors);
        size /= part;
      }
      const auto [known, fresh] = sizes.names.emplace(dim[i], part);
      if (!fresh && known->second != part) return false;
    }
  }
  return true;
}

// As broadcasting allows: an operand lacks leading dimensions, or has size 1 there.
void repeat_some(Rng& rng, const Term& term, size_t leading, Shape& shape) {
  if (!has_leading(term) || leading == 0) return;
  size_t at = 0;
  while (!is_leading(term.dims[at])) ++at;
  const auto begin = shape.dims.begin() + static_cast<std::ptrdiff_t>(at);
  if (rng.chance(50)) {
    shape.dims.erase(begin, begin + rng.between(1, static_cast<int64_t>(leading)));
  } else {
    *(begin + rng.below(static_cast<int64_t>(leading))) = 1;
  }
}

std::vector<Type> parse_types(const std::string& text) {
  std::vector<Type> types;
  Scanner in(text, "case");
  while (!in.at_end()) {
    types.push_back(Type::parse(in));
    if (!in.accept(",")) break;
  }
  return types;
}

}  // namespace

Proposer::Proposer(const OpTable& table) {
  for (const OpDef* def : table.all()) {
    if (def->collective || !def->reference) continue;
    Entry e{def, {}};
    for (const OpCase& c : def->cases) {
      Template t;
      if (!c.attributes.empty()) {
        Scanner in(c.attributes, "case");
        t.attributes = Attributes::parse(in);
      }
      t.operands = parse_types(c.operands);
      t.results = parse_types(c.results);
      t.below = c.below;
      const bool large = std::any_of(t.operands.begin(), t.operands.end(), [](const Type& o) { return o.shape.elements() > 700; });
      if (!large) e.cases.push_back(std::move(t));
    }
    if (e.cases.empty()) continue;
    names_.emplace_back(def->name);
    entries_.push_back(std::move(e));
  }
}

std::optional<Proposal> Proposer::propose(Rng& rng, Dtype dtype, const std::vector<Type>& pool) const {
  const Entry& entry = rng.pick(entries_);
  Template t = rng.pick(entry.cases);
  Proposal out;
  out.def = entry.def;
  out.attributes = t.attributes;
  const bool converts = entry.def->explicit_type && !t.operands.empty();
  const auto change = [&](Type& type) {
    if (is_float(type.dtype)) type.dtype = dtype;
  };
  for (Type& type : t.operands) change(type);
  if (!converts) {
    for (Type& type : t.results) change(type);
  } else if (std::any_of(t.results.begin(), t.results.end(), [&](const Type& r) { return is_narrow(r.dtype); }) &&
             rng.chance(60)) {
    return {};
  }

  try {
    Rule rule = Rule::parse(rule_text(*entry.def, t.attributes, t.operands, {}));
    const BoundRule bound = bind_rule(*entry.def, t.attributes, t.operands,
                                      entry.def->explicit_type ? std::span<const Type>(t.results) : std::span<const Type>(), {});
    if (out.attributes.find("rule") != nullptr && rng.chance(40)) {
      for (int64_t times = rng.between(1, 2); times-- > 0;) mutate(rng, rule);
      out.attributes.set("rule", rule.str());
    }
    Sizes sizes;
    if (rng.chance(15)) {
      for (const Factor& f : bound.factors) sizes.names[f.name] = f.size;
    }
    for (int64_t n = rng.between(0, 2); n-- > 0;) sizes.leading.push_back(draw_size(rng));
    if (!pool.empty() && !t.operands.empty() && rng.chance(90)) {
      const auto anchor = static_cast<size_t>(rng.below(static_cast<int64_t>(t.operands.size())));
      for (int attempt = 0; attempt < 8; ++attempt) {
        const Type& like = rng.pick(pool);
        Sizes found = sizes;
        if (like.dtype != t.operands[anchor].dtype || !take_sizes(rng, rule.operands[anchor], like.shape, found)) continue;
        sizes = std::move(found);
        break;
      }
    }
    for (size_t i = 0; i < t.operands.size(); ++i)
      out.operands.push_back({t.operands[i].dtype, shape_of(rng, rule.operands[i], sizes)});
    std::vector<Type> written;
    if (entry.def->explicit_type) {
      for (size_t r = 0; r < t.results.size(); ++r)
        written.push_back({t.results[r].dtype, shape_of(rng, rule.results[r], sizes)});
    }
    for (const auto& term : rule.results) {
      for (const Names& dim : term.dims) {
        for (const std::string& name : dim) {
          const bool given = out.attributes.find(name) != nullptr;
          const bool made = std::none_of(rule.operands.begin(), rule.operands.end(), [&](const Term& o) {
            return std::any_of(o.dims.begin(), o.dims.end(), [&](const Names& d) { return d.size() == 1 && d[0] == name; });
          });
          if (name != "..." && (given || (made && out.attributes.find("rule") != nullptr)))
            out.attributes.set(name, sizes.of(rng, name));
        }
      }
    }
    for (const auto& [name, value] : t.attributes) {
      if (std::holds_alternative<int64_t>(value) && sizes.names.count(name)) out.attributes.set(name, sizes.names[name]);
      if (std::holds_alternative<bool>(value) && rng.chance(30)) out.attributes.set(name, !std::get<bool>(value));
    }
    if (out.operands.size() > 1 && rng.chance(15)) {
      const auto i = static_cast<size_t>(rng.below(static_cast<int64_t>(out.operands.size())));
      repeat_some(rng, rule.operands[i], sizes.leading.size(), out.operands[i].shape);
    }
    check_attributes(*out.def, out.attributes, {});
    out.results = infer_types(*out.def, out.attributes, out.operands, written, {});
    for (const Type& type : out.operands) {
      int64_t below = 0;
      if (!is_float(type.dtype)) {
        // The bound of a case is the size of what its integers count.
        below = INT64_MAX;
        for (const Factor& f : bound.factors) {
          if (f.size == t.below && sizes.names.count(f.name)) below = std::min(below, sizes.names[f.name]);
        }
        if (below == INT64_MAX) below = t.below;
        if (below < 1) {
          if (type.shape.elements() > 0) return {};
          below = 1;
        }
      }
      out.below.push_back(below);
    }
  } catch (const UserError&) {
    return {};
  }
  int64_t elements = 0;
  for (const Type& type : out.operands) elements += type.shape.elements();
  for (const Type& type : out.results) elements += type.shape.elements();
  if (elements > 3000) return {};
  return out;
}

}  // namespace meshard::fuzz
