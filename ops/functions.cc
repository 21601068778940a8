#include "meshard/ops/functions.h"

#include <fmt/format.h>

#include "meshard/ir/op.h"
#include "meshard/ops/emit.h"
#include "meshard/ops/gradients.h"

namespace meshard {
namespace {

// A vjp or a pass that is at work has set the primal's place, which says more than the line in its own code.
Place place_of(const Builder& builder, const Where& where) {
  if (builder.source().known()) return builder.source();
  return meshard::place_of(where);
}

std::vector<Value> emit(Builder& builder, std::string_view op, std::vector<Value> operands, const Where& where,
                        Attributes attributes = {}, std::vector<Type> results = {}) {
  return builder.apply(builder.program().table->get(op), std::move(operands), std::move(attributes), std::move(results),
                       "", place_of(builder, where));
}

}  // namespace

std::vector<Value> emit_all(std::string_view op, std::vector<Value> operands, const Where& where,
                            Attributes attributes, std::vector<Type> results) {
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!operands[i])
      throw UserError(Place{where.file_name(), static_cast<int>(where.line()), 0},
                      fmt::format("{}: operand {} is none; a Value comes from an input, a parameter or an op", op, i));
  }
  Builder& builder = operands.at(0).builder();
  return emit(builder, op, std::move(operands), where, std::move(attributes), std::move(results));
}

Value emit_one(std::string_view op, std::vector<Value> operands, const Where& where, Attributes attributes,
               std::vector<Type> results) {
  return emit_all(op, std::move(operands), where, std::move(attributes), std::move(results)).at(0);
}

Value einsum(std::string_view rule, Value a, Value b, Where where) {
  return emit_one("einsum", {a, b}, where, {{"rule", std::string(rule)}});
}

Value add(Value a, Value b, Where where) { return emit_one("add", {a, b}, where); }
Value sub(Value a, Value b, Where where) { return emit_one("sub", {a, b}, where); }
Value mul(Value a, Value b, Where where) { return emit_one("mul", {a, b}, where); }
Value div(Value a, Value b, Where where) { return emit_one("div", {a, b}, where); }
Value maximum(Value a, Value b, Where where) { return emit_one("maximum", {a, b}, where); }
Value minimum(Value a, Value b, Where where) { return emit_one("minimum", {a, b}, where); }

Value pow(Value a, Value b, Where where) { return emit_one("pow", {a, b}, where); }

Value less(Value a, Value b, Where where) { return emit_one("less", {a, b}, where); }
Value less_equal(Value a, Value b, Where where) { return emit_one("less_equal", {a, b}, where); }
Value greater(Value a, Value b, Where where) { return emit_one("less", {b, a}, where); }
Value greater_equal(Value a, Value b, Where where) { return emit_one("less_equal", {b, a}, where); }
Value equal_to(Value a, Value b, Where where) { return emit_one("equal_to", {a, b}, where); }
Value not_equal(Value a, Value b, Where where) { return emit_one("not_equal", {a, b}, where); }
Value select(Value c, Value a, Value b, Where where) { return emit_one("select", {c, a, b}, where); }
Value bit_and(Value a, Value b, Where where) { return emit_one("bit_and", {a, b}, where); }
Value bit_or(Value a, Value b, Where where) { return emit_one("bit_or", {a, b}, where); }
Value bit_xor(Value a, Value b, Where where) { return emit_one("bit_xor", {a, b}, where); }
Value bit_not(Value a, Where where) { return emit_one("bit_not", {a}, where); }
Value shift_left(Value a, Value b, Where where) { return emit_one("shift_left", {a, b}, where); }
Value shift_right(Value a, Value b, Where where) { return emit_one("shift_right", {a, b}, where); }

