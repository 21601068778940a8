#include "interpret.h"

#include <cmath>
#include <cstring>

#include "meshard/base/error.h"
#include "meshard/runtime/state.h"

namespace meshard::fuzz {
namespace {

KernelSpec whole_spec(const Op& op, const BoundRule& rule, const std::vector<Type>& operands,
                      const std::vector<Type>& results) {
  KernelSpec spec;
  spec.attributes = &op.attributes;
  for (const Factor& f : rule.factors) spec.factors.push_back({f.name, f.size, f.size, 0});
  for (size_t i = 0; i < operands.size(); ++i) spec.operands.push_back({operands[i], rule.operands[i]});
  for (size_t r = 0; r < results.size(); ++r) spec.results.push_back({results[r], rule.results[r]});
  return spec;
}

}  // namespace

Array::Array(Type t) : type(std::move(t)), store(std::make_shared<Buffer>(std::max<int64_t>(type.bytes(), 64))) {
  // Not a number in each float dtype: what is read before it is written shows.
  std::memset(store->data(), 0xff, static_cast<size_t>(store->bytes()));
}

std::vector<double> Array::numbers() const {
  std::vector<double> out(static_cast<size_t>(type.shape.elements()));
  read_doubles(view(), out.data());
  return out;
}

double Array::largest() const {
  double most = 0;
  for (double x : numbers()) most = std::isfinite(x) ? std::max(most, std::abs(x)) : INFINITY;
  return most;
}

std::vector<Array> interpret_op(const Op& op, const std::vector<Type>& results, const std::vector<Array>& operands) {
  if (op.def->identity) return {operands.at(0)};
  MESHARD_CHECK(op.def->reference != nullptr, std::string(op.def->name) + " has no kernel");
  std::vector<Type> types;
  for (const Array& a : operands) types.push_back(a.type);
  const BoundRule rule = bind_rule(*op.def, op.attributes, types,
                                   op.def->explicit_type ? std::span<const Type>(results) : std::span<const Type>(), op.source);
  const KernelSpec spec = whole_spec(op, rule, types, results);
  const Prepared kernel = op.def->reference(spec);
  std::vector<Array> out;
  std::vector<void*> in, made;
  for (const Array& a : operands) in.push_back(a.store->data());
  for (const Type& t : results) out.emplace_back(t);
  for (const Array& a : out) made.push_back(a.store->data());
  Buffer workspace(std::max<int64_t>(kernel.workspace_bytes, 64));
  kernel.run({in, made, workspace.data()});
  return out;
}

std::vector<Array> interpret_repeat(const Program& program, const Op& op, std::vector<Array> arguments) {
  const Function& callee = program.functions[static_cast<size_t>(op.callee)];
  std::vector<Array> results;
  for (int64_t round = 0; round < op.count; ++round) {
    if (op.index_operand >= 0) {
      Array number(Type{Dtype::i32, {}});
      number.view().as<int32_t>()[0] = static_cast<int32_t>(round);
      arguments[static_cast<size_t>(op.index_operand)] = number;
    }
    results = interpret(program, op.callee, arguments);
    for (size_t r = 0; r < results.size(); ++r) {
      const ValueId carried = callee.returns[r].in_place;
      if (carried != ValueId::none) arguments[static_cast<size_t>(callee.param_index(carried))] = results[r];
    }
  }
  return results;
}

std::vector<Array> interpret(const Program& program, int function, const std::vector<Array>& arguments) {
  const Function& f = program.functions[static_cast<size_t>(function)];
  std::vector<Array> values(f.values.size());
  for (size_t p = 0; p < f.params.size(); ++p) values[index(f.params[p])] = arguments[p];
  for (const Op& op : f.ops) {
    std::vector<Array> operands;
    for (ValueId v : op.operands) operands.push_back(v == ValueId::none ? Array() : values[index(v)]);
    std::vector<Type> types;
    for (ValueId v : op.results) types.push_back(f.value(v).type);
    std::vector<Array> results = op.kind == Op::apply ? interpret_op(op, types, operands)
                                 : op.kind == Op::call ? interpret(program, op.callee, operands)
                                                       : interpret_repeat(program, op, std::move(operands));
    for (size_t r = 0; r < results.size(); ++r) values[index(op.results[r])] = results[r];
  }
  std::vector<Array> out;
  for (const Return& r : f.returns) out.push_back(values[index(r.value)]);
  return out;
}

Results interpret(const Program& program, const CheckOptions& options) {
  const Function& main = program.main();
  std::vector<Array> arguments;
  for (size_t p = 0; p < main.params.size(); ++p) {
    const ValueInfo& v = main.value(main.params[p]);
    arguments.emplace_back(v.type);
    draw_value(v, main.param_info[p].kind, options, arguments.back().view());
  }
  const std::vector<Array> returned = interpret(program, static_cast<int>(program.functions.size()) - 1, arguments);
  Results out;
  for (size_t r = 0; r < returned.size(); ++r) {
    if (main.returns[r].in_place == ValueId::none) {
      out.emplace_back(main.value(main.returns[r].value).name, returned[r].numbers());
    } else {
      arguments[static_cast<size_t>(main.param_index(main.returns[r].in_place))] = returned[r];
    }
  }
  for (size_t p = 0; p < main.params.size(); ++p) {
    if (main.param_info[p].kind == ParamInfo::input) continue;
    out.emplace_back(main.value(main.params[p]).name, arguments[p].numbers());
  }
  return out;
}

}  // namespace meshard::fuzz
