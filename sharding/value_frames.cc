#include "meshard/sharding/value_frames.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include "meshard/sharding/copy_tree.h"

namespace meshard {
namespace {

constexpr size_t kMostCopySets = 300;
constexpr size_t kMostCopies = 3;  // in a set

// Prices of one value in many ways. Layouts are known by their places in a short list, so that what each costs from each is a matrix.
template <class Prices>
class Pricer {
 public:
  using Number = typename Prices::Number;
  using Needs = absl::InlinedVector<int, 6>;

  explicit Pricer(Prices& prices) : prices_(prices) {}

  int place(LayoutId layout) {
    for (size_t i = 0; i < layouts_.size(); ++i) {
      if (layouts_[i] == layout) return static_cast<int>(i);
    }
    layouts_.push_back(layout);
    return static_cast<int>(layouts_.size()) - 1;
  }
  // No more layouts from here on.
  void close() {
    stride_ = layouts_.size();
    edges_.assign(stride_ * stride_, kUnknown);
    matrix_ = edges_.data();
    for (LayoutId layout : layouts_) held_.push_back(prices_.held(layout));
    extra_.assign(layouts_.size(), kUnknown);
  }
  int places() const { return static_cast<int>(layouts_.size()); }
  LayoutId layout(int place) const { return layouts_[static_cast<size_t>(place)]; }
  Number edge(int from, int to) {
    const Number e = matrix_[static_cast<size_t>(from) * stride_ + static_cast<size_t>(to)];
    return e != kUnknown ? e : measure(from, to);
  }

  // Of all copies of the value made as `made`, which needs those in `needs`; they may be equal to each other and to it.
  Cell<Number> cost(int made, std::span<const int> needs) {
    absl::InlinedVector<int, 8> copies;
    Cell<Number> cell{.extra = extra(made)};
    for (int n : needs) {
      if (n == made || std::find(copies.begin(), copies.end(), n) != copies.end()) continue;
      const Number direct = edge(made, n);
      if (direct >= Prices::kNone) return {Prices::kNone, 0, 0};
      copies.push_back(n);
      cell.held += held_[static_cast<size_t>(n)];
      cell.moved += direct;
    }
    if (copies.size() < 2 || cell.moved == 0) return cell;
    if (copies.size() == 2) {
      const int a = copies[0], b = copies[1];
      cell.moved = std::min({cell.moved, edge(made, a) + edge(a, b), edge(made, b) + edge(b, a)});
      return cell;
    }
    if (copies.size() == 3) {  // all 16 trees
      const int x = copies[0], y = copies[1], z = copies[2];
      const auto chains = [&](int a, int b, int c) {  // a from the value, b from a, c from either
        return edge(made, a) + edge(a, b) + std::min({edge(a, c), edge(b, c), edge(made, c)});
      };
      cell.moved = std::min({cell.moved, chains(x, y, z), chains(x, z, y), chains(y, x, z), chains(y, z, x), chains(z, x, y), chains(z, y, x)});
      return cell;
    }
    std::sort(copies.begin(), copies.end());
    const auto cost = [&](int i, int p) { return edge(p < 0 ? made : copies[static_cast<size_t>(p)], copies[static_cast<size_t>(i)]); };
    const Number sum = least_copies<Number>(static_cast<int>(copies.size()), cost, Prices::kNone, parents_);
    cell.moved = sum;
    return cell;
  }

 private:
  static constexpr Number kUnknown = -1;

  [[gnu::noinline]] Number measure(int from, int to) {
    Number& e = matrix_[static_cast<size_t>(from) * stride_ + static_cast<size_t>(to)];
    return e = from == to ? 0 : prices_.edge(layouts_[static_cast<size_t>(from)], layouts_[static_cast<size_t>(to)]);
  }
  Number extra(int made) {
    Number& sum = extra_[static_cast<size_t>(made)];
    if (sum != kUnknown) return sum;
    sum = 0;
    const LayoutId from = layouts_[static_cast<size_t>(made)];
    for (const Reader& r : prices_.value.readers) {
      if (r.kind != Reader::separate) continue;
      const LayoutId to = prices_.model.costs().before_part(from, r.layout);
      if (from != to) sum = std::min(sum + prices_.edge(from, to), Prices::kNone);
    }
    return sum;
  }

