#include "meshard/kernels/epilogue.h"

#include <algorithm>
#include <array>

namespace meshard {
namespace {

KernelSpec part(const KernelSpec& spec, std::vector<KernelOperand> operands, const KernelOperand& result) {
  return {{}, spec.attributes, spec.factors, std::move(operands), {result}, spec.threads};
}

}  // namespace

EpilogueParts::EpilogueParts(const KernelSpec& spec, bool activated) : sum(spec.results.size() - 1) {
  const KernelOperand& y = spec.results[sum];
  product = part(spec, {spec.operands[0], spec.operands[1]}, y);
  bias = part(spec, {y, spec.operands[2]}, y);
  if (activated) activation = part(spec, {y}, spec.results[0]);
}

Prepared run_epilogue(const KernelSpec& spec, PrepareFn product, PrepareFn add, PrepareFn activation) {
  const EpilogueParts parts(spec, activation != nullptr);
  const Prepared first = product(parts.product), second = add(parts.bias);
  const Prepared third = activation != nullptr ? activation(parts.activation) : Prepared();
  if (!first.run || !second.run || (activation != nullptr && !third.run)) return {};
  return {std::max({first.workspace_bytes, second.workspace_bytes, third.workspace_bytes}),
          [first, second, third, at = parts.sum](const KernelCall& call) {
            void* sum = call.results[at];
            first.run({call.operands.first(2), std::array{sum}, call.workspace, call.stream});
            second.run({std::array{sum, call.operands[2]}, std::array{sum}, call.workspace, call.stream});
            if (third.run) third.run({std::array{sum}, call.results.first(1), call.workspace, call.stream});
          }};
}

}  // namespace meshard
