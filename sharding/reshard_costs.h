// ReshardCosts: what changes of layout cost, remembered. Planning asks for the same ones again and again, so shapes and
// layouts have numbers here.
//
//   ReshardCosts costs(mesh);
//   int shape = costs.shape({8, 4}), from = costs.layout(a), to = costs.layout(b);
//   costs.get(shape, from, to).elements          // received over all devices
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "meshard/layout/reshard.h"

namespace meshard {

using LayoutId = int32_t;

class ReshardCosts {
 public:
  explicit ReshardCosts(const Mesh& mesh);
  ~ReshardCosts();
  ReshardCosts(ReshardCosts&&) noexcept;

  const Mesh& mesh() const;
  int shape(const Shape& shape);
  LayoutId layout(const Layout& layout);
  const Layout& layout(LayoutId id) const;

  struct Entry {
    int64_t elements = 0;   // received, over all devices
    int32_t messages = 0;   // steps that talk
    bool possible = true;
  };
  Entry get(int shape, LayoutId from, LayoutId to);

  // The same as a share of the tensor's elements, which holds for all shapes that `shares` names: on large meshes, where blocks are taken
  // as even, for all; on small ones for those that all layouts cut evenly, if the share is not by_class. A by_class share has to be asked
  // for once more, with the class of the shape; else the class is 0.
  struct Share {
    int64_t share = 0;      // in 2^-kShareBits
    int32_t messages = 0;
    bool possible = true;
    bool by_class = false;
  };
  static constexpr int kShareBits = 24;
  Share share(int shape_class, LayoutId from, LayoutId to);
  bool shares(int shape) const;
  int shape_class(int shape) const;                    // 0: no share is known by class
  int64_t elements(int shape) const;
  int64_t held_share(LayoutId layout) const;           // of a block
  // The steps, planned anew; requires that it is possible.
  std::vector<ReshardStep> steps(int shape, LayoutId from, LayoutId to);
  int64_t block_elements(int shape, LayoutId layout);  // of the largest block

  // What a reader that needs `needed` asks of a value that is made as `have`: itself, or, where a whole value may be taken in
  // parts as a sum (all of it on the first device, zeros on the others, which moves nothing), `needed` without the sums over
  // axes over which `have` is no sum. Axes that split `have` are gathered first: no reshard makes a sum of a split.
  LayoutId before_part(LayoutId have, LayoutId needed);

  // How a value gets its copies: for each needed layout the one it is made from (-1: the value as it is made), so that the
  // bytes over all devices are least; ties go to fewer messages, then to the value itself and to earlier ones. Exact for up to five.
  struct Copies {
    std::vector<int> parents;
    int64_t elements = 0;
    int64_t messages = 0;
    bool possible = true;
  };
  Copies copies(int shape, LayoutId made, std::span<const LayoutId> needed);  // distinct, none equal to made

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace meshard
