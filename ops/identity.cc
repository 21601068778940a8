// Ops whose result is their operand: the roles of a parameter, a value with a layout of its own, and the collectives,
// which change a layout and no value; but for `turn`, which changes a value and no layout. The executor runs collectives;
// the rest vanish or become collectives in partition.
#include "meshard/ir/trace.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

void identity_gradient(Vjp& v) { v.set(0, v.cotangent()); }

OpDef identity(std::string_view name, std::string_view purpose) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.rule = "... -> ...";
  def.in_place = {{0, 0}};
  def.identity = true;
  def.flops_per_point = 0;
  def.cases = {{"f32[5,3]", "", "f32[5,3]"}, {"f32[]"}, {"f32[0,3]"}, {"f32[29,67]"}};
  return def;
}

OpDef marker(std::string_view name, std::string_view purpose, Role role) {
  OpDef def = identity(name, purpose);
  def.linear = {{0}};
  def.role = role;
  def.vjp = identity_gradient;
  def.reference = reference::identity;
  def.cpu = cpu::identity;
  return def;
}

// Gradients are added up and reduced as f32.
OpDef wide_marker(std::string_view name, std::string_view purpose, Role role) {
  OpDef def = marker(name, purpose, role);
  def.precision = Precision::keeps;
  return def;
}

OpDef collective(std::string_view name, std::string_view purpose, Collective kind) {
  OpDef def = identity(name, purpose);
  def.in_place = {};
  def.collective = kind;
  return def;
}

}  // namespace

const OpDef& reshard_op() {
  static const OpDef def = marker("reshard", "x in the layout of the result", Role::none);
  return def;
}

const OpDef& use_op() {
  static const OpDef def = [] {
    OpDef d = marker("use", "a parameter as ops read it", Role::use);
    d.remake = true;  // where it is gathered, forward and backward gather apart
    return d;
  }();
  return def;
}

const OpDef& grad_op() {
  static const OpDef def = wide_marker("grad", "a parameter's gradient, summed over all its uses", Role::grad);
  return def;
}

const OpDef& total_op() {
  static const OpDef def = wide_marker("total", "a parameter's gradient as the optimizer reads it", Role::state);
  return def;
}

const OpDef& slice_op() {
  static const OpDef def = collective("slice", "each device keeps its part of what it holds", Collective::slice);
  return def;
}

const OpDef& all_gather_op() {
  static const OpDef def = collective("all_gather", "each device gets the parts of all others", Collective::all_gather);
  return def;
}

const OpDef& all_reduce_op() {
  static const OpDef def = [] {
    OpDef d = collective("all_reduce", "a pending reduction is done, on all devices", Collective::all_reduce);
    d.in_place = {{0, 0}};
    return d;
  }();
  return def;
}

const OpDef& reduce_scatter_op() {
  static const OpDef def =
      collective("reduce_scatter", "a pending reduction is done, each device gets a part", Collective::reduce_scatter);
  return def;
}

const OpDef& all_to_all_op() {
  static const OpDef def = collective("all_to_all", "axes move from one dimension to another", Collective::all_to_all);
  return def;
}

const OpDef& permute_op() {
  static const OpDef def = collective("permute", "each device gets the block of one other", Collective::permute);
  return def;
}

const OpDef& exchange_op() {
  static const OpDef def = collective("exchange", "each device gets the pieces that it lacks from those that hold them",
                                      Collective::exchange);
  return def;
}

const OpDef& turn_op() {
  static const OpDef def = [] {
    OpDef d = collective("turn", "each device of a ring gets the block of the one before it", Collective::permute);
    d.identity = false;  // the blocks of a dimension in another order
    return d;
  }();
  return def;
}

}  // namespace meshard
