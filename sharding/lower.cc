#include "meshard/sharding/lower.h"

#include <algorithm>

#include "meshard/ir/signature.h"
#include "meshard/ir/trace.h"

namespace meshard {
namespace {

bool splits_a_lower_factor(const Program& program, const Function& f, const Op& op) {
  if (op.kind != Op::apply || op.def->lower == nullptr) return false;
  const BoundRule& rule = bound_rule(program, f, op);
  for (size_t i = 0; i < op.operands.size(); ++i) {
    FactorAtoms atoms(rule.factors.size());
    pour_layout(*program.mesh, rule, rule.operands[i], *f.value(op.operands[i]).layout, atoms);
    for (size_t k = 0; k < atoms.size(); ++k) {
      if (rule.factors[k].lower && !atoms[k].empty()) return true;
    }
  }
  return false;
}

const OpDef& name_for_a_value(const OpTable& table) {
  for (const OpDef* def : table.all()) {
    if (def->identity && !def->collective && def->role == Role::none) return *def;
  }
  throw InternalError("the table has no op that is its operand and no role");
}

// What an op gives in place of its operand `param` is made by one of several now; the others may read the operand later.
Value behind_readers(Builder& builder, const Op& op, ValueId param, Value made) {
  const Function& f = builder.function();
  const auto from = static_cast<size_t>(f.value(made.id()).op + 1);
  const bool read = std::any_of(f.ops.begin() + static_cast<std::ptrdiff_t>(from), f.ops.end(), [&](const Op& later) {
    return std::find(later.operands.begin(), later.operands.end(), param) != later.operands.end();
  });
  if (!read) return made;
  builder.rename(made.id(), builder.fresh_name(f.value(made.id()).name + ".early"));
  return builder.apply(name_for_a_value(*builder.program().table), {made}, {}, {}, "", op.source)[0];
}

// Ops that a lowering is made of have operands of one type: what is narrow beside f32 is cast for them, and the results
// back.
Value in_dtype(Builder& builder, Value v, Dtype dtype) {
  return builder.apply(builder.program().table->cast(), {v}, {}, {Type{dtype, v.shape()}}, v.name() + "." + std::string(name(dtype)))[0];
}

bool is_mixed(const Function& f, const Op& op) {
  bool narrow = false, wide = false;
  for (const auto* list : {&op.operands, &op.results}) {
    for (ValueId v : *list) {
      narrow = narrow || is_narrow(f.value(v).type.dtype);
      wide = wide || f.value(v).type.dtype == Dtype::f32;
    }
  }
  return narrow && wide;
}

// Copies function `source` to the end of `out`, ops for which `lowered` says so replaced by their lowering.
void copy_lowered(Program& out, const Function& source, const std::vector<bool>& lowered) {
  out.functions.push_back(Function{source.name, {}, {}, source.param_info, {}, {}});
  const int index_in_out = static_cast<int>(out.functions.size()) - 1;
  Builder builder(out, index_in_out);
  Function& f = out.functions.back();
  std::vector<ValueId> map(source.values.size(), ValueId::none);
  const auto keep = [&](ValueId v, int op) {
    ValueInfo info = source.value(v);
    info.op = op;
    f.values.push_back(std::move(info));
    map[index(v)] = ValueId(static_cast<int32_t>(f.values.size()) - 1);
    return map[index(v)];
  };
  for (ValueId v : source.params) f.params.push_back(keep(v, -1));
  for (ParamInfo& info : f.param_info) {
    if (info.of != ValueId::none) info.of = map[index(info.of)];
  }
  for (size_t i = 0; i < source.ops.size(); ++i) {
    const Op& op = source.ops[i];
    if (!lowered[i]) {
      Op copy = op;
      for (ValueId& v : copy.operands) v = v == ValueId::none ? v : map[index(v)];
      for (ValueId& v : copy.results) v = keep(v, static_cast<int>(f.ops.size()));
      f.ops.push_back(std::move(copy));
      continue;
    }
    std::vector<Value> operands;
    builder.set_source(op.source);
    const bool mixed = is_mixed(source, op);
    for (ValueId v : op.operands) {
      operands.emplace_back(&builder, map[index(v)]);
      if (!mixed || !is_narrow(source.value(v).type.dtype)) continue;
      const std::optional<Layout> layout = f.value(map[index(v)]).layout;
      operands.back() = in_dtype(builder, operands.back(), Dtype::f32);
      f.value(operands.back().id()).layout = layout;
    }
    Lowering lowering(builder, op.attributes, operands, source.value(op.results[0]).name);
    op.def->lower(lowering);
    MESHARD_CHECK(lowering.results().size() == op.results.size(), "a lowering sets every result of its op");
    for (size_t r = 0; r < op.results.size(); ++r) {
      const ValueInfo& old = source.value(op.results[r]);
      Value made = lowering.results()[r];
      if (made.type().dtype == Dtype::f32 && is_narrow(old.type.dtype)) {
        builder.rename(made.id(), builder.fresh_name(old.name + ".f32"));
        made = in_dtype(builder, made, old.type.dtype);
      }
      for (const Return& back : source.returns) {
        if (back.value == op.results[r] && back.in_place != ValueId::none) made = behind_readers(builder, op, map[index(back.in_place)], made);
      }
      MESHARD_CHECK(made.type() == old.type, "a lowering keeps the types of its op");
      ValueInfo& value = f.value(made.id());
      builder.rename(made.id(), old.name);
      value.layout = old.layout;  // for the lowering of what reads it
      value.pinned = old.pinned;
      value.pinned_by = old.pinned_by;
      map[index(op.results[r])] = made.id();
    }
  }
  for (const Return& r : source.returns) {
    f.returns.push_back({map[index(r.value)], r.in_place == ValueId::none ? r.in_place : map[index(r.in_place)]});
  }
}

}  // namespace

Program lower(Program program, bool* changed) {
  *changed = false;
  Program out;
  out.table = program.table;
  out.mesh = program.mesh;
  out.signatures = program.signatures;
  for (Function& f : program.functions) {
    std::vector<bool> lowered(f.ops.size());
    bool any = false;
    for (size_t i = 0; i < f.ops.size(); ++i) any |= lowered[i] = splits_a_lower_factor(program, f, f.ops[i]);
    if (!any) {
      out.functions.push_back(std::move(f));
      continue;
    }
    *changed = true;
    copy_lowered(out, f, lowered);
    // What pinned nothing is for propagate to say again, with the new ops in place.
    for (ValueInfo& v : out.functions.back().values) {
      if (!v.pinned) v.layout = std::nullopt;
    }
  }
  return out;
}

}  // namespace meshard
