// A device's kernels against the specification: the emulated ones always, CUDA's where there is a GPU (cuda_test.cc).
// Every op that computes has one. Each runs on the whole and on every block that a mesh gives, into poisoned results
// with guard bytes, twice, with threads in both orders, and in the memory of its operands where the entry allows it.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "meshard/base/text.h"
#include "meshard/kernels/device_kernels.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/table.h"
#include "split_run.h"

namespace meshard::test {
namespace {

constexpr uintptr_t kForwards = 0, kBackwards = 1;  // streams of emulated kernels

std::vector<Tensor> run_on(uintptr_t stream, const Prepared& kernel, const KernelSpec& spec,
                           const std::vector<Tensor>& operands, std::pair<int, int> in_place = {-1, -1}) {
  std::vector<Tensor> held, results;
  std::vector<void*> in, out;
  for (const Tensor& t : operands) held.push_back(t.clone());
  for (const Tensor& t : held) in.push_back(t.data());
  for (const KernelOperand& r : spec.results) results.emplace_back(r.type);
  for (const Tensor& t : results) out.push_back(t.data());
  const auto [result, operand] = in_place;
  if (result >= 0) out[static_cast<size_t>(result)] = in[static_cast<size_t>(operand)];
  Tensor workspace(Type{Dtype::f32, Shape{(kernel.workspace_bytes + 3) / 4}});
  kernel.run({in, out, workspace.data(), reinterpret_cast<void*>(stream)});
  if (!workspace.guards_intact()) FAIL("the kernel writes outside its workspace");
  for (const Tensor& t : results)
    if (!t.guards_intact()) FAIL("the kernel writes outside its results");
  for (size_t i = 0; i < held.size(); ++i) {
    if (!held[i].guards_intact()) FAIL("the kernel writes outside its operands");
    if (static_cast<int>(i) != operand && !same_bytes(held[i], operands[i])) FAIL("the kernel writes to an operand");
  }
  if (result >= 0) {
    Tensor& shared = results[static_cast<size_t>(result)];
    Tensor& from = held[static_cast<size_t>(operand)];
    for (int64_t i = 0; i < shared.elements(); ++i) shared.set(i, from.get(i));
  }
  return results;
}

void check(const OpDef& def, const Prepared& prepared, const KernelSpec& spec, const std::vector<Tensor>& operands,
           const std::vector<Tensor>& expected, double tolerance) {
  REQUIRE(prepared.run);
  const std::vector<Tensor> first = run_on(kForwards, prepared, spec, operands);
  const std::vector<Tensor> second = run_on(kBackwards, prepared, spec, operands);
  for (size_t r = 0; r < first.size(); ++r) {
    INFO("result " << r);
    CHECK(difference(first[r], expected[r], tolerance) == "");
    CHECK(same_bytes(first[r], second[r]));
  }
  for (const auto& [result, operand] : def.in_place) {
    const Type& to = expected[static_cast<size_t>(result)].type();
    const Type& from = operands[static_cast<size_t>(operand)].type();
    if (to.bytes() != from.bytes() || to.dtype != from.dtype) continue;
    INFO("result " << result << " in the memory of operand " << operand);
    const std::vector<Tensor> shared = run_on(kForwards, prepared, spec, operands, {result, operand});
    for (size_t r = 0; r < shared.size(); ++r) CHECK(same_bytes(shared[r], first[r]));
  }
}

Attributes parse_rule(const std::string& text) {
  Scanner in(text, "case");
  return Attributes::parse(in);
}

}  // namespace

TEST_CASE("every op that computes has a device kernel") {
  for (const OpDef* def : computing_ops()) {
    INFO(def->name);
    CHECK(emulated_kernels()->find(def->reference) != nullptr);
  }
}

TEST_CASE("emulated device kernels equal the reference") {
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(15);
      for (const Case& as_written : cases(*def)) {
        for (const Case& c : as_written.in_all_types()) {
          INFO(c.text << " in " << c.types);
          const BoundRule rule = c.rule();
          const LocalSpec local = local_spec(c, rule, Mesh(), FactorAtoms(rule.factors.size()), Rank{0});
          const std::vector<Tensor> operands = draw_operands(c, random);
          const DeviceKernels& kernels = *emulated_kernels();
          const Prepared prepared = c.prepare(kernels.find(def->reference), kernels.find(reference::convert), local.spec);
          check(*def, prepared, local.spec, operands, run_whole(c, operands), c.tolerance());
        }
      }
    }
  }
}

