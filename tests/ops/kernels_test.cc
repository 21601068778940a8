// The tuned kernels against the reference: poisoned results, guard bytes (run_kernel checks them), twice the same, any
// number of threads, and results in the memory of the operands where the entry allows it.
#include <algorithm>
#include <catch2/catch.hpp>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/mixed.h"
#include "meshard/kernels/reference/reference.h"
#include "split_run.h"

namespace meshard::test {
namespace {

struct Both {
  BoundRule rule;  // `local` refers to its names
  LocalSpec local;
  std::vector<Tensor> operands, expected;
};

Both prepare(const Case& c, Random& random) {
  Both both;
  both.rule = c.rule();
  both.local = local_spec(c, both.rule, Mesh(), FactorAtoms(both.rule.factors.size()), Rank{0});
  both.operands = draw_operands(c, random);
  both.expected = run_whole(c, both.operands);
  return both;
}

std::vector<Tensor> run_in_place(const Prepared& kernel, const Both& both, int result, int operand) {
  std::vector<Tensor> operands, results;
  std::vector<void*> in, out;
  for (const Tensor& t : both.operands) operands.push_back(t.clone());
  for (const KernelOperand& r : both.local.spec.results) results.emplace_back(r.type);
  for (const Tensor& t : operands) in.push_back(t.data());
  for (const Tensor& t : results) out.push_back(t.data());
  out[static_cast<size_t>(result)] = in[static_cast<size_t>(operand)];
  Tensor workspace(Type{Dtype::f32, Shape{(kernel.workspace_bytes + 3) / 4}});
  kernel.run({in, out, workspace.data()});
  Tensor shared(results[static_cast<size_t>(result)].type());
  for (int64_t i = 0; i < shared.elements(); ++i) {
    // The shared memory holds the result's elements, in the result's shape.
    Tensor& from = operands[static_cast<size_t>(operand)];
    shared.set(i, from.get(i));
  }
  results[static_cast<size_t>(result)] = std::move(shared);
  return results;
}

void check_kernel(const Case& c, PrepareFn kernel, const Both& both, bool tuned) {
  for (const int threads : {1, 3}) {
    KernelSpec spec = both.local.spec;
    spec.threads = threads;
    Prepared prepared = tuned ? kernel(spec) : c.prepare(kernel, reference::convert, spec);
    if (!prepared.run && tuned && !c.def->explicit_type && float_types(spec).narrow) prepared = in_f32(kernel, cpu::convert, spec);
    if (!prepared.run) return;
    INFO((tuned ? "cpu" : "reference") << " kernel, " << threads << " threads");
    const std::vector<Tensor> first = run_kernel(prepared, spec, both.operands);
    const std::vector<Tensor> second = run_kernel(prepared, spec, both.operands);
    for (size_t r = 0; r < first.size(); ++r) {
      INFO("result " << r);
      CHECK(difference(first[r], both.expected[r], c.tolerance()) == "");
      CHECK(same_bytes(first[r], second[r]));
    }
    for (const auto& [result, operand] : c.def->in_place) {
      const Type& to = both.expected[static_cast<size_t>(result)].type();
      const Type& from = c.operands[static_cast<size_t>(operand)];
      if (to.bytes() != from.bytes() || to.dtype != from.dtype) continue;
      INFO("result " << result << " in the memory of operand " << operand);
      const std::vector<Tensor> shared = run_in_place(prepared, both, result, operand);
      for (size_t r = 0; r < shared.size(); ++r) CHECK(same_bytes(shared[r], first[r]));
    }
  }
}

}  // namespace

TEST_CASE("kernels equal the reference") {
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(5);
      for (const Case& as_written : cases(*def)) {
        for (const Case& c : as_written.in_all_types()) {
          INFO(c.text << " in " << c.types);
          const Both both = prepare(c, random);
          check_kernel(c, def->reference, both, false);
          if (def->cpu) check_kernel(c, def->cpu, both, true);
        }
      }
    }
  }
}

// The specification itself in lower precision: f32, bf16 and f16 against f64 on the same rounded operands.
TEST_CASE("the reference in f32, bf16 and f16 is near f64") {
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(6);
      for (const Case& as_written : cases(*def)) {
        const Case wide = as_written.with(Dtype::f64);
        if (wide.operands == as_written.operands && wide.expected == as_written.expected) continue;
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
          const Case c = as_written.with(dtype);
          INFO(c.text << " in " << name(dtype));
          const Both both = prepare(c, random);
          std::vector<Tensor> operands;
          for (const Tensor& t : both.operands) operands.push_back(t.as(Dtype::f64));
          const std::vector<Tensor> exact = run_whole(wide, operands);
          for (size_t r = 0; r < exact.size(); ++r) {
            INFO("result " << r);
            CHECK(difference(both.expected[r].as(Dtype::f64), exact[r], c.tolerance()) == "");
          }
        }
      }
    }
  }
}

}  // namespace meshard::test
