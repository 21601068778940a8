#include "meshard/mesh/group.h"

#include <catch2/catch.hpp>

namespace meshard {
namespace {

std::vector<int> ranks(const Group& group) {
  std::vector<int> out;
  for (Rank rank : group.ranks()) out.push_back(static_cast<int>(rank));
  return out;
}

}  // namespace

TEST_CASE("a group differs along its atoms only") {
  const Mesh mesh = Mesh::parse("data=2, model=6");
  const AtomSet data = AtomSet::of(mesh.find("data")->atoms), model = AtomSet::of(mesh.find("model")->atoms);
  const Group along_model(mesh, model, Rank{8});
  CHECK(ranks(along_model) == std::vector<int>{6, 7, 8, 9, 10, 11});
  CHECK(along_model.self() == 2);
  CHECK(along_model.over() == model);
  CHECK(ranks(Group(mesh, data, Rank{8})) == std::vector<int>{2, 8});
  CHECK(ranks(Group(mesh, AtomSet{}, Rank{8})) == std::vector<int>{8});
  CHECK(Group(mesh, data | model, Rank{8}).self() == 8);
  // The factor 3 below the major 2 of model, with data: positions count mesh order.
  const AtomSet mixed = data | AtomSet::of(std::vector<AtomId>{2});
  CHECK(ranks(Group(mesh, mixed, Rank{5})) == std::vector<int>{3, 4, 5, 9, 10, 11});
  CHECK_THROWS_AS(Group(mesh, AtomSet{8}, Rank{0}), InternalError);
}

TEST_CASE("groups cut the mesh into parts, and agree about themselves") {
  const Mesh mesh = Mesh::parse("a=3, b=4, c=5");
  for (uint64_t bits = 0; bits < uint64_t{1} << mesh.atom_count(); ++bits) {
    for (int32_t r = 0; r < mesh.size(); ++r) {
      const Group group(mesh, AtomSet{bits}, Rank{r});
      REQUIRE(group.size() == mesh.parts(AtomSet{bits}));
      REQUIRE(group[group.self()] == Rank{r});
      REQUIRE(ranks(Group(mesh, AtomSet{bits}, group[0])) == ranks(group));
      for (int i = 0; i < group.size(); ++i) REQUIRE(mesh.position(group[i], AtomSet{bits}.list()) == i);
    }
  }
}

TEST_CASE("names of reductions and collectives") {
  CHECK(name(Reduction::sum) == "sum");
  CHECK(name(Reduction::min) == "min");
  CHECK(name(Collective::slice) == "slice");
  CHECK(name(Collective::all_reduce) == "all_reduce");
  CHECK(name(Collective::barrier) == "barrier");
}

}  // namespace meshard
