// Values made from nothing: an element is a function of its global index, so it is the same on any mesh.
#include <fmt/format.h>

#include "meshard/base/error.h"
#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

OpDef made(std::string_view name, std::string_view purpose, std::vector<AttributeSpec> attributes, PrepareFn reference,
           PrepareFn cpu) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = " -> ...";
  def.attributes = std::move(attributes);
  def.explicit_type = true;
  def.flops_per_point = 0;
  def.reference = reference;
  def.cpu = cpu;
  return def;
}

std::vector<AttributeSpec> random_attributes() {
  return {{"seed", int64_t{0}, true}, {"name", std::string(), true}, {"scale", 1.0}};
}

std::vector<OpCase> random_cases() {
  const std::string attributes = "{name = \"w\", scale = 0.5, seed = 7}";
  return {{"", attributes, "f32[5,3]"}, {"", attributes, "f32[1]"},     {"", attributes, "f32[0,3]"},
          {"", attributes, "f32[]"},    {"", attributes, "f32[2,3,4]"}, {"", attributes, "f32[29,67]"}};
}

std::string dropout_rule(std::span<const Type>, const Attributes& attributes) {
  const double rate = attributes.number("rate");
  if (!(rate >= 0 && rate < 1)) throw UserError(fmt::format("dropout: rate is {}; it is at least 0 and below 1", rate));
  return "..., -> ...";
}

// What was dropped has no gradient: the same numbers are drawn again.
void dropout_vjp(Vjp& v) {
  v.set(0, v.builder().apply(dropout_op(), {v.cotangent(), v.operand(1)}, v.attributes())[0]);
}

std::string dimension_there(std::span<const Type>, std::span<const Type> results, const Attributes& attributes) {
  const int64_t dimension = attributes.integer("dimension");
  if (dimension >= 0 && dimension < results[0].shape.rank()) return "";
  return results[0].str() + " has no dimension " + std::to_string(dimension);
}

}  // namespace

const OpDef& fill_op() {
  static const OpDef def = [] {
    OpDef d = made("fill", "the same value everywhere", {{"value", 0.0, true}}, reference::fill, cpu::fill);
    d.zero_if_value0 = true;
    d.remake = true;
    d.cases = {{"", "{value = 1.5}", "f32[5,3]"},
               {"", "{value = 2.0}", "i32[4]"},
               {"", "{value = 0.0}", "f32[]"},
               {"", "{value = 1.5}", "f32[0,3]"},
               {"", "{value = 1.5}", "f32[29,67]"}};
    return d;
  }();
  return def;
}

const OpDef& iota_op() {
  static const OpDef def = [] {
    OpDef d =
        made("iota", "the global index along a dimension", {{"dimension", int64_t{0}}}, reference::iota, cpu::iota);
    d.remake = true;
    d.check = dimension_there;
    d.cases = {{"", "{dimension = 1}", "f32[5,3]"},
               {"", "{dimension = 0}", "i32[5,3]"},
               {"", "", "f32[4]"},
               {"", "", "f32[0,3]"},
               {"", "{dimension = 0}", "i32[29,67]"}};
    return d;
  }();
  return def;
}

const OpDef& random_normal_op() {
  static const OpDef def = [] {
    OpDef d =
        made("random_normal", "normal numbers of standard deviation `scale`: a function of seed, name and global index",
             random_attributes(), reference::random_normal, cpu::random_normal);
    d.random = true;
    d.flops_per_point = 60;
    d.cases = random_cases();
    return d;
  }();
  return def;
}

const OpDef& random_uniform_op() {
  static const OpDef def = [] {
    OpDef d = made("random_uniform", "uniform numbers in [-scale, scale): a function of seed, name and global index",
                   random_attributes(), reference::random_uniform, cpu::random_uniform);
    d.random = true;
    d.flops_per_point = 40;
    d.cases = random_cases();
    return d;
  }();
  return def;
}

const OpDef& one_hot_op() {
  static const OpDef def = {
      .name = "one_hot",
      .purpose = "1 where the last dimension's index is the id, else 0",
      .rule = "... -> ... v",
      .operand_dtypes = {Dtype::i32},
      .explicit_type = true,
      .remake = true,
      .flops_per_point = 0,
      .reference = reference::one_hot,
      .cases = {{"i32[2,3]", "", "f32[2,3,5]", 6}, {"i32[4]", "", "i32[4,3]", 3}, {"i32[]", "", "f32[1]", 1},
                {"i32[0]", "", "f32[0,3]", 3}},
  };
  return def;
}

const OpDef& dropout_op() {
  static const OpDef def = {
      .name = "dropout",
      .purpose = "x / (1 - rate), or 0 with probability rate: a function of seed, step, name and global index",
      .rule_for = dropout_rule,
      .attributes = {{"rate", 0.0, true}, {"seed", int64_t{0}, true}, {"name", std::string(), true}},
      .operand_dtypes = {std::nullopt, Dtype::i32},
      .linear = {{0}},
      .in_place = {{0, 0}},
      .random = true,
      .flops_per_point = 40,
      .vjp = dropout_vjp,
      .reference = reference::dropout,
      .cases = {{"f32[5,3], i32[]", "{name = \"h\", rate = 0.4, seed = 7}", "f32[5,3]", 100},
                {"f32[2,3,4], i32[]", "{name = \"h\", rate = 0.1, seed = 7}", "f32[2,3,4]", 100},
                {"f32[], i32[]", "{name = \"h\", rate = 0.5, seed = 7}"},
                {"f32[0,3], i32[]", "{name = \"h\", rate = 0.0, seed = 7}"}},
  };
  return def;
}

}  // namespace meshard
