// Group: the ranks that differ only along given atoms of the mesh, in the order of their position along them. The
// collectives of a program run over groups.
//
//   Group g(mesh, AtomSet::of(mesh.find("model")->atoms), Rank{5});   // {4, 5, 6, 7}, self() == 1
#pragma once

#include <string_view>

#include "meshard/mesh/mesh.h"

namespace meshard {

// How a pending value is put together.
enum class Reduction : uint8_t { sum, max, min };
inline constexpr int kReductions = 3;
std::string_view name(Reduction kind);  // "sum"

// What the ranks of a group do together. `slice` moves nothing: it is in the list since it is a change of layout too.
enum class Collective : uint8_t {
  slice, all_gather, all_reduce, reduce_scatter, all_to_all, permute, exchange, broadcast, barrier
};
std::string_view name(Collective kind);  // "all_gather"

class Group {
 public:
  Group() = default;
  Group(const Mesh& mesh, AtomSet over, Rank self);

  AtomSet over() const { return over_; }
  std::span<const Rank> ranks() const { return ranks_; }
  int size() const { return static_cast<int>(ranks_.size()); }
  int self() const { return self_; }  // index of this rank in ranks()
  Rank operator[](int i) const { return ranks_[static_cast<size_t>(i)]; }

 private:
  AtomSet over_;
  std::vector<Rank> ranks_;
  int self_ = 0;
};

}  // namespace meshard
