#include "meshard/sharding/choice_tables.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <algorithm>

namespace meshard {
namespace {

constexpr size_t kMostCopySets = 300;
constexpr size_t kMostCopies = 3;  // in a set

using Key = absl::InlinedVector<int32_t, 8>;

void put(std::vector<int32_t>& key, int64_t x) {
  key.push_back(static_cast<int32_t>(x));
  key.push_back(static_cast<int32_t>(x >> 32));
}

// Prices of one value in many ways. Layouts are known by their places in a short list, so that what each costs from each is a matrix.
class Pricer {
 public:
  using Needs = absl::InlinedVector<int, 6>;

  Pricer(ChoiceModel& model, const ValueNode& value) : model_(model), costs_(model.costs()), value_(value) {}

  int place(LayoutId layout) {
    const auto it = std::find(layouts_.begin(), layouts_.end(), layout);
    if (it != layouts_.end()) return static_cast<int>(it - layouts_.begin());
    layouts_.push_back(layout);
    blocks_.push_back(costs_.block_elements(value_.shape, layout));
    return static_cast<int>(layouts_.size()) - 1;
  }
  // No more layouts from here on.
  void close() { edges_.resize(layouts_.size() * layouts_.size()); }

  const ReshardCosts::Entry& edge(int from, int to) {
    Edge& e = edges_[static_cast<size_t>(from) * layouts_.size() + static_cast<size_t>(to)];
    if (!e.known) e = {costs_.get(value_.shape, layouts_[static_cast<size_t>(from)], layouts_[static_cast<size_t>(to)]), true};
    return e.entry;
  }

  // Of all copies of the value made as `made`: `needs` in any order, also equal ones; left without those and without `made`.
  Cost cost(int made, Needs& needs) {
    std::sort(needs.begin(), needs.end());
    needs.erase(std::unique(needs.begin(), needs.end()), needs.end());
    needs.erase(std::remove(needs.begin(), needs.end(), made), needs.end());
    int64_t elements = 0, messages = 0, held = 0;
    for (int n : needs) {
      const auto& e = edge(made, n);
      if (!e.possible) return kInfinite;
      held += blocks_[static_cast<size_t>(n)];
    }
    // Each copy from where it costs least: nothing is cheaper, unless copies would be made of each other.
    absl::InlinedVector<int, 6> parents;
    for (int n : needs) {
      const ReshardCosts::Entry* least = &edge(made, n);
      int parent = made;
      for (int p : needs) {
        if (p == n || least->messages == 0) continue;
        const auto& e = edge(p, n);
        if (!e.possible || std::pair(e.elements, e.messages) >= std::pair(least->elements, least->messages)) continue;
        least = &e;
        parent = p;
      }
      parents.push_back(parent);
      elements += least->elements;
      messages += least->messages;
    }
    if (needs.size() > 1 && !rooted(made, needs, parents)) {
      std::vector<LayoutId> ids;
      for (int n : needs) ids.push_back(layouts_[static_cast<size_t>(n)]);
      return model_.value_cost(value_, layouts_[static_cast<size_t>(made)], ids);
    }
    return model_.value_cost(value_, layouts_[static_cast<size_t>(made)], elements, messages, held);
  }

 private:
  static bool rooted(int made, const Needs& needs, const absl::InlinedVector<int, 6>& parents) {
    for (int n : needs) {
      size_t hops = 0;
      for (int at = n; at != made; ++hops) {
        if (hops > needs.size()) return false;
        at = parents[static_cast<size_t>(std::lower_bound(needs.begin(), needs.end(), at) - needs.begin())];
      }
    }
    return true;
  }

