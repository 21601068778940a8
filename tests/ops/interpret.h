// Runs a function of ops with the reference kernels: whole, or on the devices of a mesh.
#pragma once

#include <vector>

#include "meshard/ir/program.h"
#include "split_run.h"

namespace meshard::test {

// The values of `wanted`.
std::vector<Tensor> interpret(const Function& f, const std::vector<Tensor>& params, const std::vector<ValueId>& wanted);

// The same on `mesh`, with the parameters in `layouts`. Every op runs in the layouts that its operands have; pending
// operands are reduced before an op reads them, and an operand that does not agree with one before it is laid out like
// that.
std::vector<Tensor> interpret_sharded(const Function& f, const Mesh& mesh, const std::vector<Tensor>& params,
                                      const std::vector<Layout>& layouts, const std::vector<ValueId>& wanted);

}  // namespace meshard::test
