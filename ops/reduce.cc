// Reductions over the names that the rule's result lacks.
#include <array>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"

namespace meshard {
namespace {

template <const OpDef& (*op)()>
std::string reduce_rule(std::span<const Type>, const Attributes& attributes) {
  const std::string_view rule = attributes.text("rule", "... -> ");
  check_none_made(op().name, rule);
  return std::string(rule);
}

BoundRule bound(const OpDef& def, const Vjp& v) {
  return bind_rule(def, v.attributes(), std::array{v.operand().type()}, {}, v.builder().source());
}

void sum_vjp(Vjp& v) { v.set(0, repeat_over(v.cotangent(), bound(sum_op(), v), v.operand().type(), 1)); }

void mean_vjp(Vjp& v) {
  const BoundRule rule = bound(mean_op(), v);
  int64_t count = 1;  // elements behind one mean
  for (int f = 0; f < static_cast<int>(rule.factors.size()); ++f)
    if (rule.reduced(f, 0)) count *= rule.factors[static_cast<size_t>(f)].size;
  v.set(0, repeat_over(v.cotangent(), rule, v.operand().type(), 1 / static_cast<double>(count)));
}

void sum_squares_vjp(Vjp& v) { v.set(0, scale(mul(v.operand(), v.cotangent()), 2)); }

// Elements that are the largest, or the smallest, share the cotangent.
void extreme_vjp(Vjp& v, const OpDef& def) {
  const BoundRule rule = bound(def, v);
  const Type type = v.operand().type();
  const std::string_view text = v.attributes().text("rule", "... -> ");
  Value hit = convert(equal_to(v.operand(), repeat_over(v.result(), rule, type, 1)), type.dtype);
  Value share = div(v.cotangent(), sum(hit, text));
  v.set(0, mul(hit, repeat_over(share, rule, type, 1)));
}
void max_vjp(Vjp& v) { extreme_vjp(v, max_op()); }
void min_vjp(Vjp& v) { extreme_vjp(v, min_op()); }

OpDef reduction(std::string_view name, std::string_view purpose, PrepareFn reference, PrepareFn cpu) {
  OpDef def;
  def.name = name;
  def.purpose = purpose;
  def.attributes = {{"rule", std::string("... -> ")}};
  def.reference = reference;
  def.cpu = cpu;
  def.cases = {{"f32[5,3]", "", "f32[]"},
               {"f32[5,3]", "{rule = \"... v -> ...\"}", "f32[5]"},
               {"f32[2,5,3]", "{rule = \"b t d -> d\"}", "f32[3]"},
               {"f32[2,5,3]", "{rule = \"b t d -> b 1 d\"}", "f32[2,1,3]"},
               {"f32[2,5,3]", "{rule = \"b t d -> b d\"}", "f32[2,3]"},
               {"f32[1,3]", "{rule = \"t d -> d\"}", "f32[3]"},
               {"f32[0,3]", "{rule = \"t d -> t\"}", "f32[0]"},
               {"f32[33,129]"},
               {"f32[33,129]", "{rule = \"... v -> ...\"}"},
               {"f32[5,7,65]", "{rule = \"b t d -> d\"}"},
               {"f32[300,5]", "{rule = \"t d -> d\"}"},
               {"f32[3,5000]", "{rule = \"t d -> t\"}"}};
  return def;
}

}  // namespace

const OpDef& sum_op() {
  static const OpDef def = [] {
    OpDef d = reduction("sum", "the sum over the names that the result lacks", reference::sum, cpu::sum);
    d.rule_for = reduce_rule<sum_op>;
    d.integers = true;
    d.cases.push_back({"i32[2,5,3]", "{rule = \"b t d -> d\"}", "i32[3]"});
    d.linear = {{0}};
    d.vjp = sum_vjp;
    d.wide_results = {0};
    d.cases.push_back({"f32[0,3]", "{rule = \"t d -> d\"}", "f32[3]"});
    return d;
  }();
  return def;
}

const OpDef& mean_op() {
  static const OpDef def = [] {
    OpDef d = reduction("mean", "the sum over the names that the result lacks, divided by their global count",
                        reference::mean, cpu::mean);
    d.rule_for = reduce_rule<mean_op>;
    d.linear = {{0}};
    d.vjp = mean_vjp;
    d.wide_results = {0};
    return d;
  }();
  return def;
}

const OpDef& max_op() {
  static const OpDef def = [] {
    OpDef d = reduction("max", "the largest over the names that the result lacks", reference::max, cpu::max);
    d.rule_for = reduce_rule<max_op>;
    d.integers = true;
    d.vjp = max_vjp;
    d.cases.push_back({"i32[2,5,3]", "{rule = \"b t d -> d\"}", "i32[3]"});
    d.combine = Reduction::max;
    return d;
  }();
  return def;
}

const OpDef& min_op() {
  static const OpDef def = [] {
    OpDef d = reduction("min", "the smallest over the names that the result lacks", reference::min, cpu::min);
    d.rule_for = reduce_rule<min_op>;
    d.integers = true;
    d.vjp = min_vjp;
    d.combine = Reduction::min;
    return d;
  }();
  return def;
}

const OpDef& sum_squares_op() {
  static const OpDef def = [] {
    OpDef d =
        reduction("sum_squares", "the sum of the squares of all elements", reference::sum_squares, cpu::sum_squares);
    d.rule = "... -> ";
    d.attributes = {};
    d.flops_per_point = 2;
    d.vjp = sum_squares_vjp;
    d.wide_results = {0};
    d.cases = {{"f32[5,3]", "", "f32[]"}, {"f32[]"}, {"f32[0,3]", "", "f32[]"}, {"f32[1,4,3]"}, {"f32[33,129]"}, {"f32[71,139]"}};
    return d;
  }();
  return def;
}

}  // namespace meshard
