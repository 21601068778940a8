#include "cases.h"

#include <algorithm>

#include "meshard/base/text.h"
#include "meshard/kernels/mixed.h"
#include "meshard/ops/table.h"
#include "split_run.h"

namespace meshard::test {
namespace {

std::vector<Type> parse_types(const std::string& text) {
  std::vector<Type> types;
  Scanner in(text, "case");
  while (!in.at_end()) {
    types.push_back(Type::parse(in));
    if (!in.accept(",")) break;
  }
  return types;
}

Attributes parse_attributes(const std::string& text) {
  if (text.empty()) return {};
  Scanner in(text, "case");
  return Attributes::parse(in);
}

}  // namespace

BoundRule Case::rule() const {
  return bind_rule(*def, attributes, operands, def->explicit_type ? expected : std::vector<Type>{}, Place{"case", 1, 1});
}

std::vector<Type> Case::results() const {
  const Place place{"case", 1, 1};
  std::vector<Type> types = infer_types(*def, attributes, operands, def->explicit_type ? expected : std::vector<Type>{}, place);
  if (!wide) return types;
  for (size_t r = 0; r < types.size(); ++r) {
    if (def->may_be_wide(r) && is_narrow(types[r].dtype)) types[r].dtype = Dtype::f32;
  }
  return infer_types(*def, attributes, operands, types, place);
}

int64_t Case::elements() const {
  int64_t sum = 0;
  for (const Type& t : operands) sum += t.shape.elements();
  for (const Type& t : results()) sum += t.shape.elements();
  return sum;
}

double Case::tolerance() const {
  const auto uses = [&](Dtype dtype) {
    const auto is = [&](const Type& t) { return t.dtype == dtype; };
    return std::any_of(operands.begin(), operands.end(), is) || std::any_of(expected.begin(), expected.end(), is);
  };
  if (uses(Dtype::bf16)) return def->tolerance_bf16;
  if (uses(Dtype::f16)) return def->tolerance_f16;
  return uses(Dtype::f32) ? def->tolerance_f32 : def->tolerance_f64;
}

Case Case::with(Dtype dtype) const {
  Case c = *this;
  const bool converts = def->explicit_type && !operands.empty();
  const auto change = [&](Type& t) {
    if (t.dtype == Dtype::f32) t.dtype = dtype;
  };
  if (!converts) {
    for (Type& t : c.operands) change(t);
    for (Type& t : c.expected) change(t);
  }
  return c;
}

std::vector<Case> Case::in_all_types() const {
  std::vector<Case> out;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f64, Dtype::f16}) {
    out.push_back(with(dtype));
    out.back().types = name(dtype);
  }
  if (def->explicit_type || !def->typed()) return out;
  for (const size_t narrow : {1, 3}) {
    Case mixed = out[narrow];
    mixed.wide = true;
    mixed.types += " and f32";
    for (int i : def->wide_operands) {
      Type& type = mixed.operands[static_cast<size_t>(i)];
      if (is_narrow(type.dtype)) type.dtype = Dtype::f32;
    }
    out.push_back(std::move(mixed));
  }
  return out;
}

Prepared Case::prepare(PrepareFn kernel, PrepareFn convert, const KernelSpec& spec) const {
  return def->explicit_type ? kernel(spec) : prepare_any(kernel, convert, spec);
}

std::vector<Case> cases(const OpDef& def) {
  std::vector<Case> list;
  for (const OpCase& c : def.cases)
    list.push_back({&def, parse_attributes(c.attributes), parse_types(c.operands), parse_types(c.results), c.below,
                    std::string(def.name) + " " + c.operands + " " + c.attributes + " -> " + c.results});
  return list;
}

std::vector<Tensor> draw_operands(const Case& c, Random& random) {
  std::vector<Tensor> operands;
  for (const bool positive : {false, true}) {
    operands.clear();
    for (const Type& t : c.operands) operands.push_back(draw(t, c.below, positive, random));
    if (!c.def->reference) break;
    const std::vector<Tensor> results = run_whole(c, operands);
    if (std::all_of(results.begin(), results.end(), all_finite)) break;
  }
  return operands;
}

std::vector<const OpDef*> computing_ops() {
  std::vector<const OpDef*> ops;
  for (const OpDef* def : op_table().all())
    if (def->reference) ops.push_back(def);
  return ops;
}

}  // namespace meshard::test