Value scale(Value x, double factor, Where where) { return emit_one("scale", {x}, where, {{"factor", factor}}); }
Value offset(Value x, double amount, Where where) { return emit_one("offset", {x}, where, {{"amount", amount}}); }
Value neg(Value x, Where where) { return emit_one("neg", {x}, where); }
Value exp(Value x, Where where) { return emit_one("exp", {x}, where); }
Value log(Value x, Where where) { return emit_one("log", {x}, where); }
Value sqrt(Value x, Where where) { return emit_one("sqrt", {x}, where); }
Value rsqrt(Value x, Where where) { return emit_one("rsqrt", {x}, where); }
Value square(Value x, Where where) { return emit_one("square", {x}, where); }
Value tanh(Value x, Where where) { return emit_one("tanh", {x}, where); }
Value sigmoid(Value x, Where where) { return emit_one("sigmoid", {x}, where); }
Value reciprocal(Value x, Where where) { return emit_one("reciprocal", {x}, where); }
Value gelu(Value x, Where where) { return emit_one("gelu", {x}, where); }
Value silu(Value x, Where where) { return emit_one("silu", {x}, where); }

Value abs(Value x, Where where) { return emit_one("abs", {x}, where); }
Value sign(Value x, Where where) { return emit_one("sign", {x}, where); }
Value floor(Value x, Where where) { return emit_one("floor", {x}, where); }
Value sin(Value x, Where where) { return emit_one("sin", {x}, where); }
Value cos(Value x, Where where) { return emit_one("cos", {x}, where); }

Value clamp(Value x, double low, double high, Where where) {
  return emit_one("clamp", {x}, where, {{"high", high}, {"low", low}});
}

Value dropout(Value x, Value step, double rate, int64_t seed, std::string_view name, Where where) {
  return emit_one("dropout", {x, step}, where, {{"name", std::string(name)}, {"rate", rate}, {"seed", seed}});
}

Value convert(Value x, Dtype dtype, Where where) {
  if (x && x.type().dtype == dtype) return x;
  std::vector<Type> type;
  if (x) type = {Type{dtype, x.shape()}};
  return emit_one("convert", {x}, where, {}, std::move(type));
}

namespace {
Value reduce(std::string_view op, Value x, std::string_view rule, const Where& where) {
  return emit_one(op, {x}, where, {{"rule", std::string(rule)}});
}
}  // namespace

Value sum(Value x, std::string_view rule, Where where) { return reduce("sum", x, rule, where); }
Value mean(Value x, std::string_view rule, Where where) { return reduce("mean", x, rule, where); }
Value max(Value x, std::string_view rule, Where where) { return reduce("max", x, rule, where); }
Value min(Value x, std::string_view rule, Where where) { return reduce("min", x, rule, where); }
Value sum_squares(Value x, Where where) { return emit_one("sum_squares", {x}, where); }

Value logsumexp(Value x, Where where) { return emit_one("logsumexp", {x}, where); }

Value reshape(Value x, std::string_view rule, Attributes sizes, Where where) {
  sizes.set("rule", std::string(rule));
  return emit_one("reshape", {x}, where, std::move(sizes));
}

Value transpose(Value x, std::string_view rule, Where where) {
  return emit_one("transpose", {x}, where, {{"rule", std::string(rule)}});
}

Value broadcast(Value x, std::string_view rule, Attributes sizes, Where where) {
  sizes.set("rule", std::string(rule));
  return emit_one("broadcast", {x}, where, std::move(sizes));
}

Value take(Value x, Value i, Where where) { return emit_one("take", {x, i}, where); }

Value one_hot(Value ids, int64_t v, Dtype dtype, Where where) {
  std::vector<Type> type;
  if (ids) {
    type = {Type{dtype, ids.shape()}};
    type[0].shape.dims.push_back(v);
  }
  return emit_one("one_hot", {ids}, where, {}, std::move(type));
}

Value embedding(Value ids, Value table, Where where) { return emit_one("embedding", {ids, table}, where); }
Value softmax(Value x, Where where) { return emit_one("softmax", {x}, where); }

