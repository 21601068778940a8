// The slow twin of plan_reshard: an exhaustive search for the cheapest sequence of steps between two layouts, over all
// layouts of the tensor. It shares no formula with the planner: what a step moves is counted rank by rank.
//
//   ReshardSearch search(mesh, {8, 6}, {Reduction::sum}, {.exchange = false});
//   std::vector<int64_t> least = search.costs(search.find(from));   // elements to each of search.layouts(), -1: none
//
// It is for tests and tables: time and memory grow with the square of the number of layouts, which is 1,240 for three
// dimensions on 16 devices, a pending sum included.
#pragma once

#include "meshard/layout/reshard.h"

namespace meshard {

// Every layout of a value of `rank` dimensions: each atom is free, anywhere in a dimension's list, or pending in one of
// the ways given.
std::vector<Layout> all_layouts(const Mesh& mesh, int rank, const std::vector<Reduction>& pending);

struct SearchOptions {
  bool exchange = true;   // whether an exchange is a step
  bool busiest = false;   // a step costs what its busiest rank receives, instead of what all ranks do
};

class ReshardSearch {
 public:
  ReshardSearch(const Mesh& mesh, const Shape& shape, const std::vector<Reduction>& pending, SearchOptions options);

  const std::vector<Layout>& layouts() const { return layouts_; }
  int find(const Layout& layout) const;  // its index; the layout must be closed
  // Least elements received from layouts()[from] to each layout; -1 where no steps lead.
  std::vector<int64_t> costs(int from) const;
  // A cheapest sequence, of fewest steps; empty if there is none.
  std::vector<ReshardStep> steps(int from, int to) const;

 private:
  struct Edge {
    int to;
    Collective kind;
    int64_t elements;
  };
  struct Reached {
    int64_t elements = -1;
    int steps = 0;
    int before = -1, edge = -1;
  };
  struct Counts;
  std::vector<Reached> reach(int from) const;
  ReshardStep step(int from, const Edge& edge) const;

  std::vector<Layout> layouts_;
  std::vector<std::vector<Edge>> edges_;
};

}  // namespace meshard
