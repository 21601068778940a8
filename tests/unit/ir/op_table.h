// A small table of ops, so that program text is tested without the floor above.
#pragma once

#include "meshard/ir/op.h"

namespace meshard::test {

inline const OpTable& op_table() {
  static const std::vector<OpDef> defs = [] {
    std::vector<OpDef> out;
    const auto same = [&](std::string_view name) -> OpDef& {
      OpDef& def = out.emplace_back();
      def.name = name;
      def.rule = "... -> ...";
      return def;
    };
    const auto collective = [&](std::string_view name, Collective kind) {
      OpDef& def = same(name);
      def.identity = true;
      def.collective = kind;
    };
    OpDef& add = same("add");
    add.rule = "..., ... -> ...";
    add.repeats = true;
    add.linear = {{0, 1}};
    same("gelu");
    OpDef& scale = same("scale");
    scale.attributes = {{"factor", 1.0, true}, {"exact", false}};
    scale.linear = {{0}};
    OpDef& einsum = out.emplace_back();
    einsum.name = "einsum";
    einsum.attributes = {{"rule", std::string(), true}};
    einsum.linear = {{0}, {1}};
    OpDef& norm = out.emplace_back();
    norm.name = "rms_norm";
    norm.rule = "... c, c -> ... c, ... | whole(c)";
    norm.results = 2;
    norm.result_names = {"", "rstd"};
    norm.attributes = {{"eps", 1e-5}};
    OpDef& fill = out.emplace_back();
    fill.name = "fill";
    fill.rule = " -> ...";
    fill.explicit_type = true;
    fill.attributes = {{"value", 0.0, true}};
    OpDef& embedding = out.emplace_back();
    embedding.name = "embedding";
    embedding.rule = "..., v d -> ... d";
    embedding.operand_dtypes = {Dtype::i32, std::nullopt};
    embedding.linear = {{1}};
    for (const auto& [name, role] : {std::pair{"use", Role::use}, {"grad", Role::grad}, {"reshard", Role::none}}) {
      OpDef& def = same(name);
      def.identity = true;
      def.role = role;
      def.linear = {{0}};
    }
    collective("all_gather", Collective::all_gather);
    collective("all_reduce", Collective::all_reduce);
    collective("reduce_scatter", Collective::reduce_scatter);
    collective("slice", Collective::slice);
    return out;
  }();
  static const OpTable table = [] {
    std::vector<const OpDef*> ops;
    for (const OpDef& def : defs) ops.push_back(&def);
    return OpTable(std::move(ops));
  }();
  return table;
}

}  // namespace meshard::test
