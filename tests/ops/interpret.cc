#include "interpret.h"

#include "meshard/base/error.h"

namespace meshard::test {
namespace {

// The op as a case, so that it runs as the ops of the table do.
Case case_of(const Function& f, const Op& op) {
  MESHARD_CHECK(op.kind == Op::apply && op.def->reference, "a test's function has ops with kernels only");
  Case c;
  c.def = op.def;
  c.attributes = op.attributes;
  for (ValueId v : op.operands) c.operands.push_back(f.value(v).type);
  for (ValueId v : op.results) c.expected.push_back(f.value(v).type);
  return c;
}

void check_types(const Function& f, const Op& op, size_t result, const Type& type) {
  MESHARD_CHECK(f.value(op.results[result]).type == type, "the program's type of a result is the op's");
}

}  // namespace

std::vector<Tensor> interpret(const Function& f, const std::vector<Tensor>& params,
                              const std::vector<ValueId>& wanted) {
  std::vector<Tensor> values(f.values.size());
  for (size_t i = 0; i < params.size(); ++i) values[index(f.params[i])] = params[i].clone();
  for (const Op& op : f.ops) {
    std::vector<Tensor> operands;
    for (ValueId v : op.operands) operands.push_back(values[index(v)].clone());
    std::vector<Tensor> results = run_whole(case_of(f, op), operands);
    for (size_t r = 0; r < results.size(); ++r) {
      check_types(f, op, r, results[r].type());
      values[index(op.results[r])] = std::move(results[r]);
    }
  }
  std::vector<Tensor> out;
  for (ValueId v : wanted) out.push_back(values[index(v)].clone());
  return out;
}

std::vector<Tensor> interpret_sharded(const Function& f, const Mesh& mesh, const std::vector<Tensor>& params,
                                      const std::vector<Layout>& layouts, const std::vector<ValueId>& wanted) {
  std::vector<Sharded> values(f.values.size());
  const auto shape = [&](ValueId v) -> const Shape& { return f.value(v).type.shape; };
  const auto lay_out = [&](ValueId v, const Layout& layout) {
    Sharded& value = values[index(v)];
    if (value.layout != layout) value = shard(mesh, assemble(mesh, value, shape(v)), layout);
  };
  for (size_t i = 0; i < params.size(); ++i) values[index(f.params[i])] = shard(mesh, params[i], layouts[i]);
  for (const Op& op : f.ops) {
    const Case c = case_of(f, op);
    const BoundRule rule = c.rule();
    FactorAtoms atoms(rule.factors.size());
    for (size_t i = op.operands.size(); i-- > 0;) {  // the first operand has the last word
      lay_out(op.operands[i], values[index(op.operands[i])].layout.without_pending());
      if (!pour_layout(mesh, rule, rule.operands[i], values[index(op.operands[i])].layout, atoms))
        lay_out(op.operands[i], layout_from_factors(rule.operands[i], atoms));
    }
    for (size_t k = 0; k < atoms.size(); ++k) {
      if (rule.factors[k].whole) atoms[k].clear();
    }
    std::vector<const Sharded*> operands;
    for (size_t i = 0; i < op.operands.size(); ++i) {
      lay_out(op.operands[i], layout_from_factors(rule.operands[i], atoms));
      operands.push_back(&values[index(op.operands[i])]);
    }
    const std::string why = illegal_split(mesh, rule, atoms);
    MESHARD_CHECK(why.empty(), why);
    std::vector<Sharded> results = run_sharded(c, rule, mesh, atoms, operands);
    for (size_t r = 0; r < results.size(); ++r) {
      check_types(f, op, r, Type{results[r].parts[0].type().dtype, shape(op.results[r])});
      values[index(op.results[r])] = std::move(results[r]);
    }
  }
  std::vector<Tensor> out;
  for (ValueId v : wanted) out.push_back(assemble(mesh, values[index(v)], shape(v)));
  return out;
}

}  // namespace meshard::test
