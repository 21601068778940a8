#include "meshard/sharding/choice_tables.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/inlined_vector.h>

#include <algorithm>

#include "meshard/sharding/value_frames.h"

namespace meshard {
namespace {


using Key = absl::InlinedVector<int32_t, 8>;

void put(std::vector<int32_t>& key, int64_t x) {
  key.push_back(static_cast<int32_t>(x));
  key.push_back(static_cast<int32_t>(x >> 32));
}

}  // namespace

struct ChoiceTables::Known {
  absl::flat_hash_map<std::pair<int, LabelListId>, TableId> own;
  absl::flat_hash_map<Key, TableId> direct;
  absl::flat_hash_map<Key, std::unique_ptr<Sets>> sets;

  // Values that differ in shape, type, count and places alone have one pattern; their tables then differ by a factor.
  absl::flat_hash_map<std::vector<int32_t>, int> skeletons;
  absl::flat_hash_map<std::vector<int32_t>, int> asks;                            // what the labels of a list have at a port
  absl::flat_hash_map<std::pair<LabelListId, int>, int> asked;                    // by list and port: needed, or ~port: made
  absl::flat_hash_map<std::vector<int32_t>, std::unique_ptr<Frame<int64_t>>> frames;
  absl::flat_hash_map<std::vector<int32_t>, std::unique_ptr<SetsFrame<int64_t>>> set_frames;
};

// The frame of a value's table by shares, which holds for all shapes of a class; null: the shape itself has to be looked at.
template <class Frames, class Make>
auto ChoiceTables::shared(Frames& frames, int kind, std::span<const LabelListId> lists, Make make) -> typename Frames::mapped_type::pointer {
  const ValueNode& v = nodes_[static_cast<size_t>(kind)];
  if (!model_.costs().shares(v.shape)) return nullptr;
  std::vector<int32_t> key = frame_key(kind, lists);
  const int shape_class = model_.costs().shape_class(v.shape);
  key.push_back(0);
  for (int at : {0, shape_class}) {
    key.back() = at;
    auto& slot = frames[key];
    if (slot == nullptr) {
      SharePrices prices{model_, v, at};
      auto frame = make(prices);
      frame.by_class = at == 0 && prices.by_class;
      slot = std::make_unique<decltype(frame)>(std::move(frame));
    }
    if (!slot->by_class) return slot.get();
    if (shape_class == 0) return nullptr;
  }
  return nullptr;
}

ChoiceTables::~ChoiceTables() = default;

ChoiceTables::ChoiceTables(ChoiceModel& model) : model_(model), known_(std::make_unique<Known>()) {
  absl::flat_hash_map<std::vector<int32_t>, int> kinds, own_kinds;
  std::vector<int32_t> key;
  for (const Site& s : model.sites()) {
    key = {s.kind, s.kind == Site::op ? s.signature : s.propagated};
    put(key, s.weight);
    own_kinds_.push_back(own_kinds.try_emplace(key, static_cast<int>(own_kinds.size())).first->second);
  }
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
      std::vector<int32_t> skeleton = {node.maker < 0 ? -1 - node.layout : 0, reduced ? node.shape : -1, reduced ? node.propagated : -1};
      for (const Reader& r : node.readers) {
        skeleton.push_back(r.kind);
        skeleton.push_back(r.site < 0 ? -1 - r.layout : r.site);
      }
      skeletons_.push_back(known_->skeletons.try_emplace(std::move(skeleton), static_cast<int>(known_->skeletons.size())).first->second);
      nodes_.push_back(std::move(node));
    }
    kinds_.push_back(it->second);
    sites_.push_back(std::move(sites));
  }
}

TableId ChoiceTables::own(int site, LabelListId list) {
  const auto [it, fresh] = known_->own.try_emplace(std::pair(own_kinds_[static_cast<size_t>(site)], list), -1);
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
  if (fresh) it->second = price(kind, lists);
  return it->second;
}

