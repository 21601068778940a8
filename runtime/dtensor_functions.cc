#include "meshard/runtime/dtensor_functions.h"

#include <array>

#include "meshard/base/error.h"
#include "meshard/ir/trace.h"
#include "meshard/ops/ops.h"
#include "meshard/runtime/eager_context.h"

namespace meshard {
namespace {

DTensor run(const OpDef& op, std::span<const DTensor> operands, const Where& where, const Attributes& attributes, const Type* type = nullptr) {
  const eager::Node* first = eager::Context::node(operands[0]);
  if (first == nullptr) {
    throw UserError(place_of(where), std::string(op.name) + ": operand 0 is none; a DTensor comes from an Eager or an op");
  }
  DTensor out;
  first->context->run({&op, &attributes, operands, nullptr, type}, nullptr, &out, where);
  return out;
}

const Attributes& none() {
  static const Attributes attributes;
  return attributes;
}

DTensor unary(const OpDef& op, const DTensor& x, const Where& where, const Attributes& attributes = none()) { return run(op, {&x, 1}, where, attributes); }

DTensor binary(const OpDef& op, const DTensor& a, const DTensor& b, const Where& where, const Attributes& attributes = none()) {
  const std::array<DTensor, 2> operands{a, b};
  return run(op, operands, where, attributes);
}

DTensor ternary(const OpDef& op, const DTensor& a, const DTensor& b, const DTensor& c, const Where& where, const Attributes& attributes) {
  const std::array<DTensor, 3> operands{a, b, c};
  return run(op, operands, where, attributes);
}

Attributes rule_of(std::string_view rule) { return {{"rule", std::string(rule)}}; }

}  // namespace

DTensor einsum(std::string_view rule, const DTensor& a, const DTensor& b, Where where) { return binary(einsum_op(), a, b, where, rule_of(rule)); }

DTensor add(const DTensor& a, const DTensor& b, Where where) { return binary(add_op(), a, b, where); }
DTensor sub(const DTensor& a, const DTensor& b, Where where) { return binary(sub_op(), a, b, where); }
DTensor mul(const DTensor& a, const DTensor& b, Where where) { return binary(mul_op(), a, b, where); }
DTensor div(const DTensor& a, const DTensor& b, Where where) { return binary(div_op(), a, b, where); }
DTensor maximum(const DTensor& a, const DTensor& b, Where where) { return binary(maximum_op(), a, b, where); }
DTensor minimum(const DTensor& a, const DTensor& b, Where where) { return binary(minimum_op(), a, b, where); }

DTensor scale(const DTensor& x, double factor, Where where) { return unary(scale_op(), x, where, {{"factor", factor}}); }
DTensor offset(const DTensor& x, double amount, Where where) { return unary(offset_op(), x, where, {{"amount", amount}}); }
DTensor neg(const DTensor& x, Where where) { return unary(neg_op(), x, where); }
DTensor exp(const DTensor& x, Where where) { return unary(exp_op(), x, where); }
DTensor log(const DTensor& x, Where where) { return unary(log_op(), x, where); }
DTensor sqrt(const DTensor& x, Where where) { return unary(sqrt_op(), x, where); }
DTensor rsqrt(const DTensor& x, Where where) { return unary(rsqrt_op(), x, where); }
DTensor square(const DTensor& x, Where where) { return unary(square_op(), x, where); }
DTensor tanh(const DTensor& x, Where where) { return unary(tanh_op(), x, where); }
DTensor sigmoid(const DTensor& x, Where where) { return unary(sigmoid_op(), x, where); }
DTensor reciprocal(const DTensor& x, Where where) { return unary(reciprocal_op(), x, where); }
DTensor gelu(const DTensor& x, Where where) { return unary(gelu_op(), x, where); }
DTensor silu(const DTensor& x, Where where) { return unary(silu_op(), x, where); }

DTensor convert(const DTensor& x, Dtype dtype, Where where) {
  if (x && x.type().dtype == dtype) return x;
  const Type type{dtype, x ? x.shape() : Shape{}};
  return run(convert_op(), {&x, 1}, where, none(), &type);
}

DTensor sum(const DTensor& x, std::string_view rule, Where where) { return unary(sum_op(), x, where, rule_of(rule)); }
DTensor mean(const DTensor& x, std::string_view rule, Where where) { return unary(mean_op(), x, where, rule_of(rule)); }
DTensor max(const DTensor& x, std::string_view rule, Where where) { return unary(max_op(), x, where, rule_of(rule)); }
DTensor min(const DTensor& x, std::string_view rule, Where where) { return unary(min_op(), x, where, rule_of(rule)); }
DTensor sum_squares(const DTensor& x, Where where) { return unary(sum_squares_op(), x, where); }

DTensor reshape(const DTensor& x, std::string_view rule, Attributes sizes, Where where) {
  sizes.set("rule", std::string(rule));
  return unary(reshape_op(), x, where, sizes);
}
DTensor transpose(const DTensor& x, std::string_view rule, Where where) { return unary(transpose_op(), x, where, rule_of(rule)); }
DTensor broadcast(const DTensor& x, std::string_view rule, Attributes sizes, Where where) {
  sizes.set("rule", std::string(rule));
  return unary(broadcast_op(), x, where, sizes);
}
DTensor take(const DTensor& x, const DTensor& i, Where where) { return binary(take_op(), x, i, where); }

DTensor embedding(const DTensor& ids, const DTensor& table, Where where) { return binary(embedding_op(), ids, table, where); }
DTensor softmax(const DTensor& x, Where where) { return unary(softmax_op(), x, where); }
DTensor layer_norm(const DTensor& x, const DTensor& weight, const DTensor& bias, double eps, Where where) {
  return ternary(layer_norm_op(), x, weight, bias, where, {{"eps", eps}});
}
DTensor rms_norm(const DTensor& x, const DTensor& weight, double eps, Where where) { return binary(rms_norm_op(), x, weight, where, {{"eps", eps}}); }
DTensor rope(const DTensor& x, double theta, Where where) { return unary(rope_op(), x, where, {{"theta", theta}}); }
DTensor attention(const DTensor& q, const DTensor& k, const DTensor& v, bool causal, Where where) {
  return ternary(attention_op(), q, k, v, where, {{"causal", causal}});
}
DTensor cross_entropy(const DTensor& logits, const DTensor& targets, Where where) { return binary(cross_entropy_op(), logits, targets, where); }

DTensor full(const Eager& eager, std::string_view type, std::string_view layout, double value, Where where) {
  return eager.make(fill_op(), type, layout, {{"value", value}}, where);
}

namespace {
DTensor random(const OpDef& op, const Eager& eager, std::string_view type, std::string_view layout, int64_t seed, std::string_view name, double scale,
               const Where& where) {
  return eager.make(op, type, layout, {{"name", std::string(name)}, {"scale", scale}, {"seed", seed}}, where);
}
}  // namespace

DTensor normal(const Eager& eager, std::string_view type, std::string_view layout, int64_t seed, std::string_view name, double scale, Where where) {
  return random(random_normal_op(), eager, type, layout, seed, name, scale, where);
}
DTensor uniform(const Eager& eager, std::string_view type, std::string_view layout, int64_t seed, std::string_view name, double scale, Where where) {
  return random(random_uniform_op(), eager, type, layout, seed, name, scale, where);
}

DTensor operator+(LocatedTensor a, LocatedTensor b) { return add(a.value, b.value, a.where); }
DTensor operator-(LocatedTensor a, LocatedTensor b) { return sub(a.value, b.value, a.where); }
DTensor operator*(LocatedTensor a, LocatedTensor b) { return mul(a.value, b.value, a.where); }
DTensor operator/(LocatedTensor a, LocatedTensor b) { return div(a.value, b.value, a.where); }
DTensor operator+(LocatedTensor a, double b) { return offset(a.value, b, a.where); }
DTensor operator-(LocatedTensor a, double b) { return offset(a.value, -b, a.where); }
DTensor operator*(LocatedTensor a, double b) { return scale(a.value, b, a.where); }
DTensor operator/(LocatedTensor a, double b) { return scale(a.value, 1 / b, a.where); }
DTensor operator+(double a, LocatedTensor b) { return offset(b.value, a, b.where); }
DTensor operator-(double a, LocatedTensor b) { return offset(neg(b.value, b.where), a, b.where); }
DTensor operator*(double a, LocatedTensor b) { return scale(b.value, a, b.where); }
DTensor operator/(double a, LocatedTensor b) { return scale(reciprocal(b.value, b.where), a, b.where); }
DTensor operator-(LocatedTensor a) { return neg(a.value, a.where); }

}  // namespace meshard