// What a kernel of two types takes itself is what the specification makes with conversions around it.
TEST_CASE("emulated kernels of two types equal the reference") {
  int taken = 0;
  for (const OpDef* def : computing_ops()) {
    const PrepareFn kernel = emulated_kernels()->find_mixed(def->reference);
    if (kernel == nullptr) continue;
    DYNAMIC_SECTION(def->name) {
      Random random(18);
      for (const Case& as_written : cases(*def)) {
        for (const Case& c : as_written.in_all_types()) {
          if (!c.wide) continue;
          INFO(c.text << " in " << c.types);
          const BoundRule rule = c.rule();
          const LocalSpec local = local_spec(c, rule, Mesh(), FactorAtoms(rule.factors.size()), Rank{0});
          const Prepared prepared = kernel(local.spec);
          if (!prepared.run) continue;
          ++taken;
          const std::vector<Tensor> operands = draw_operands(c, random);
          check(*def, prepared, local.spec, operands, run_whole(c, operands), def->tolerance_f32);
        }
      }
      CHECK(taken > 4);
    }
  }
}

TEST_CASE("products of f32 round their operands where TF32 is allowed, and only there") {
  const OpDef& def = op_table().get("einsum");
  const Case c{&def, parse_rule("{rule = \"i k, k j -> i j\"}"), {Type::parse("f32[2,2]"), Type::parse("f32[2,2]")}, {Type::parse("f32[2,2]")}, 0, ""};
  const BoundRule rule = c.rule();
  const LocalSpec local = local_spec(c, rule, Mesh(), FactorAtoms(rule.factors.size()), Rank{0});
  std::vector<Tensor> operands;
  for (int i = 0; i < 2; ++i) operands.emplace_back(c.operands[0]);
  for (int64_t e = 0; e < 4; ++e) {
    operands[0].set(e, e % 3 == 0 ? 1 + 0x1p-12 : 0);  // a diagonal of numbers that TF32 has not
    operands[1].set(e, e % 3 == 0 ? 1 : 0);
  }
  for (const bool allowed : {false, true, false}) {
    allow_tf32(allowed);
    const Prepared prepared = emulated_kernels()->find(def.reference)(local.spec);
    allow_tf32(false);
    CHECK(run_on(kForwards, prepared, local.spec, operands)[0].get(0) == (allowed ? 1 : 1 + 0x1p-12));
  }
}

TEST_CASE("an emulated AdamW leaves all as it is where the gradient's scale is not finite") {
  const OpDef& def = op_table().get("adamw");
  Random random(17);
  const Case c = cases(def).front();
  const BoundRule rule = c.rule();
  const LocalSpec local = local_spec(c, rule, Mesh(), FactorAtoms(rule.factors.size()), Rank{0});
  for (const double scale : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    std::vector<Tensor> operands = draw_operands(c, random);
    operands[5].set(0, scale);
    const std::vector<Tensor> made = run_on(kForwards, emulated_kernels()->find(def.reference)(local.spec), local.spec, operands);
    for (size_t r = 0; r < 3; ++r) CHECK(same_bytes(made[r], operands[r]));
  }
}