const ChoiceTables::Sets& ChoiceTables::sets(int kind, std::span<const LabelListId> lists) {
  Key key = {kind};
  key.insert(key.end(), lists.begin(), lists.end());
  std::unique_ptr<Sets>& slot = known_->sets[std::move(key)];
  if (slot == nullptr) slot = std::make_unique<Sets>(price_sets(kind, lists));
  return *slot;
}

// What the frame of a value's table is known by.
std::vector<int32_t> ChoiceTables::frame_key(int kind, std::span<const LabelListId> lists) {
  std::vector<int32_t> key = {skeletons_[static_cast<size_t>(kind)]};
  const ValueNode& v = nodes_[static_cast<size_t>(kind)];
  const auto ask = [&](int site, int port) {
    const LabelListId list = lists[static_cast<size_t>(site)];
    const auto [it, fresh] = known_->asked.try_emplace(std::pair(list, port), -1);
    if (fresh) {
      std::vector<int32_t> layouts;
      for (SplitId id : model_.list(list)) {
        const Split& s = model_.split(id);
        layouts.push_back(port < 0 ? s.made[static_cast<size_t>(~port)] : s.needed[static_cast<size_t>(port)]);
        if (port >= 0) layouts.push_back(s.parts);
      }
      it->second = known_->asks.try_emplace(std::move(layouts), static_cast<int>(known_->asks.size())).first->second;
    }
    key.push_back(it->second);
  };
  if (v.maker == 0) ask(0, ~v.port);
  for (const Reader& r : v.readers) {
    if (r.site >= 0) ask(r.site, r.port);
  }
  return key;
}

template <class Cells>
std::vector<Cost> ChoiceTables::costs_of(const ValueNode& v, const Cells& cells) const {
  std::vector<Cost> costs;
  costs.reserve(cells.size());
  if constexpr (std::is_same_v<Cells, std::vector<Cell<Cost>>>) {
    for (const auto& c : cells) costs.push_back(model_.value_cost(v, c.moved, c.extra, Cost{c.held} * v.size * v.weight));
  } else {
    const Cost bytes = Cost{model_.costs().elements(v.shape)} * v.size * v.weight;
    const auto price = [&](int64_t number) {
      if (number >= SharePrices::kNone) return kInfinite;
      const Cost moved = (bytes * (number >> SharePrices::kMessageBits)) >> ReshardCosts::kShareBits;
      const Cost messages = Cost{number & ((1 << SharePrices::kMessageBits) - 1)} * v.weight;
      return moved >> 62 != 0 ? kInfinite : (moved << ChoiceModel::kBytesShift) + (messages << ChoiceModel::kMessagesShift);
    };
    for (const auto& c : cells) {
      costs.push_back(model_.value_cost(v, price(c.moved), price(c.extra), (bytes * c.held) >> ReshardCosts::kShareBits));
    }
  }
  return costs;
}

TableId ChoiceTables::price(int kind, std::span<const LabelListId> lists) {
  const ValueNode& v = nodes_[static_cast<size_t>(kind)];
  const auto make = [&](auto& prices) { return frame_of(prices, lists); };
  const auto add = [&](const auto& frame) {
    const std::vector<Cost> different = costs_of(v, frame.cells);
    std::vector<Cost> cells;
    cells.reserve(frame.which.size());
    for (uint32_t w : frame.which) cells.push_back(Cost{different[w]});
    return elimination_.add(frame.sizes, std::move(cells));
  };
  if (const auto* frame = shared(known_->frames, kind, lists, make)) return add(*frame);
  ShapePrices prices{model_, v};
  return add(make(prices));
}

ChoiceTables::Sets ChoiceTables::price_sets(int kind, std::span<const LabelListId> lists) {
  const ValueNode& v = nodes_[static_cast<size_t>(kind)];
  const auto make = [&](auto& prices) { return sets_frame_of(prices, lists, elimination_); };
  const auto add = [&](const auto& frame) { return Sets{frame.count, elimination_.add(frame.sizes, costs_of(v, frame.cells)), frame.readers}; };
  if (const auto* frame = shared(known_->set_frames, kind, lists, make)) return add(*frame);
  ShapePrices prices{model_, v};
  return add(make(prices));
}

}  // namespace meshard