  Prices& prices_;
  absl::InlinedVector<LayoutId, 32> layouts_;
  absl::InlinedVector<int64_t, 32> held_;
  absl::InlinedVector<Number, 32> extra_;
  absl::InlinedVector<Number, 256> edges_;
  Number* matrix_ = nullptr;
  size_t stride_ = 0;
  CopyParents parents_;
};

// The part of a value made as `makes`, and what the labels of its sites ask for.
std::vector<LayoutId> makes_of(const ChoiceModel& model, const ValueNode& v, std::span<const LabelListId> lists) {
  if (v.maker < 0) return {v.layout};
  std::vector<LayoutId> makes;
  for (SplitId id : model.list(lists[0])) makes.push_back(model.split(id).made[static_cast<size_t>(v.port)]);
  return makes;
}

std::vector<int> sizes_of(const ChoiceModel& model, std::span<const LabelListId> lists) {
  std::vector<int> sizes;
  for (LabelListId l : lists) {
    if (model.list(l).size() > 1) sizes.push_back(static_cast<int>(model.list(l).size()));
  }
  return sizes;
}

template <class Prices>
Frame<typename Prices::Number> make_frame(Prices& prices, std::span<const LabelListId> lists) {
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
  ChoiceModel& model = prices.model;
  const ValueNode& v = prices.value;
  const size_t first = v.maker < 0 ? 0 : 1, readers = lists.size() - first;
  const std::vector<LayoutId> makes = makes_of(model, v, lists);
  bool own_reader = false, parts = false;  // own: also reads what it makes: a function's parameter that a call hands on
  for (const Reader& r : v.readers) {
    own_reader |= r.site == 0 && v.maker == 0;
    for (size_t k = first; k < lists.size() && r.site == static_cast<int>(k); ++k) {
      for (SplitId id : model.list(lists[k])) parts |= model.split(id).parts;
    }
  }
  Pricer<Prices> pricer(prices);
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
      if (r.site < 0) way.fixed.push_back(pricer.place(model.effective(v, r, nullptr, made)));
      else if (v.maker == 0 && r.site == 0) way.fixed.push_back(pricer.place(model.effective(v, r, &model.split(model.list(lists[0])[m]), made)));
    }
    if (m > 0 && !parts) {  // what is asked for does not depend on how the value is made
      way.asked = ways[0].asked;
      continue;
    }
    for (size_t k = 0; k < readers; ++k) {
      Asked& asked = way.asked.emplace_back();
      for (SplitId id : model.list(lists[first + k])) {
        Needs needs;
        for (const Reader& r : v.readers) {
          if (r.site == static_cast<int>(first + k)) needs.push_back(pricer.place(model.effective(v, r, &model.split(id), made)));
        }
        const auto it = std::find(asked.needs.begin(), asked.needs.end(), needs);
        asked.which.push_back(static_cast<uint32_t>(it - asked.needs.begin()));
        if (it == asked.needs.end()) asked.needs.push_back(std::move(needs));
      }
    }
  }
  pricer.close();
  Frame<typename Prices::Number> frame;
  frame.sizes = sizes_of(model, lists);
  size_t cells = 1;
  for (size_t k = 0; k < readers; ++k) cells *= model.list(lists[first + k]).size();
  frame.which.reserve(cells * ways.size());
  absl::InlinedVector<size_t, 3> digit(readers, 0);
  const auto next = [&](const auto& size) {
    for (size_t k = readers; k-- > 0;) {
      if (++digit[k] < size(k)) return;
      digit[k] = 0;
    }
  };
  typename Pricer<Prices>::Needs needs;
  for (const Made& way : ways) {
    if (way.like >= 0) {
      for (size_t i = 0; i < cells; ++i) frame.which.push_back(uint32_t{frame.which[static_cast<size_t>(way.like) * cells + i]});
      continue;
    }
    size_t classes = 1;
    for (const Asked& a : way.asked) classes *= a.needs.size();
    const size_t begin = frame.cells.size();
    // Many readers ask for few different sets of copies, and a set's price is a search over trees: each is made once.
    const bool keep = pricer.places() <= 64 && readers > 3;
    absl::flat_hash_map<uint64_t, Cell<typename Prices::Number>> known;
    const auto mask = [](const auto& places) {
      uint64_t bits = 0;
      for (int p : places) bits |= uint64_t{1} << p;
      return bits;
    };
    for (size_t c = 0; c < classes; ++c) {
      uint64_t set = 0;
      if (keep) {
        set = mask(way.fixed);
        for (size_t k = 0; k < readers; ++k) set |= mask(way.asked[k].needs[digit[k]]);
        if (const auto found = known.find(set); found != known.end()) {
          frame.cells.push_back(found->second);
          next([&](size_t k) { return way.asked[k].needs.size(); });
          continue;
        }
      }
      needs.assign(way.fixed.begin(), way.fixed.end());
      for (size_t k = 0; k < readers; ++k) needs.insert(needs.end(), way.asked[k].needs[digit[k]].begin(), way.asked[k].needs[digit[k]].end());
      frame.cells.push_back(pricer.cost(way.layout, needs));
      if (keep) known.emplace(set, frame.cells.back());
      next([&](size_t k) { return way.asked[k].needs.size(); });
    }
    for (size_t c = 0; c < cells; ++c) {
      size_t at = 0;
      for (size_t k = 0; k < readers; ++k) at = at * way.asked[k].needs.size() + way.asked[k].which[digit[k]];
      frame.which.push_back(static_cast<uint32_t>(begin + at));
      next([&](size_t k) { return way.asked[k].which.size(); });
    }
  }
  return frame;
}

