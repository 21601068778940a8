#include "meshard/layout/block.h"

#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <cstring>

#include "meshard/base/error.h"

namespace meshard {
namespace {

// One loop of a copy, in bytes. The innermost "loop" is a run of bytes.
struct Loop {
  int64_t count = 0, source = 0, target = 0;
};

// Copies `outer.count` runs. A constant size lets the compiler turn memcpy into a load and a store, which is what a
// split of the last dimension into single elements needs.
template <int64_t kBytes>
void copy_runs(const std::byte* source, std::byte* target, const Loop& outer) {
  for (int64_t i = 0; i < outer.count; ++i) std::memcpy(target + i * outer.target, source + i * outer.source, kBytes);
}

void copy_runs(const std::byte* source, std::byte* target, const Loop& outer, int64_t bytes) {
  switch (bytes) {
    case 2:
      return copy_runs<2>(source, target, outer);
    case 4:
      return copy_runs<4>(source, target, outer);
    case 8:
      return copy_runs<8>(source, target, outer);
    case 16:
      return copy_runs<16>(source, target, outer);
    case 32:
      return copy_runs<32>(source, target, outer);
  }
  for (int64_t i = 0; i < outer.count; ++i) {
    std::memcpy(target + i * outer.target, source + i * outer.source, static_cast<size_t>(bytes));
  }
}

bool inside(Block part, Block whole) { return part.begin >= whole.begin && part.end() <= whole.end(); }

}  // namespace

Block block(int64_t elements, int64_t parts, int64_t index) {
  const auto begin = [&](int64_t i) {
    int64_t product = 0;  // as a rule it fits, and the division is then twenty times as fast
    if (!__builtin_mul_overflow(i, elements, &product) && !__builtin_add_overflow(product, parts - 1, &product)) {
      return product / parts;
    }
    return static_cast<int64_t>((static_cast<__int128>(i) * elements + parts - 1) / parts);
  };
  const int64_t first = begin(index);
  return {first, begin(index + 1) - first};
}

Block intersect(Block a, Block b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max<int64_t>(0, std::min(a.end(), b.end()) - begin)};
}

int64_t Rect::elements() const {
  int64_t product = 1;
  for (const Block& dim : dims) product *= dim.size;
  return product;
}

Shape Rect::shape() const {
  Shape shape;
  for (const Block& dim : dims) shape.dims.push_back(dim.size);
  return shape;
}

Rect intersect(const Rect& a, const Rect& b) {
  MESHARD_CHECK(a.dims.size() == b.dims.size(), "rectangles of different ranks meet");
  Rect out;
  for (size_t d = 0; d < a.dims.size(); ++d) out.dims.push_back(intersect(a.dims[d], b.dims[d]));
  return out;
}

Rect local_rect(const Mesh& mesh, const Shape& shape, const Layout& layout, Rank rank) {
  MESHARD_CHECK(layout.rank() == shape.rank(), "layout and shape have different ranks");
  Rect rect;
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms& atoms = layout.atoms(d);
    rect.dims.push_back(block(shape[d], mesh.parts(atoms), mesh.position(rank, atoms)));
  }
  return rect;
}

Shape local_shape(const Mesh& mesh, const Shape& shape, const Layout& layout, Rank rank) {
  return local_rect(mesh, shape, layout, rank).shape();
}

int64_t local_elements(const Mesh& mesh, const Shape& shape, const Layout& layout, Rank rank) {
  return local_rect(mesh, shape, layout, rank).elements();
}

int64_t largest_local_elements(const Mesh& mesh, const Shape& shape, const Layout& layout) {
  // Block 0 begins at 0 and ends at ceil(n / P), the largest size there is; rank 0 has block 0 of every dimension.
  return local_elements(mesh, shape, layout, Rank{0});
}

int64_t all_local_elements(const Mesh& mesh, const Shape& shape, const Layout& layout) {
  // The dimensions are split by different atoms, so the blocks cover the tensor once; what splits nothing makes copies.
  return shape.elements() * (mesh.size() / mesh.parts(layout.split()));
}

void copy_rect(const void* source, const Rect& from, void* target, const Rect& to, const Rect& part,
               int64_t element_bytes) {
  const size_t rank = part.dims.size();
  MESHARD_CHECK(from.dims.size() == rank && to.dims.size() == rank, "rectangles of different ranks in a copy");
  if (part.elements() == 0) return;
  // Loops from the inside out, two of them being one where both arrays continue without a gap.
  absl::InlinedVector<Loop, 8> loops = {{element_bytes, 1, 1}};  // on the stack: copies run in every step
  int64_t source_stride = element_bytes, target_stride = element_bytes;
  int64_t source_at = 0, target_at = 0;  // bytes
  for (size_t d = rank; d-- > 0;) {
    const Block p = part.dims[d];
    MESHARD_CHECK(inside(p, from.dims[d]) && inside(p, to.dims[d]), "a copy outside its arrays");
    source_at += (p.begin - from.dims[d].begin) * source_stride;
    target_at += (p.begin - to.dims[d].begin) * target_stride;
    Loop& last = loops.back();
    if (last.source * last.count == source_stride && last.target * last.count == target_stride) {
      last.count *= p.size;
    } else if (p.size > 1) {
      loops.push_back({p.size, source_stride, target_stride});
    }
    source_stride *= from.dims[d].size;
    target_stride *= to.dims[d].size;
  }
  const int64_t run = loops[0].count;
  const std::byte* read = static_cast<const std::byte*>(source) + source_at;
  std::byte* write = static_cast<std::byte*>(target) + target_at;
  if (loops.size() == 1) {
    std::memcpy(write, read, static_cast<size_t>(run));
    return;
  }
  absl::InlinedVector<int64_t, 8> at(loops.size(), 0);  // counters of the loops from 2 on
  while (true) {
    copy_runs(read, write, loops[1], run);
    size_t l = 2;
    for (; l < loops.size(); ++l) {
      read += loops[l].source;
      write += loops[l].target;
      if (++at[l] < loops[l].count) break;
      read -= loops[l].source * loops[l].count;
      write -= loops[l].target * loops[l].count;
      at[l] = 0;
    }
    if (l == loops.size()) return;
  }
}

}  // namespace meshard