// More parameters than one launch takes, some of several teams and some of nothing; and other scalars in between.
TEST_CASE("many calls of an emulated AdamW together equal each by itself") {
  const OpDef& def = op_table().get("adamw");
  Random random(19);
  struct One {
    std::vector<Tensor> operands, together;
    std::vector<void*> in, out;
    Prepared kernel;
  };
  std::vector<One> ones(300);
  std::vector<std::vector<Tensor>> alone;
  std::vector<KernelMember> members;
  for (size_t i = 0; i < ones.size(); ++i) {
    One& one = ones[i];
    Case c = cases(def).front();
    const int64_t n = i % 7 == 3 ? 0 : i % 50 == 1 ? 9000 : 1 + static_cast<int64_t>(i) % 5;
    for (size_t o = 0; o < 4; ++o) c.operands[o] = Type{Dtype::f32, Shape{n}};
    c.expected.clear();
    c.attributes = parse_rule(i % 2 == 0 ? "{decay = 0.1}" : "{eps = 0.001}");
    const BoundRule rule = c.rule();
    const LocalSpec local = local_spec(c, rule, Mesh(), FactorAtoms(rule.factors.size()), Rank{0});
    one.operands = draw_operands(c, random);
    for (size_t o = 4; o < 7 && i > 0 && i % 100 != 99; ++o) one.operands[o] = ones[i - 1].operands[o].clone();
    one.kernel = emulated_kernels()->find(def.reference)(local.spec);
    alone.push_back(run_on(kForwards, one.kernel, local.spec, one.operands));
    for (const KernelOperand& r : local.spec.results) one.together.emplace_back(r.type);
    for (size_t o = 0; o < 7; ++o) one.in.push_back(o < 4 || i % 100 == 99 || i == 0 ? one.operands[o].data() : ones[i - 1].in[o]);
    for (const Tensor& t : one.together) one.out.push_back(t.data());
    members.push_back({&one.kernel, {one.in, one.out}});
    REQUIRE(one.kernel.run_many == ones[0].kernel.run_many);
  }
  ones[0].kernel.run_many(members, reinterpret_cast<void*>(kBackwards));
  for (size_t i = 0; i < ones.size(); ++i) {
    for (size_t r = 0; r < 3; ++r) {
      INFO("parameter " << i << ", result " << r);
      CHECK(ones[i].together[r].guards_intact());
      CHECK(same_bytes(ones[i].together[r], alone[i][r]));
    }
  }
}

// Blocks that begin somewhere, are uneven or empty, and halos.
TEST_CASE("emulated device kernels equal the reference on the blocks of meshes") {
  for (const OpDef* def : computing_ops()) {
    DYNAMIC_SECTION(def->name) {
      Random random(16);
      const PrepareFn kernel = emulated_kernels()->find(def->reference);
      for (const Case& c : cases(*def)) {
        if (!c.small()) continue;
        const BoundRule rule = c.rule();
        for (const Mesh& mesh : meshes()) {
          if (mesh.size() > 4) continue;
          for_each_assignment(mesh, rule, [&](const FactorAtoms& atoms) {
            INFO(c.text << " " << assignment_text(mesh, rule, atoms));
            if (splits_lowered(rule, atoms)) return;
            for (int r = 0; r < static_cast<int>(mesh.size()); ++r) {
              INFO("rank " << r);
              const LocalSpec local = local_spec(c, rule, mesh, atoms, Rank{r});
              std::vector<Tensor> operands;
              const std::vector<Tensor> whole = draw_operands(c, random);
              for (size_t i = 0; i < whole.size(); ++i) {
                // Any numbers of the block's shape will do: the reference gets the same.
                operands.emplace_back(local.spec.operands[i].type);
                for (int64_t e = 0; e < operands[i].elements(); ++e) operands[i].set(e, whole[i].get(e % std::max<int64_t>(whole[i].elements(), 1)));
              }
              check(*def, kernel(local.spec), local.spec, operands, run_kernel(def->reference(local.spec), local.spec, operands),
                    c.tolerance());
            }
          });
        }
      }
    }
  }
}

