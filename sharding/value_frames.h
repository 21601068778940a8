// Frames: the tables of values without their numbers, which many values share. Internal to choose.
//
//   SharePrices prices{model, value};
//   Frame<int64_t> frame = frame_of(prices, lists);    // for every shape whose prices are shares (ReshardCosts::shares)
//
// `lists` are those of the value's sites, its maker first.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "meshard/sharding/choice_model.h"
#include "meshard/sharding/elimination.h"

namespace meshard {

// What the copies of a value cost when it is made in one way: by a number that edges have, elements and messages together.
template <class Number>
struct Cell {
  Number moved = 0, extra = 0;  // extra: for copies that go their own way (Reader::separate)
  int64_t held = 0;
};

// Prices of one shape, as costs; held are elements.
struct ShapePrices {
  using Number = Cost;
  static constexpr Cost kNone = kInfinite;
  static constexpr int kFreeBits = ChoiceModel::kBytesShift;  // an edge without them is free
  ChoiceModel& model;
  const ValueNode& value;

  Cost edge(LayoutId from, LayoutId to) { return model.price(value, model.costs().get(value.shape, from, to)); }
  int64_t held(LayoutId layout) { return model.costs().block_elements(value.shape, layout); }
};

// Prices of all shapes (of a class), as shares of the tensor.
struct SharePrices {
  using Number = int64_t;  // a share, then messages
  static constexpr int kMessageBits = 8;
  static constexpr int kFreeBits = kMessageBits;
  static constexpr int64_t kNone = int64_t{1} << 60;
  ChoiceModel& model;
  const ValueNode& value;
  int shape_class = 0;
  bool by_class = false;

  int64_t edge(LayoutId from, LayoutId to) {
    auto s = model.costs().share(0, from, to);
    if (s.by_class) {
      by_class = true;
      if (shape_class > 0) s = model.costs().share(shape_class, from, to);
    }
    return s.possible ? std::min((s.share << kMessageBits) + s.messages, kNone - 1) : kNone;
  }
  int64_t held(LayoutId layout) { return model.costs().held_share(layout); }
};

// A table of a value without its numbers: many labels ask for the same copies.
template <class Number>
struct Frame {
  std::vector<int> sizes;             // of the lists with more than one label
  std::vector<Cell<Number>> cells;    // different ones
  std::vector<uint32_t> which;        // of each cell of the table; empty: they are the table
  bool by_class = false;              // the prices hold for one class of shapes
};

// The same for a value of many readers (ChoiceTables::Sets): which copies are made, and which of these sets serve each reader.
template <class Number>
struct SetsFrame : Frame<Number> {
  int count = 0;
  std::vector<TableId> readers;
};

Frame<Cost> frame_of(ShapePrices& prices, std::span<const LabelListId> lists);
Frame<int64_t> frame_of(SharePrices& prices, std::span<const LabelListId> lists);
SetsFrame<Cost> sets_frame_of(ShapePrices& prices, std::span<const LabelListId> lists, Elimination& elimination);
SetsFrame<int64_t> sets_frame_of(SharePrices& prices, std::span<const LabelListId> lists, Elimination& elimination);

}  // namespace meshard