  struct Edge {
    ReshardCosts::Entry entry;
    bool known = false;
  };
  ChoiceModel& model_;
  ReshardCosts& costs_;
  const ValueNode& value_;
  absl::InlinedVector<LayoutId, 32> layouts_;
  absl::InlinedVector<int64_t, 32> blocks_;
  std::vector<Edge> edges_;
};

}  // namespace

struct ChoiceTables::Known {
  absl::flat_hash_map<std::vector<int32_t>, TableId> own;
  absl::flat_hash_map<Key, TableId> direct;
  absl::flat_hash_map<Key, std::unique_ptr<Sets>> sets;
};

ChoiceTables::~ChoiceTables() = default;

ChoiceTables::ChoiceTables(ChoiceModel& model) : model_(model), known_(std::make_unique<Known>()) {
  absl::flat_hash_map<std::vector<int32_t>, int> kinds;
  std::vector<int32_t> key;
  for (const ValueNode& v : model.values()) {
    std::vector<int> sites;
    for (const Reader& r : v.readers) {
      if (r.site >= 0 && r.site != v.maker) sites.push_back(r.site);
    }
    std::sort(sites.begin(), sites.end());
    sites.erase(std::unique(sites.begin(), sites.end()), sites.end());
    if (v.maker >= 0) sites.insert(sites.begin(), v.maker);
    const auto place = [&](int site) { return static_cast<int>(std::find(sites.begin(), sites.end(), site) - sites.begin()); };
    const bool reduced = std::any_of(v.readers.begin(), v.readers.end(), [](const Reader& r) { return r.kind == Reader::reduced; });
    key.clear();
    key.push_back(v.shape);
    put(key, v.size);
    put(key, v.weight);
    key.push_back(reduced ? v.propagated : -1);
    key.push_back(v.binds);
    key.push_back(v.maker < 0 ? -1 - v.layout : v.port);
    for (const Reader& r : v.readers) {
      key.push_back(r.kind);
      key.push_back(r.port);
      key.push_back(r.site < 0 ? -1 - r.layout : place(r.site));
    }
    const auto [it, fresh] = kinds.try_emplace(key, static_cast<int>(nodes_.size()));
    if (fresh) {
      ValueNode node = v;
      node.maker = v.maker < 0 ? -1 : 0;
      for (Reader& r : node.readers) r.site = r.site < 0 ? -1 : place(r.site);
      nodes_.push_back(std::move(node));
    }
    kinds_.push_back(it->second);
    sites_.push_back(std::move(sites));
  }
}

TableId ChoiceTables::own(int site, LabelListId list) {
  const Site& s = model_.sites()[static_cast<size_t>(site)];
  std::vector<int32_t> key = {list, s.kind, s.kind == Site::op ? s.signature : s.propagated};
  put(key, s.weight);
  const auto [it, fresh] = known_->own.try_emplace(std::move(key), -1);
  if (!fresh) return it->second;
  std::vector<Cost> costs;
  for (SplitId id : model_.list(list)) costs.push_back(model_.own_cost(static_cast<size_t>(site), id));
  const auto n = static_cast<int>(costs.size());
  return it->second = elimination_.add({n}, std::move(costs));
}

TableId ChoiceTables::direct(int kind, std::span<const LabelListId> lists) {
  Key key = {kind};
  key.insert(key.end(), lists.begin(), lists.end());
  const auto [it, fresh] = known_->direct.try_emplace(std::move(key), -1);
  if (fresh) it->second = price(nodes_[static_cast<size_t>(kind)], lists);
  return it->second;
}

const ChoiceTables::Sets& ChoiceTables::sets(int kind, std::span<const LabelListId> lists) {
  Key key = {kind};
  key.insert(key.end(), lists.begin(), lists.end());
  std::unique_ptr<Sets>& slot = known_->sets[std::move(key)];
  if (slot == nullptr) slot = std::make_unique<Sets>(price_sets(nodes_[static_cast<size_t>(kind)], lists));
  return *slot;
}

// Many labels ask for the same layout, so what is priced is what they ask for.
TableId ChoiceTables::price(const ValueNode& v, std::span<const LabelListId> lists) {
  using Needs = absl::InlinedVector<int, 2>;
  struct Asked {                                   // of one reader, of the value made in one way
    absl::InlinedVector<Needs, 12> needs;          // what labels ask for, equal ones once
    absl::InlinedVector<uint32_t, 16> which;       // by label
  };
  struct Made {
    int layout = 0, like = -1;                     // like: an earlier one that is the same
    Needs fixed;                                   // what is asked for in any case
    absl::InlinedVector<Asked, 3> asked;
  };
  const size_t first = v.maker < 0 ? 0 : 1, readers = lists.size() - first;
  std::vector<LayoutId> makes;
  if (v.maker < 0) makes.push_back(v.layout);
  else for (SplitId id : model_.list(lists[0])) makes.push_back(model_.split(id).made[static_cast<size_t>(v.port)]);
  bool own_reader = false;  // also reads what it makes: a function's parameter that a call hands on
  for (const Reader& r : v.readers) own_reader |= r.site == 0 && v.maker == 0;
  Pricer pricer(model_, v);
  absl::InlinedVector<Made, 12> ways;
  for (size_t m = 0; m < makes.size(); ++m) {
    const LayoutId made = makes[m];
    Made& way = ways.emplace_back();
    way.layout = pricer.place(made);
    const auto same = std::find(makes.begin(), makes.begin() + static_cast<std::ptrdiff_t>(m), made) - makes.begin();
    if (static_cast<size_t>(same) < m && !own_reader) {
      way.like = static_cast<int>(same);
      continue;
    }
    for (const Reader& r : v.readers) {
      if (r.site < 0) way.fixed.push_back(pricer.place(model_.effective(v, r, nullptr, made)));
      else if (v.maker == 0 && r.site == 0) way.fixed.push_back(pricer.place(model_.effective(v, r, &model_.split(model_.list(lists[0])[m]), made)));
    }
    for (size_t k = 0; k < readers; ++k) {
      Asked& asked = way.asked.emplace_back();
      for (SplitId id : model_.list(lists[first + k])) {
        Needs needs;
        for (const Reader& r : v.readers) {
          if (r.site == static_cast<int>(first + k)) needs.push_back(pricer.place(model_.effective(v, r, &model_.split(id), made)));
        }
        const auto it = std::find(asked.needs.begin(), asked.needs.end(), needs);
        asked.which.push_back(static_cast<uint32_t>(it - asked.needs.begin()));
        if (it == asked.needs.end()) asked.needs.push_back(std::move(needs));
      }
    }
  }
  pricer.close();
  size_t cells = 1;
  for (size_t k = 0; k < readers; ++k) cells *= model_.list(lists[first + k]).size();
  std::vector<Cost> costs, of_class;
  costs.reserve(cells * ways.size());
  absl::InlinedVector<size_t, 3> digit(readers, 0);
  const auto next = [&](const auto& size) {
    for (size_t k = readers; k-- > 0;) {
      if (++digit[k] < size(k)) return;
      digit[k] = 0;
    }
  };
  Pricer::Needs needs;
  for (const Made& way : ways) {
    if (way.like >= 0) {
      for (size_t i = 0; i < cells; ++i) costs.push_back(Cost{costs[static_cast<size_t>(way.like) * cells + i]});
      continue;
    }
    size_t classes = 1;
    for (const Asked& a : way.asked) classes *= a.needs.size();
    of_class.resize(classes);
    for (size_t c = 0; c < classes; ++c) {
      needs.assign(way.fixed.begin(), way.fixed.end());
      for (size_t k = 0; k < readers; ++k) needs.insert(needs.end(), way.asked[k].needs[digit[k]].begin(), way.asked[k].needs[digit[k]].end());
      of_class[c] = pricer.cost(way.layout, needs);
      next([&](size_t k) { return way.asked[k].needs.size(); });
    }
    for (size_t c = 0; c < cells; ++c) {
      size_t at = 0;
      for (size_t k = 0; k < readers; ++k) at = at * way.asked[k].needs.size() + way.asked[k].which[digit[k]];
      costs.push_back(of_class[at]);
      next([&](size_t k) { return way.asked[k].which.size(); });
    }
  }
  std::vector<int> sizes;
  for (LabelListId l : lists) {
    if (model_.list(l).size() > 1) sizes.push_back(static_cast<int>(model_.list(l).size()));
  }
  return elimination_.add(std::move(sizes), std::move(costs));
}

ChoiceTables::Sets ChoiceTables::price_sets(const ValueNode& v, std::span<const LabelListId> lists) {
  ReshardCosts& costs = model_.costs();
  const auto list = [&](int site) -> const std::vector<SplitId>& { return model_.list(lists[static_cast<size_t>(site)]); };
  std::vector<LayoutId> makes;
  if (v.maker < 0) makes.push_back(v.layout);
  else for (SplitId id : list(0)) makes.push_back(model_.split(id).made[static_cast<size_t>(v.port)]);
  const auto once = [](auto& layouts) {
    std::sort(layouts.begin(), layouts.end());
    layouts.erase(std::unique(layouts.begin(), layouts.end()), layouts.end());
  };
  std::vector<LayoutId> distinct = makes, wanted;
  once(distinct);
  // What each label of each site needs, of a value made as each of `distinct`.
  for (LayoutId made : distinct) {
    wanted.push_back(made);
    for (const Reader& r : v.readers) {
      if (r.site < 0) continue;
      for (SplitId id : list(r.site)) wanted.push_back(model_.effective(v, r, &model_.split(id), made));
    }
  }
  once(wanted);
  const auto free = [&](LayoutId have, LayoutId need, bool parts) {
    const auto e = costs.get(v.shape, have, parts ? costs.before_part(have, need) : need);
    return e.possible && e.elements == 0;
  };
  // Sets of copies of which none makes another needless; of few members first.
  std::vector<std::vector<LayoutId>> sets = {{}};
  for (size_t begin = 0, size = 0; size < kMostCopies; ++size) {
    const size_t end = sets.size();
    for (size_t i = begin; i < end; ++i) {
      for (LayoutId w : wanted) {
        if (!sets[i].empty() && w <= sets[i].back()) continue;
        bool needless = false;
        for (LayoutId m : sets[i]) needless |= free(m, w, false) || free(w, m, false);
        if (needless) continue;
        sets.push_back(sets[i]);
        sets.back().push_back(w);
      }
    }
    if (sets.size() > kMostCopySets && size > 0) {
      sets.resize(end);
      break;
    }
    begin = end;
  }
  {  // what is made now, by the first label of each, must stay possible
    std::vector<LayoutId> now;
    for (const Reader& r : v.readers) {
      now.push_back(model_.effective(v, r, r.site < 0 ? nullptr : &model_.split(list(r.site)[0]), makes[0]));
    }
    once(now);
    if (std::find(sets.begin(), sets.end(), now) == sets.end()) sets.push_back(std::move(now));
  }
  Sets out;
  out.count = static_cast<int>(sets.size());
  Pricer pricer(model_, v);
  std::vector<Pricer::Needs> places, always(makes.size());
  std::vector<int> makers;
  for (const auto& members : sets) {
    Pricer::Needs& list_of = places.emplace_back();
    for (LayoutId m : members) list_of.push_back(pricer.place(m));
  }
  for (size_t i = 0; i < makes.size(); ++i) {
    makers.push_back(pricer.place(makes[i]));
    for (const Reader& r : v.readers) {
      const bool own = v.maker == 0 && r.site == 0;
      if (r.site >= 0 && !own && list(r.site).size() > 1) continue;
      always[i].push_back(pricer.place(model_.effective(v, r, r.site < 0 ? nullptr : &model_.split(list(r.site)[own ? i : 0]), makes[i])));
    }
  }
  pricer.close();
  std::vector<Cost> made_costs;
  Pricer::Needs needs;
  for (size_t i = 0; i < makes.size(); ++i) {
    for (const Pricer::Needs& members : places) {
      needs = always[i];
      needs.insert(needs.end(), members.begin(), members.end());
      made_costs.push_back(pricer.cost(makers[i], needs));
    }
  }
  std::vector<int> sizes;
  if (makes.size() > 1) sizes.push_back(static_cast<int>(makes.size()));
  sizes.push_back(out.count);
  out.made = elimination_.add(std::move(sizes), std::move(made_costs));
  for (int s = v.maker < 0 ? 0 : 1; s < static_cast<int>(lists.size()); ++s) {
    if (list(s).size() < 2) continue;
    std::vector<Cost> cells;
    for (const auto& members : sets) {
      for (SplitId id : list(s)) {
        const Split& label = model_.split(id);
        bool served = true;
        for (const Reader& r : v.readers) {
          if (r.site != s) continue;
          const LayoutId need = label.needed[static_cast<size_t>(r.port)];
          served &= std::any_of(members.begin(), members.end(), [&](LayoutId m) { return free(m, need, label.parts); });
        }
        cells.push_back(served ? 0 : kInfinite);
      }
    }
    out.readers.push_back(elimination_.add({out.count, static_cast<int>(list(s).size())}, std::move(cells)));
  }
  return out;
}

}  // namespace meshard