// The kernels of narrow numbers differ from those of f32 here, and a block's queries may begin anywhere.
TEST_CASE("emulated attention of narrow numbers equals the reference on the blocks of meshes") {
  for (const char* const op : {"attention", "attention_vjp"}) {
    const OpDef& def = op_table().get(op);
    Random random(19);
    for (const Case& as_written : cases(def)) {
      if (as_written.elements() > 40000) continue;
      for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
        const Case c = as_written.with(dtype);
        const BoundRule rule = c.rule();
        const Mesh mesh = Mesh::parse("a=3");
        for_each_assignment(mesh, rule, [&](const FactorAtoms& atoms) {
          INFO(c.text << " in " << name(dtype) << " " << assignment_text(mesh, rule, atoms));
          if (splits_lowered(rule, atoms)) return;
          const std::vector<Tensor> whole = draw_operands(c, random);
          for (int r = 0; r < static_cast<int>(mesh.size()); ++r) {
            INFO("rank " << r);
            const LocalSpec local = local_spec(c, rule, mesh, atoms, Rank{r});
            std::vector<Tensor> operands;
            for (size_t i = 0; i < whole.size(); ++i) {
              operands.emplace_back(local.spec.operands[i].type);
              for (int64_t e = 0; e < operands[i].elements(); ++e) operands[i].set(e, whole[i].get(e % std::max<int64_t>(whole[i].elements(), 1)));
            }
            check(def, emulated_kernels()->find(def.reference)(local.spec), local.spec, operands,
                  run_kernel(def.reference(local.spec), local.spec, operands), c.tolerance());
          }
        });
      }
    }
  }
}

// Numbers whose products add up to zero where p and ds are rounded before they are multiplied, and not where they are
// f32: so this fails if a kernel without tensor cores is taken.
TEST_CASE("attention of narrow numbers is multiplied on tensor cores") {
  const auto run = [](const char* op, auto... given) {
    std::vector<Tensor> operands;
    (operands.push_back(std::move(given)), ...);
    const OpDef& def = op_table().get(op);
    Case c{&def, parse_rule("{causal = false, scale = 1.0}"), {}, {}, 0, ""};
    for (const Tensor& t : operands) c.operands.push_back(t.type());
    const LocalSpec local = local_spec(c, c.rule(), Mesh(), FactorAtoms(c.rule().factors.size()), Rank{0});
    return run_on(kForwards, emulated_kernels()->find(def.reference)(local.spec), local.spec, operands);
  };
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
    for (const int64_t e : {2, 16, 24, 64, 80, 128, 256, 257}) {
      INFO(name(dtype) << ", rows of " << e);
      const bool rounds = dtype != Dtype::f32 && e <= 256;
      const Dtype narrow = dtype == Dtype::f32 ? Dtype::bf16 : dtype;
      const auto rounded = [&](double x) {
        Tensor t(Type{narrow, Shape{1}});
        t.set(0, x);
        return t.get(0);
      };
      const double p = std::exp(-0.5), r = rounded(p), w = rounded(0.6);
      // Two rows whose element `column` is given, all others zero.
      const auto rows = [&](int64_t column, double first, double second) {
        Tensor t(Type{dtype, Shape{1, 1, 2, e}});
        t.fill(0);
        t.set(column, first);
        t.set(e + column, second);
        return t;
      };
      // p is 1 and exp(-1/2) for both queries.
      const std::vector<Tensor> out = run("attention", rows(0, 1, 1), rows(0, 0, -0.5), rows(0, -r, 1));
      CHECK((out[0].get(0) == 0) == rounds);
      CHECK((out[0].get(e) == 0) == rounds);
      // q k^T is zero; p is 1 for the first query, exp(-1/2) for the second; D is zero.
      Tensor lse(Type{dtype, Shape{1, 1, 2}});
      lse.set(0, 0);
      lse.set(1, 0.5);
      const std::vector<Tensor> back =
          run("attention_vjp", rows(1, 1, 1), rows(0, -rounded(w * p), r), rows(0, 1, w), rows(0, 0, 0), std::move(lse), rows(0, -r, 1));
      CHECK((back[0].get(e) == 0) == rounds);  // dq
      CHECK((back[1].get(1) == 0) == rounds);  // dk
      CHECK((back[2].get(0) == 0) == rounds);  // dv
    }
  }
}

}  // namespace meshard::test