Value layer_norm(Value x, Value weight, Value bias, double eps, Where where) {
  return emit_one("layer_norm", {x, weight, bias}, where, {{"eps", eps}});
}

Value rms_norm(Value x, Value weight, double eps, Where where) {
  return emit_one("rms_norm", {x, weight}, where, {{"eps", eps}});
}

Value rope(Value x, double theta, Where where) { return emit_one("rope", {x}, where, {{"theta", theta}}); }

Value rope(Value x, Value start, double theta, Where where) {
  return emit_one("rope", {x, start}, where, {{"theta", theta}});
}

Value attention(Value q, Value k, Value v, bool causal, Where where) {
  return emit_one("attention", {q, k, v}, where, {{"causal", causal}});
}

Value attention(Value q, Value k, Value v, Value start, Where where) {
  return emit_one("attention", {q, k, v, start}, where, {{"causal", true}});
}

Value cross_entropy(Value logits, Value targets, Where where) {
  return emit_one("cross_entropy", {logits, targets}, where);
}

Value fill(Builder& builder, double value, Type type, Where where) {
  return emit(builder, "fill", {}, where, {{"value", value}}, {std::move(type)}).at(0);
}

Value iota(Builder& builder, Type type, int dimension, Where where) {
  return emit(builder, "iota", {}, where, {{"dimension", int64_t{dimension}}}, {std::move(type)}).at(0);
}

namespace {
Value random(Builder& builder, std::string_view op, Type type, int64_t seed, std::string_view name, double scale,
             const Where& where) {
  Attributes attributes{{"name", std::string(name)}, {"scale", scale}, {"seed", seed}};
  return emit(builder, op, {}, where, std::move(attributes), {std::move(type)}).at(0);
}
}  // namespace

Value random_normal(Builder& builder, Type type, int64_t seed, std::string_view name, double scale, Where where) {
  return random(builder, "random_normal", std::move(type), seed, name, scale, where);
}

Value random_uniform(Builder& builder, Type type, int64_t seed, std::string_view name, double scale, Where where) {
  return random(builder, "random_uniform", std::move(type), seed, name, scale, where);
}

std::array<Value, 3> adamw(Value w, Value m, Value v, Value g, Value rate, Value scale, Value step,
                           AdamwOptions options, Where where) {
  auto out =
      emit_all("adamw", {w, m, v, g, rate, scale, step}, where,
               {{"beta1", options.beta1}, {"beta2", options.beta2}, {"eps", options.eps}, {"decay", options.decay}});
  return {out.at(0), out.at(1), out.at(2)};
}

Value reshard(Value x, Where where) { return emit_one("reshard", {x}, where); }
Value use(Value w, Where where) { return emit_one("use", {w}, where); }
Value grad(Value g, Where where) { return emit_one("grad", {g}, where); }
Value total(Value g, Where where) { return emit_one("total", {g}, where); }

Value operator+(Located a, Located b) { return add(a.value, b.value, a.where); }
Value operator-(Located a, Located b) { return sub(a.value, b.value, a.where); }
Value operator*(Located a, Located b) { return mul(a.value, b.value, a.where); }
Value operator/(Located a, Located b) { return div(a.value, b.value, a.where); }
Value operator+(Located a, double b) { return offset(a.value, b, a.where); }
Value operator-(Located a, double b) { return offset(a.value, -b, a.where); }
Value operator*(Located a, double b) { return scale(a.value, b, a.where); }
Value operator/(Located a, double b) { return scale(a.value, 1 / b, a.where); }
Value operator+(double a, Located b) { return offset(b.value, a, b.where); }
Value operator-(double a, Located b) { return offset(neg(b.value, b.where), a, b.where); }
Value operator*(double a, Located b) { return scale(b.value, a, b.where); }
Value operator/(double a, Located b) { return scale(reciprocal(b.value, b.where), a, b.where); }
Value operator-(Located a) { return neg(a.value, a.where); }

}  // namespace meshard
