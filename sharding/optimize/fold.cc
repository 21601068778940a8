// fold: an op whose operands are constants, the same value everywhere, gives such a constant: it becomes the op that makes
// one. The value is what the op's own kernel gives for one element. Only ops of which every element follows from the
// operands' elements at its place: no factor is summed, made, read from neighbours or needed whole.
#include <algorithm>
#include <cmath>
#include <optional>

#include "meshard/base/buffer.h"
#include "meshard/sharding/optimize.h"

namespace meshard {
namespace {

bool is_constant(const Op& op) { return op.kind == Op::apply && op.def->zero_if_value0; }

bool is_elementwise(const Op& op, const std::vector<Type>& operands, const std::vector<Type>& results) {
  const OpDef& def = *op.def;
  if (def.collective || def.identity || def.random || def.reference == nullptr) return false;
  const Rule written = Rule::parse(rule_text(def, op.attributes, operands, op.source));
  if (!written.whole.empty() || !written.lower.empty()) return false;
  const BoundRule rule = bind_rule(def, op.attributes, operands, results, op.source);
  if (!rule.halos.empty()) return false;
  for (size_t f = 0; f < rule.factors.size(); ++f) {
    const int factor = static_cast<int>(f);
    const bool made = !rule.in_operands(factor);
    for (size_t r = 0; r < rule.results.size(); ++r) {
      if (made || rule.reduced(factor, static_cast<int>(r))) return false;
    }
  }
  return true;
}

double load(const Buffer& from, Dtype dtype) {
  switch (dtype) {
    case Dtype::f64: return *reinterpret_cast<const double*>(from.data());
    case Dtype::f32: return *reinterpret_cast<const float*>(from.data());
    case Dtype::bf16: return static_cast<float>(*reinterpret_cast<const bfloat16*>(from.data()));
    case Dtype::f16: return static_cast<float>(*reinterpret_cast<const float16*>(from.data()));
    case Dtype::i32: return *reinterpret_cast<const int32_t*>(from.data());
  }
  return 0;
}

void store(double value, Dtype dtype, Buffer& to) {
  switch (dtype) {
    case Dtype::f64: *reinterpret_cast<double*>(to.data()) = value; break;
    case Dtype::f32: *reinterpret_cast<float*>(to.data()) = static_cast<float>(value); break;
    case Dtype::bf16: *reinterpret_cast<bfloat16*>(to.data()) = bfloat16(static_cast<float>(value)); break;
    case Dtype::f16: *reinterpret_cast<float16*>(to.data()) = float16(static_cast<float>(value)); break;
    case Dtype::i32: *reinterpret_cast<int32_t*>(to.data()) = static_cast<int32_t>(value); break;
  }
}

// What the op makes of these values, one for each operand.
std::vector<double> evaluate(const Op& op, const std::vector<Type>& operands, const std::vector<Type>& results, const std::vector<double>& values) {
  const auto one_element = [](std::vector<Type> types) {
    for (Type& t : types) std::fill(t.shape.dims.begin(), t.shape.dims.end(), 1);
    return types;
  };
  const std::vector<Type> in = one_element(operands), out = one_element(results);
  const BoundRule rule = bind_rule(*op.def, op.attributes, in, out, op.source);
  KernelSpec spec;
  spec.attributes = &op.attributes;
  for (const Factor& f : rule.factors) {
    spec.names.push_back(f.name);
    spec.factors.push_back({spec.names.back(), f.size, f.size, 0});
  }
  std::vector<Buffer> buffers;
  std::vector<void*> from, to;
  for (size_t i = 0; i < in.size(); ++i) {
    spec.operands.push_back({in[i], rule.operands[i]});
    store(values[i], in[i].dtype, buffers.emplace_back(in[i].bytes()));
    from.push_back(buffers.back().data());
  }
  for (size_t r = 0; r < out.size(); ++r) {
    spec.results.push_back({out[r], rule.results[r]});
    to.push_back(buffers.emplace_back(out[r].bytes()).data());
  }
  const Prepared kernel = op.def->reference(spec);
  const Buffer workspace(kernel.workspace_bytes);
  kernel.run({from, to, const_cast<std::byte*>(workspace.data())});
  std::vector<double> made;
  for (size_t r = 0; r < out.size(); ++r) made.push_back(load(buffers[in.size() + r], out[r].dtype));
  return made;
}

// A constant is written as a number, and one of 0 may stand for a pending sum: neither does for these.
bool can_be_written(double value) { return std::isfinite(value) && !(value == 0 && std::signbit(value)); }

// Whether some op reads constants alone: in most functions none does.
bool may_fold(const Function& f) {
  return std::any_of(f.ops.begin(), f.ops.end(), [&](const Op& op) {
    return op.kind == Op::apply && !op.operands.empty() && std::all_of(op.operands.begin(), op.operands.end(), [&](ValueId v) {
      return v != ValueId::none && f.value(v).op >= 0 && is_constant(f.ops[static_cast<size_t>(f.value(v).op)]);
    });
  });
}

Function fold(const Function& f) {
  Function g = f;
  std::vector<std::optional<double>> value(f.values.size());
  std::vector<const Op*> maker(f.values.size(), nullptr);  // of a constant: an op that makes one
  std::vector<Op> ops;
  for (const Op& op : f.ops) {
    const auto pends = [&](ValueId v) { return f.value(v).layout->is_pending(); };
    const auto known = [&](ValueId v) { return v != ValueId::none && value[index(v)] && !pends(v); };
    if (is_constant(op)) {
      value[index(op.results[0])] = op.attributes.number("value");
      maker[index(op.results[0])] = &op;
    } else if (op.kind == Op::apply && !op.operands.empty() && std::all_of(op.operands.begin(), op.operands.end(), known) &&
               std::none_of(op.results.begin(), op.results.end(), pends)) {
      std::vector<Type> operands, results;
      std::vector<double> given;
      for (ValueId v : op.operands) {
        operands.push_back(f.value(v).type);
        given.push_back(*value[index(v)]);
      }
      for (ValueId v : op.results) results.push_back(f.value(v).type);
      if (is_elementwise(op, operands, results)) {
        const std::vector<double> made = evaluate(op, operands, results, given);
        if (std::all_of(made.begin(), made.end(), can_be_written)) {
          for (size_t r = 0; r < made.size(); ++r) {
            const ValueId v = op.results[r];
            value[index(v)] = made[r];
            maker[index(v)] = maker[index(op.operands[0])];
            Op constant = *maker[index(v)];
            constant.results = {v};
            constant.guard = op.guard;
            constant.source = op.source;
            constant.attributes.set("value", made[r]);
            g.value(v).op = static_cast<int>(ops.size());
            ops.push_back(std::move(constant));
          }
          continue;
        }
      }
    }
    for (ValueId v : op.results) g.value(v).op = static_cast<int>(ops.size());
    ops.push_back(op);
  }
  g.ops = std::move(ops);
  return g;
}

}  // namespace

Program fold(Program local) {
  for (Function& f : local.functions) {
    if (may_fold(f)) f = fold(f);
  }
  return local;
}

}  // namespace meshard