template <class Prices>
SetsFrame<typename Prices::Number> make_sets_frame(Prices& prices, std::span<const LabelListId> lists, Elimination& elimination) {
  ChoiceModel& model = prices.model;
  const ValueNode& v = prices.value;
  using Needs = typename Pricer<Prices>::Needs;
  const auto list = [&](int site) -> const std::vector<SplitId>& { return model.list(lists[static_cast<size_t>(site)]); };
  const std::vector<LayoutId> makes = makes_of(model, v, lists);
  const auto once = [](auto& entries) {
    std::sort(entries.begin(), entries.end());
    entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  };
  std::vector<LayoutId> distinct = makes, wanted;
  once(distinct);
  // What each label of each site needs, of a value made as each of `distinct`.
  for (LayoutId made : distinct) {
    wanted.push_back(made);
    for (const Reader& r : v.readers) {
      if (r.site < 0) continue;
      for (SplitId id : list(r.site)) wanted.push_back(model.effective(v, r, &model.split(id), made));
    }
  }
  once(wanted);
  Pricer<Prices> pricer(prices);
  for (LayoutId w : wanted) pricer.place(w);
  const auto count = static_cast<int>(wanted.size());
  std::vector<int> makers;
  std::vector<Needs> always(makes.size());
  for (size_t i = 0; i < makes.size(); ++i) {
    makers.push_back(pricer.place(makes[i]));
    for (const Reader& r : v.readers) {
      const bool own = v.maker == 0 && r.site == 0;
      if (r.site >= 0 && !own && list(r.site).size() > 1) continue;
      always[i].push_back(pricer.place(model.effective(v, r, r.site < 0 ? nullptr : &model.split(list(r.site)[own ? i : 0]), makes[i])));
    }
  }
  Needs now;  // by the first label of each
  for (const Reader& r : v.readers) {
    now.push_back(pricer.place(model.effective(v, r, r.site < 0 ? nullptr : &model.split(list(r.site)[0]), makes[0])));
  }
  once(now);
  // Of each site, reader and label: what serves it, which depends on what there is where a whole value may be taken in parts.
  std::vector<LayoutId> there = wanted;
  for (int n : now) {
    if (n >= count && std::find(there.begin(), there.end(), pricer.layout(n)) == there.end()) there.push_back(pricer.layout(n));
  }
  struct Wish {
    size_t label = 0;
    std::vector<int> from, to;  // by what is there
  };
  std::vector<std::pair<int, size_t>> chosen;  // sites with more than one label, and how many of the value's readers they are
  std::vector<Wish> wishes;
  for (int s = v.maker < 0 ? 0 : 1; s < static_cast<int>(lists.size()); ++s) {
    if (list(s).size() < 2) continue;
    chosen.emplace_back(s, 0);
    for (const Reader& r : v.readers) {
      if (r.site != s) continue;
      for (size_t l = 0; l < list(s).size(); ++l) {
        const Split& label = model.split(list(s)[l]);
        const LayoutId need = label.needed[static_cast<size_t>(r.port)];
        Wish& wish = wishes.emplace_back();
        wish.label = l;
        for (LayoutId have : there) {
          wish.from.push_back(pricer.place(have));
          wish.to.push_back(pricer.place(label.parts ? model.costs().before_part(have, need) : need));
        }
      }
      ++chosen.back().second;
    }
  }
  pricer.close();
  const auto free = [&](int from, int to) { return pricer.edge(from, to) >> Prices::kFreeBits == 0; };
  // Sets of copies of which none makes another needless; of few members first.
  std::vector<char> needless(static_cast<size_t>(count) * static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < count; ++j) needless[static_cast<size_t>(i * count + j)] = free(i, j) || free(j, i);
  }
  std::vector<Needs> sets = {{}};
  for (size_t begin = 0, size = 0; size < kMostCopies; ++size) {
    const size_t end = sets.size();
    for (size_t i = begin; i < end; ++i) {
      for (int w = sets[i].empty() ? 0 : sets[i].back() + 1; w < count; ++w) {
        if (std::any_of(sets[i].begin(), sets[i].end(), [&](int m) { return needless[static_cast<size_t>(m * count + w)]; })) continue;
        Needs more = sets[i];
        more.push_back(w);
        sets.push_back(std::move(more));
      }
    }
    if (sets.size() > kMostCopySets && size > 0) {
      sets.resize(end);
      break;
    }
    begin = end;
  }
  // What is made now must stay possible.
  if (std::find(sets.begin(), sets.end(), now) == sets.end()) sets.push_back(std::move(now));
  // Which labels each set serves, site after site: a set serves a label if it serves all its readers.
  size_t all_labels = 0, wish = 0;
  for (const auto& [s, readers] : chosen) all_labels += list(s).size();
  const size_t words = (all_labels + 63) / 64;
  std::vector<uint64_t> served(sets.size() * words, ~uint64_t{0});
  std::vector<char> serves;  // by place
  size_t bit = 0;
  for (const auto& [s, readers] : chosen) {
    const size_t labels = list(s).size();
    for (size_t i = 0; i < readers * labels; ++i, ++wish) {
      const Wish& w = wishes[wish];
      serves.assign(static_cast<size_t>(pricer.places()), 0);
      for (size_t h = 0; h < w.from.size(); ++h) serves[static_cast<size_t>(w.from[h])] = free(w.from[h], w.to[h]);
      const size_t at = bit + w.label;
      for (size_t m = 0; m < sets.size(); ++m) {
        const bool any = std::any_of(sets[m].begin(), sets[m].end(), [&](int copy) { return serves[static_cast<size_t>(copy)]; });
        if (!any) served[m * words + at / 64] &= ~(uint64_t{1} << at % 64);
      }
    }
    bit += labels;
  }
  using CellOf = Cell<typename Prices::Number>;
  std::vector<CellOf> cells(sets.size() * makes.size());  // by set
  Needs needs;
  for (size_t m = 0; m < sets.size(); ++m) {
    for (size_t i = 0; i < makes.size(); ++i) {
      needs = always[i];
      needs.insert(needs.end(), sets[m].begin(), sets[m].end());
      cells[m * makes.size() + i] = pricer.cost(makers[i], needs);
    }
  }
  // A set is not needed where another one serves as much, and costs no more whatever is made.
  std::vector<size_t> left;
  std::vector<char> gone(sets.size(), 0);
  const auto replaces = [&](size_t a, size_t b) {
    for (size_t w = 0; w < words; ++w) {
      if ((served[b * words + w] & ~served[a * words + w]) != 0) return false;
    }
    for (size_t i = 0; i < makes.size(); ++i) {
      const CellOf &x = cells[a * makes.size() + i], &y = cells[b * makes.size() + i];
      if (std::pair(x.moved, x.held) > std::pair(y.moved, y.held)) return false;
    }
    return true;
  };
  for (size_t m = 0; m < sets.size(); ++m) {
    for (size_t o = 0; o < sets.size() && !gone[m]; ++o) gone[m] = o != m && !gone[o] && replaces(o, m);
    if (!gone[m]) left.push_back(m);
  }
  SetsFrame<typename Prices::Number> frame;
  frame.count = static_cast<int>(left.size());
  if (makes.size() > 1) frame.sizes.push_back(static_cast<int>(makes.size()));
  frame.sizes.push_back(frame.count);
  for (size_t i = 0; i < makes.size(); ++i) {
    for (size_t m : left) frame.cells.push_back(cells[m * makes.size() + i]);
  }
  bit = 0;
  for (const auto& [s, readers] : chosen) {
    const size_t labels = list(s).size();
    std::vector<Cost> table;
    table.reserve(left.size() * labels);
    for (size_t m : left) {
      for (size_t l = bit; l < bit + labels; ++l) table.push_back(served[m * words + l / 64] >> l % 64 & 1 ? 0 : kInfinite);
    }
    bit += labels;
    frame.readers.push_back(elimination.add({frame.count, static_cast<int>(labels)}, std::move(table)));
  }
  return frame;
}

}  // namespace

Frame<Cost> frame_of(ShapePrices& prices, std::span<const LabelListId> lists) { return make_frame(prices, lists); }
Frame<int64_t> frame_of(SharePrices& prices, std::span<const LabelListId> lists) { return make_frame(prices, lists); }
SetsFrame<Cost> sets_frame_of(ShapePrices& prices, std::span<const LabelListId> lists, Elimination& elimination) {
  return make_sets_frame(prices, lists, elimination);
}
SetsFrame<int64_t> sets_frame_of(SharePrices& prices, std::span<const LabelListId> lists, Elimination& elimination) {
  return make_sets_frame(prices, lists, elimination);
}

}  // namespace meshard
