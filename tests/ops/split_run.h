// Runs one op: whole, or shard by shard on the devices of a mesh, and puts the shards together again.
#pragma once

#include <functional>
#include <vector>

#include "cases.h"
#include "meshard/layout/block.h"

namespace meshard::test {

// What a kernel on `rank` is told. It refers to the case and the rule.
struct LocalSpec {
  KernelSpec spec;
  std::vector<Layout> operands, results;  // results may be pending
  std::vector<Rect> reads;                // of each operand: its block, or the range that the op fetches
};
LocalSpec local_spec(const Case& c, const BoundRule& rule, const Mesh& mesh, const FactorAtoms& atoms, Rank rank);

// Runs one kernel into fresh, poisoned results. Fails the test where it writes outside its results or workspace.
std::vector<Tensor> run_kernel(const Prepared& kernel, const KernelSpec& spec, const std::vector<Tensor>& operands);

std::vector<Tensor> run_whole(const Case& c, const std::vector<Tensor>& operands);
std::vector<Tensor> run_split(const Case& c, const Mesh& mesh, const FactorAtoms& atoms,
                              const std::vector<Tensor>& operands);

// A value on the devices of a mesh.
struct Sharded {
  Layout layout;
  std::vector<Tensor> parts;  // by rank
};
Sharded shard(const Mesh& mesh, const Tensor& whole, const Layout& layout);
Tensor assemble(const Mesh& mesh, const Sharded& value, const Shape& shape);  // pending reductions done
std::vector<Sharded> run_sharded(const Case& c, const BoundRule& rule, const Mesh& mesh, const FactorAtoms& atoms,
                                 const std::vector<const Sharded*>& operands);

// Calls `visit` with every assignment of the mesh's axes to factors, or to none, in every order on one factor, that
// illegal_split allows.
void for_each_assignment(const Mesh& mesh, const BoundRule& rule, const std::function<void(const FactorAtoms&)>& visit);
std::string assignment_text(const Mesh& mesh, const BoundRule& rule, const FactorAtoms& atoms);
bool splits_lowered(const BoundRule& rule, const FactorAtoms& atoms);

// 1-D, 2-D and 3-D; blocks of 5, 3 and 1 over them are uneven or empty.
const std::vector<Mesh>& meshes();

}  // namespace meshard::test
