// CUDA's kernels against the specification, as tests/ops/device_test.cc does for the emulated ones: every op, on the
// whole and on the blocks of meshes, into poisoned results between guard bytes, twice with equal bits.
#include <catch2/catch.hpp>
#include <cstring>

#include "meshard/backend/backend.h"
#include "split_run.h"

namespace meshard::test {
namespace {

constexpr int64_t kGuard = 1024;  // bytes before and behind

// A value on the GPU between guards of 0xff.
class OnDevice {
 public:
  OnDevice(Backend& gpu, int64_t bytes) : gpu_(gpu), bytes_(bytes), memory_(&gpu, bytes + 2 * kGuard) {
    const Buffer poison(memory_.bytes());
    std::memset(poison.data(), 0xff, static_cast<size_t>(memory_.bytes()));
    gpu_.copy(memory_.data(), poison.data(), memory_.bytes(), Backend::compute);
    gpu_.synchronize(Backend::compute);
  }
  void* data() const { return memory_.data() + kGuard; }
  void put(const Tensor& t) const {
    gpu_.copy(data(), t.data(), bytes_, Backend::compute);
    gpu_.synchronize(Backend::compute);
  }
  Tensor get(const Type& type) const {
    const Buffer all(memory_.bytes());
    gpu_.copy(all.data(), memory_.data(), memory_.bytes(), Backend::compute);
    gpu_.synchronize(Backend::compute);
    for (int64_t i = 0; i < kGuard; ++i) {
      if (all.data()[i] != std::byte{0xff} || all.data()[kGuard + bytes_ + i] != std::byte{0xff}) FAIL("a kernel writes outside its blocks");
    }
    Tensor t(type);
    if (bytes_ > 0) std::memcpy(t.data(), all.data() + kGuard, static_cast<size_t>(bytes_));
    return t;
  }

 private:
  Backend& gpu_;
  int64_t bytes_;
  Memory memory_;
};

std::vector<Tensor> run_on(Backend& gpu, const Prepared& kernel, const KernelSpec& spec, const std::vector<Tensor>& operands) {
  std::vector<OnDevice> held, results;
  std::vector<void*> in, out;
  for (const Tensor& t : operands) {
    held.emplace_back(gpu, t.type().bytes()).put(t);
    in.push_back(held.back().data());
  }
  for (const KernelOperand& r : spec.results) out.push_back(results.emplace_back(gpu, r.type.bytes()).data());
  const OnDevice workspace(gpu, kernel.workspace_bytes);
  gpu.run(kernel, {in, out, workspace.data()}, Backend::compute);
  gpu.synchronize(Backend::compute);
  std::vector<Tensor> made;
  for (size_t r = 0; r < results.size(); ++r) made.push_back(results[r].get(spec.results[r].type));
  for (size_t i = 0; i < held.size(); ++i) {
    if (!same_bytes(held[i].get(operands[i].type()), operands[i])) FAIL("a kernel writes to an operand");
  }
  workspace.get(Type{Dtype::bf16, Shape{kernel.workspace_bytes / 2}});
  return made;
}

void check(Backend& gpu, const OpDef& def, const KernelSpec& spec, const std::vector<Tensor>& operands,
           const std::vector<Tensor>& expected, double tolerance) {
  const Prepared kernel = gpu.kernels().find(def.reference)(spec);
  const std::vector<Tensor> first = run_on(gpu, kernel, spec, operands), second = run_on(gpu, kernel, spec, operands);
  for (size_t r = 0; r < first.size(); ++r) {
    INFO("result " << r);
    CHECK(difference(first[r], expected[r], tolerance) == "");
    CHECK(same_bytes(first[r], second[r]));
    if (def.random && def.operand_dtypes.empty()) CHECK(same_bytes(first[r], expected[r]));
  }
}

}  // namespace

TEST_CASE("CUDA kernels equal the reference") {
  const auto gpu = cuda_backend(0);
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(15);
      for (const Case& as_written : cases(*def)) {
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::f64}) {
          const Case c = as_written.with(dtype);
          INFO(c.text << " in " << name(dtype));
          const BoundRule rule = c.rule();
          const LocalSpec local = local_spec(c, rule, Mesh(), FactorAtoms(rule.factors.size()), Rank{0});
          const std::vector<Tensor> operands = draw_operands(c, random);
          check(*gpu, *def, local.spec, operands, run_whole(c, operands), c.tolerance());
        }
      }
    }
  }
}

TEST_CASE("CUDA kernels equal the reference on the blocks of meshes") {
  const auto gpu = cuda_backend(0);
  const Mesh mesh = Mesh::parse("a=2, b=2");
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(16);
      for (const Case& c : cases(*def)) {
        if (!c.small()) continue;
        const BoundRule rule = c.rule();
        for_each_assignment(mesh, rule, [&](const FactorAtoms& atoms) {
          INFO(c.text << " " << assignment_text(mesh, rule, atoms));
          if (splits_lowered(rule, atoms)) return;
          for (int r = 0; r < static_cast<int>(mesh.size()); ++r) {
            const LocalSpec local = local_spec(c, rule, mesh, atoms, Rank{r});
            std::vector<Tensor> operands;
            const std::vector<Tensor> whole = draw_operands(c, random);
            for (size_t i = 0; i < whole.size(); ++i) {
              operands.emplace_back(local.spec.operands[i].type);
              for (int64_t e = 0; e < operands[i].elements(); ++e) {
                operands[i].set(e, whole[i].get(e % std::max<int64_t>(whole[i].elements(), 1)));
              }
            }
            check(*gpu, *def, local.spec, operands, run_kernel(def->reference(local.spec), local.spec, operands), c.tolerance());
          }
        });
      }
    }
  }
}

}  // namespace meshard::test
