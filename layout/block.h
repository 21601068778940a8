// Blocks: which part of a tensor a device holds. Block i of P over n elements begins at ceil(i n / P), with P the product
// of all atoms of the dimension: blocks differ by one element at most, coarse blocks are unions of fine ones, and 5 over 4
// is 2, 1, 1, 1. A block may be empty.
//
//   Rect mine = local_rect(mesh, {5, 8}, Layout::parse("[data, model]", mesh), rank);
#pragma once

#include "meshard/base/shape.h"
#include "meshard/layout/layout.h"

namespace meshard {

struct Block {
  int64_t begin = 0;
  int64_t size = 0;
  int64_t end() const { return begin + size; }
  bool operator==(const Block&) const = default;
};

Block block(int64_t elements, int64_t parts, int64_t index);
Block intersect(Block a, Block b);

// One block per dimension, in global indices.
struct Rect {
  InlineVector<Block, 5> dims;
  int64_t elements() const;  // 1 for a scalar
  Shape shape() const;
  bool operator==(const Rect&) const = default;
};
Rect intersect(const Rect& a, const Rect& b);

Rect local_rect(const Mesh& mesh, const Shape& shape, const Layout& layout, Rank rank);
Shape local_shape(const Mesh& mesh, const Shape& shape, const Layout& layout, Rank rank);
int64_t local_elements(const Mesh& mesh, const Shape& shape, const Layout& layout, Rank rank);
// The largest local_elements of any rank, and the sum over all ranks, without visiting the ranks.
int64_t largest_local_elements(const Mesh& mesh, const Shape& shape, const Layout& layout);
int64_t all_local_elements(const Mesh& mesh, const Shape& shape, const Layout& layout);

// Copies the elements of `part` (global indices) between two contiguous row-major arrays that hold `from` and `to`.
// `part` must lie in both. `element_bytes` is any size.
void copy_rect(const void* source, const Rect& from, void* target, const Rect& to, const Rect& part, int64_t element_bytes);

}  // namespace meshard
