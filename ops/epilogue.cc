// Products with what follows them: a bias, and an activation of the sum. A library of matrix products does both while it
// writes the result. Models do not call these; optimize's epilogue makes them.
#include <fmt/format.h>

#include <algorithm>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

std::string biased_rule(std::span<const Type>, const Attributes& attributes) {
  const std::string_view rule = attributes.text("rule");
  check_none_made("einsum_bias", rule);
  return std::string(rule);
}

// What is summed may not be split, since an activation needs the whole sum.
std::string activated_rule(const Attributes& attributes, size_t results) {
  Rule rule = Rule::parse(attributes.text("rule"));
  if (rule.results.size() != 1) {
    for (const Rule::Term& result : rule.results) {
      if (result.dims == rule.results[0].dims) continue;
      throw UserError(fmt::format("\"{}\": the sum is laid out as the activation is, so both results have the same letters", rule.str()));
    }
    return rule.str();
  }
  check_none_made("einsum_bias", attributes.text("rule"));
  for (const Rule::Term& operand : rule.operands) {
    for (const auto& dim : operand.dims) {
      for (const std::string& name : dim) {
        const auto has = [&](const auto& d) { return std::find(d.begin(), d.end(), name) != d.end(); };
        if (name == "..." || std::any_of(rule.results[0].dims.begin(), rule.results[0].dims.end(), has)) continue;
        if (std::find(rule.whole.begin(), rule.whole.end(), name) == rule.whole.end()) rule.whole.push_back(name);
      }
    }
  }
  rule.results.resize(results, rule.results[0]);
  return rule.str();
}

std::string check_activation(std::span<const Type>, std::span<const Type>, const Attributes& attributes) {
  const std::string_view name = attributes.text("activation");
  if (name == "gelu" || name == "silu") return "";
  return fmt::format("activation is \"{}\", it must be \"gelu\" or \"silu\"", name);
}

OpDef activated(std::string_view name, std::string_view purpose, int results) {
  OpDef d;
  d.name = name;
  d.purpose = purpose;
  d.attributes = {{"rule", std::string(), true}, {"activation", std::string(), true}};
  d.results = results;
  d.check = check_activation;
  d.precision = Precision::computes;
  d.flops_per_point = 2;
  d.reference = reference::einsum_activation;
  d.cpu = cpu::einsum_activation;
  for (const char* activation : {"gelu", "silu"}) {
    const auto add = [&](std::string operands, std::string_view rule, const std::string& result) {
      std::string all = result;
      for (int r = 1; r < results; ++r) all += ", " + result;
      d.cases.push_back({std::move(operands), fmt::format("{{activation = \"{}\", rule = \"{}\"}}", activation, rule), all});
    };
    add("f32[5,3], f32[3,4], f32[4]", "m k, k n, n -> m n", "f32[5,4]");
    add("f32[2,5,3], f32[3,2,4], f32[2,1,4]", "b t d, d h e, h 1 e -> b h t e", "f32[2,2,5,4]");
    add("f32[5,0], f32[0,4], f32[4]", "m k, k n, n -> m n", "f32[5,4]");
    add("f32[0,3], f32[3,4], f32[4]", "m k, k n, n -> m n", "f32[0,4]");
    add("f32[3,17,33], f32[65,33], f32[65]", "b t d, f d, f -> b t f", "f32[3,17,65]");
    add("f32[3,17,33], f32[64,33], f32[64]", "b t d, f d, f -> b t f", "f32[3,17,64]");
  }
  return d;
}

}  // namespace

const OpDef& einsum_bias_op() {
  static const OpDef def = {
      .name = "einsum_bias",
      .purpose = "the products of a and b, summed over every letter that the result lacks, and a bias",
      .rule_for = biased_rule,
      .attributes = {{"rule", std::string(), true}},
      .linear = {{0, 2}, {1, 2}},
      .base = 2,
      .activated = einsum_activation_op,
      .activated_beside = einsum_activation_beside_op,
      .precision = Precision::computes,
      .flops_per_point = 2,
      .reference = reference::einsum_bias,
      .cpu = cpu::einsum_bias,
      .cases = {{"f32[5,3], f32[3,4], f32[4]", "{rule = \"m k, k n, n -> m n\"}", "f32[5,4]"},
                {"f32[2,5,3], f32[3,2,4], f32[2,1,4]", "{rule = \"b t d, d h e, h 1 e -> b h t e\"}", "f32[2,2,5,4]"},
                {"f32[5,3], f32[3,4], f32[5,1]", "{rule = \"m k, k n, m 1 -> m n\"}", "f32[5,4]"},
                {"f32[5,0], f32[0,4], f32[4]", "{rule = \"m k, k n, n -> m n\"}", "f32[5,4]"},
                {"f32[0,3], f32[3,4], f32[4]", "{rule = \"m k, k n, n -> m n\"}", "f32[0,4]"},
                {"f32[2,3,9,8], f32[3,8,24], f32[24]", "{rule = \"b h t e, h e d, d -> b t d\"}", "f32[2,9,24]"},
                {"f32[3,17,33], f32[65,33], f32[65]", "{rule = \"b t d, f d, f -> b t f\"}"}},
  };
  return def;
}

const OpDef& einsum_activation_op() {
  static const OpDef def = [] {
    OpDef d = activated("einsum_activation", "the activation of the products of a and b, summed, and a bias", 1);
    d.rule_for = [](std::span<const Type>, const Attributes& a) { return activated_rule(a, 1); };
    return d;
  }();
  return def;
}

const OpDef& einsum_activation_beside_op() {
  static const OpDef def = [] {
    OpDef d = activated("einsum_activation_beside",
                        "the activation of the products of a and b, summed, and a bias; beside it that sum itself", 2);
    d.rule_for = [](std::span<const Type>, const Attributes& a) { return activated_rule(a, 2); };
    d.result_names = {"", "sum"};
    return d;
  }();
  return def;
}

}  // namespace meshard
