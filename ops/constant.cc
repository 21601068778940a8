// A value with a constant, and a change of dtype.
#include <limits>

#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/ops.h"
#include "meshard/ops/unary.h"

namespace meshard {
namespace {

void scale_vjp(Vjp& v) { v.set(0, scale(v.cotangent(), v.attributes().number("factor"))); }
void offset_vjp(Vjp& v) { v.set(0, v.cotangent()); }
void convert_vjp(Vjp& v) {
  if (v.needs(0)) v.set(0, convert(v.cotangent(), v.operand().type().dtype));
}
void clamp_vjp(Vjp& v) {
  Value inside = equal_to(v.operand(), v.result());
  v.set(0, mul(v.cotangent(), convert(inside, v.operand().type().dtype)));
}

}  // namespace

const OpDef& scale_op() {
  static const OpDef def = [] {
    OpDef d = unary("scale", "factor x", reference::scale, cpu::scale);
    d.attributes = {{"factor", 1.0, true}};
    d.linear = {{0}};
    d.vjp = scale_vjp;
    for (OpCase& c : d.cases) c.attributes = "{factor = -0.75}";
    return d;
  }();
  return def;
}

const OpDef& offset_op() {
  static const OpDef def = [] {
    OpDef d = unary("offset", "x + amount", reference::offset, cpu::offset);
    d.attributes = {{"amount", 0.0, true}};
    d.vjp = offset_vjp;
    for (OpCase& c : d.cases) c.attributes = "{amount = 0.5}";
    return d;
  }();
  return def;
}

const OpDef& convert_op() {
  static const OpDef def = [] {
    OpDef d =
        unary("convert", "x in the dtype of the result, rounded to nearest even", reference::convert, cpu::convert);
    d.explicit_type = true;
    d.cast = true;
    d.result_dtype = {0};  // of any type to any
    d.in_place = {};
    d.linear = {{0}};
    d.remake = true;  // where a use is cast, the gradient casts it again
    d.flops_per_point = 0;
    d.vjp = convert_vjp;
    d.cases = {{"f32[5,3]", "", "bf16[5,3]"}, {"bf16[5,3]", "", "f32[5,3]"},     {"f32[0,3]", "", "f64[0,3]"},
               {"f64[1]", "", "f32[1]"},      {"f32[29,67]", "", "bf16[29,67]"}, {"bf16[29,67]", "", "f32[29,67]"},
               {"f32[29,67]", "", "f16[29,67]"}, {"f16[29,67]", "", "f32[29,67]"}, {"f16[5,3]", "", "bf16[5,3]"},
               {"i32[5,3]", "", "f32[5,3]"}};
    return d;
  }();
  return def;
}

const OpDef& clamp_op() {
  static const OpDef def = [] {
    OpDef d = unary("clamp", "x, or the nearer of low and high where it is not between them", reference::clamp, nullptr);
    d.attributes = {{"low", -std::numeric_limits<double>::infinity()}, {"high", std::numeric_limits<double>::infinity()}};
    d.vjp = clamp_vjp;
    for (OpCase& c : d.cases) c.attributes = "{high = 0.9, low = -0.6}";
    d.cases.push_back({"f32[4]", "{low = 0.0}", "f32[4]"});
    return d;
  }();
  return def;
}

}  // namespace meshard
