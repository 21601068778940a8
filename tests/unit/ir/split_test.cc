#include <catch2/catch.hpp>

#include "fmt/format.h"
#include "meshard/ir/op.h"
#include "meshard/layout/block.h"

namespace meshard {
namespace {

// An op bound to types, on a mesh.
struct Bound {
  Mesh mesh;
  OpDef def;
  BoundRule rule;

  Bound(std::string_view axes, std::string_view name, std::string_view text,
        std::initializer_list<std::string_view> operands, int results = 1, const Attributes& attributes = {},
        std::initializer_list<std::string_view> result_types = {})
      : mesh(Mesh::parse(axes)) {
    def.name = name;
    def.rule = text;
    def.results = results;
    def.repeats = true;
    def.zero_if_value0 = name == "fill";
    std::vector<Type> types, explicit_types;
    for (std::string_view t : operands) types.push_back(Type::parse(t));
    for (std::string_view t : result_types) explicit_types.push_back(Type::parse(t));
    rule = bind_rule(def, attributes, types, explicit_types, {});
  }

  Layout layout(std::string_view text, const std::vector<BoundRule::Dim>& dims) const {
    return Layout::parse(text, mesh, static_cast<int>(dims.size()));
  }

  // "b=data t=- | passing model" or the reason.
  std::string find(std::vector<std::string_view> operands, std::vector<std::string_view> results) const {
    std::vector<Layout> in, out;
    for (size_t i = 0; i < operands.size(); ++i) in.push_back(layout(operands[i], rule.operands[i]));
    for (size_t r = 0; r < results.size(); ++r) out.push_back(layout(results[r], rule.results[r]));
    std::string why;
    const auto split = find_split(mesh, def, rule, in, out, &why);
    if (!split) return why;
    CHECK(why.empty());
    CHECK(result_layouts(def, rule, *split) == out);
    bool same = false;
    for (int group = -1; group < static_cast<int>(def.linear.size()); ++group)
      same |= operand_layouts(def, rule, *split, group) == in;
    CHECK((same || def.identity));
    std::string text;
    for (size_t f = 0; f < rule.factors.size(); ++f) {
      if (split->atoms[f].empty()) continue;
      text += fmt::format("{}{}={}", text.empty() ? "" : " ", rule.factors[f].name, mesh.atoms_text(split->atoms[f]));
    }
    for (int k = 0; k < kReductions; ++k) {
      const AtomSet passing = split->passing[static_cast<size_t>(k)];
      if (!passing.empty()) text += fmt::format(" | {}({})", name(static_cast<Reduction>(k)), mesh.atoms_text(passing));
    }
    return text;
  }

  FactorAtoms atoms(std::vector<std::string_view> axes) const {
    FactorAtoms out;
    for (std::string_view text : axes) {
      out.push_back(text == "-" ? Atoms() : Layout::parse(fmt::format("[{}]", text), mesh, 1).atoms(0));
    }
    return out;
  }
};

Bound product(std::string_view mesh) {
  Bound b(mesh, "einsum", "b t i, i j -> b t j", {"f32[3,5,7]", "f32[7,11]"});
  b.def.linear = {{0}, {1}};
  return b;
}

TEST_CASE("a product split over its factors") {
  const Bound b = product("data=2, model=4");
  CHECK(b.find({"[-,-,-]", "[-,-]"}, {"[-,-,-]"}) == "");
  CHECK(b.find({"[data,-,-]", "[-,model]"}, {"[data,-,model]"}) == "b=data j=model");
  CHECK(b.find({"[data,-,model]", "[model,-]"}, {"[data,-,-] + sum(model)"}) == "b=data i=model");
  CHECK(b.find({"[-,-,(model,data)]", "[(model,data),-]"}, {"[-,-,-] + sum(data,model)"}) == "i=(model,data)");
  CHECK(b.find({"[-,-,(model,data)]", "[(data,model),-]"}, {"[-,-,-] + sum(data,model)"}) ==
        "i is split over (model,data) in operand 0 but split over (data,model) in operand 1");
  CHECK(b.find({"[data,-,-]", "[-,-]"}, {"[-,-,-]"}) == "b is split over data in operand 0 but whole in the result");
  CHECK(b.find({"[data,-,-]", "[-,data]"}, {"[data,-,-]"}) ==
        "j is split over data in operand 1 but whole in the result");
  CHECK(b.find({"[data,-,model]", "[model,-]"}, {"[data,-,-]"}) ==
        "the result is [data, -, -] + sum(model) by its operands, not [data, -, -]");
  CHECK(b.find({"[-,-,-]", "[-,-]"}, {"[-,-,-] + sum(model)"}) ==
        "the result is [-, -, -] by its operands, not [-, -, -] + sum(model)");
  CHECK(b.find({"[-,-,-]", "[-,-]"}, {"[-,-,-] + max(model)"}) ==
        "the result is [-, -, -] by its operands, not [-, -, -] + max(model)");
  CHECK(b.find({"[model:2,-,-]", "[-,model:(2)2]"}, {"[model:2,-,model:(2)2]"}) == "b=model:2 j=model:(2)2");
}

TEST_CASE("an axis splits one factor") {
  const Bound b("data=2", "outer", "i, j -> ", {"f32[5]", "f32[5]"});
  CHECK(b.find({"[data]", "[data]"}, {"[] + sum(data)"}) == "data splits j and another factor");
  CHECK(illegal_split(b.mesh, b.rule, b.atoms({"data", "-"})) == "");
}

TEST_CASE("pending sums pass through linear operands") {
  const Bound b = product("data=2, model=4");
  CHECK(b.find({"[data,-,-] + sum(model)", "[-,-]"}, {"[data,-,-] + sum(model)"}) == "b=data | sum(model)");
  CHECK(b.find({"[-,-,-]", "[-,-] + sum(data)"}, {"[-,-,-] + sum(data)"}) == " | sum(data)");
  CHECK(b.find({"[-,-,model] + sum(data)", "[model,-]"}, {"[-,-,-] + sum(data,model)"}) == "i=model | sum(data)");
  CHECK(b.find({"[-,-,-] + sum(model)", "[-,-] + sum(model)"}, {"[-,-,-] + sum(model)"}) ==
        "operands 0 and 1 are pending over model; einsum is not linear in them together");
  CHECK(b.find({"[-,-,-] + sum(model)", "[-,model]"}, {"[-,-,model]"}) == "model is pending and splits a factor");
  CHECK(b.find({"[-,-,-] + max(model)", "[-,-]"}, {"[-,-,-] + max(model)"}) ==
        "operand 0 is pending as a max, which passes through no op");
  CHECK(b.find({"[-,-,-] + sum(model)", "[-,-]"}, {"[-,-,-]"}) ==
        "the result is [-, -, -] + sum(model) by its operands, not [-, -, -]");

  Bound add("data=2, model=4", "add", "..., ... -> ...", {"f32[3,5]", "f32[5]"});
  add.def.linear = {{0, 1}};
  CHECK(add.find({"[data,-] + sum(model)", "[-] + sum(model)"}, {"[data,-] + sum(model)"}) == "...0=data | sum(model)");
  CHECK(add.find({"[-,-] + sum(model)", "[-]"}, {"[-,-] + sum(model)"}) ==
        "operand 0 is pending over model; add is not linear in it alone");
  CHECK(add.find({"[-,-] + sum(model)", "[-] + sum(data)"}, {"[-,-] + sum(data,model)"}) ==
        "operand 0 is pending over model but operand 1 over data");

  const Bound gelu("data=2", "gelu", "... -> ...", {"f32[3]"});
  CHECK(gelu.find({"[-] + sum(data)"}, {"[-] + sum(data)"}) ==
        "operand 0 is pending over data; gelu is not linear in it alone");
  Bound use("data=2", "use", "... -> ...", {"f32[3]"});
  use.def.identity = true;
  CHECK(use.find({"[-] + max(data)"}, {"[-] + max(data)"}) == " | max(data)");
}

TEST_CASE("a reduced factor is one for each result by itself, and combines as the op says") {
  const Bound vjp("data=2, model=2", "rms_norm_vjp", "b t d, d, b t d -> b t d, d | whole(d)",
                  {"f32[3,5,7]", "f32[7]", "f32[3,5,7]"}, 2);
  CHECK(vjp.find({"[data,model,-]", "[-]", "[data,model,-]"}, {"[data,model,-]", "[-] + sum(data,model)"}) ==
        "b=data t=model");
  CHECK(vjp.find({"[-,-,data]", "[data]", "[-,-,data]"}, {"[-,-,data]", "[data]"}) ==
        "d is whole, but split over data");
  Bound max("data=2", "max", "... v -> ...", {"f32[3,5]"});
  max.def.combine = Reduction::max;
  CHECK(max.find({"[-,data]"}, {"[-] + max(data)"}) == "v=data");
  CHECK(max.find({"[-,data]"}, {"[-] + sum(data)"}) ==
        "the result is [-] + max(data) by its operands, not [-] + sum(data)");
  const Bound loss("data=2", "cross_entropy", "... v, ... -> ... | lower(v)", {"f32[3,13]", "f32[3]"});
  CHECK(loss.find({"[data,-]", "[data]"}, {"[data]"}) == "...0=data");
  CHECK(loss.find({"[-,data]", "[-]"}, {"[-] + sum(data)"}) == "v is split over data; the op has to be lowered");
  CHECK(illegal_split(loss.mesh, loss.rule, loss.atoms({"-", "data"})) == "");
}

TEST_CASE("what is repeated is whole") {
  const Bound add("data=2", "add", "..., ... -> ...", {"f32[3,1]", "f32[5]"});
  CHECK(add.find({"[-,-]", "[data]"}, {"[-,data]"}) == "...1=data");
  CHECK(add.find({"[-,data]", "[data]"}, {"[-,data]"}) ==
        "dimension 1 of operand 0 has size 1 and is repeated; it may not be split over data");
  CHECK(add.find({"[data,-]", "[-]"}, {"[data,-]"}) == "...0=data");
}

TEST_CASE("zero may be called a pending sum of anything") {
  const Bound zero("data=2, model=4", "fill", " -> ...", {}, 1, {{"value", 0.0}}, {"f32[3]"});
  CHECK(zero.find({}, {"[data] + sum(model)"}) == "...0=data | sum(model)");
  CHECK(zero.find({}, {"[-] + max(model)"}) == "the result is [-] by its operands, not [-] + max(model)");
  const Bound one("data=2, model=4", "fill", " -> ...", {}, 1, {{"value", 1.0}}, {"f32[3]"});
  CHECK(one.find({}, {"[model]"}) == "...0=model");
  CHECK(one.find({}, {"[-] + sum(model)"}) == "the result is [-] by its operands, not [-] + sum(model)");
}

TEST_CASE("a dimension made of factors is poured major first") {
  // h 6 and e 5 over 2 x 3: h takes all; over 4 of 6: 4 does not divide.
  const Bound b("data=2, model=4, third=3", "reshape", "(h e) -> h e", {"f32[30]"}, 1, {{"h", int64_t{6}}});
  CHECK(b.find({"[data]"}, {"[data,-]"}) == "h=data");
  CHECK(b.find({"[(data,third)]"}, {"[(data,third),-]"}) == "h=(data,third)");
  CHECK(b.find({"[(third,data,model)]"}, {"[(third,data),model]"}) == "h=(third,data) e=model");
  CHECK(b.find({"[model]"}, {"[model,-]"}) ==
        "dimension 0 of operand 0 is split over model, which does not divide its factors h 6, e 5");
  CHECK(b.find({"[-]"}, {"[-,data]"}) == "e is whole in operand 0 but split over data in the result");
  CHECK(b.find({"[data]"}, {"[-,data]"}) == "h is split over data in operand 0 but whole in the result");
  CHECK(illegal_split(b.mesh, b.rule, b.atoms({"model", "-"})) == "h of (h e) is 6, which 4 parts do not divide");
  CHECK(illegal_split(b.mesh, b.rule, b.atoms({"data", "model"})) ==
        "e of (h e) can be split only below 6 parts of h, which has 2");
  CHECK(illegal_split(b.mesh, b.rule, b.atoms({"(data,third)", "model"})) == "");
  CHECK(illegal_split(b.mesh, b.rule, b.atoms({"-", "data"})) ==
        "e of (h e) can be split only below 6 parts of h, which has 1");

  FactorAtoms atoms(2);
  CHECK_FALSE(pour_layout(b.mesh, b.rule, b.rule.operands[0], Layout::parse("[(data,model)]", b.mesh), atoms));
  CHECK(atoms == b.atoms({"data", "-"}));
}

// Every legal assignment of the atoms of a mesh to factors is found again from the layouts it gives, and cuts a
// dimension into the products of the factors' blocks.
TEST_CASE("splits and layouts are inverse") {
  const auto text = GENERATE(as<std::string>(), "data=2, model=4", "a=2, b=3", "a=3, b=2", "a=2, b=2, c=5");
  const auto sizes =
      GENERATE(std::array<int64_t, 3>{6, 5, 4}, std::array<int64_t, 3>{2, 3, 5}, std::array<int64_t, 3>{1, 4, 3},
               std::array<int64_t, 3>{4, 1, 1}, std::array<int64_t, 3>{0, 3, 2}, std::array<int64_t, 3>{2, 0, 5});
  const Bound b(text, "reshape", "(h e) c -> h (e c)", {fmt::format("f32[{},{}]", sizes[0] * sizes[1], sizes[2])}, 1,
                {{"h", sizes[0]}, {"e", sizes[1]}});
  const int atoms = b.mesh.atom_count();
  int64_t assignments = 1, legal = 0;
  for (int a = 0; a < atoms; ++a) assignments *= 4;
  for (int64_t code = 0; code < assignments; ++code) {
    OpSplit split;
    split.atoms.resize(3);
    int64_t rest = code;
    for (int a = 0; a < atoms; ++a, rest /= 4) {
      if (rest % 4 < 3) split.atoms[static_cast<size_t>(rest % 4)].push_back(static_cast<AtomId>(a));
    }
    if (!illegal_split(b.mesh, b.rule, split.atoms).empty()) continue;
    ++legal;
    const std::vector<Layout> in = operand_layouts(b.def, b.rule, split, -1),
                              out = result_layouts(b.def, b.rule, split);
    std::string why;
    const auto found = find_split(b.mesh, b.def, b.rule, in, out, &why);
    INFO(why << " for " << in[0].str(b.mesh) << " -> " << out[0].str(b.mesh));
    REQUIRE(found);
    CHECK(found->atoms == split.atoms);
    for (int64_t r = 0; r < b.mesh.size(); ++r) {
      const Rank rank{static_cast<int32_t>(r)};
      std::array<Block, 3> blocks;
      for (size_t f = 0; f < 3; ++f) {
        blocks[f] = block(sizes[f], b.mesh.parts(split.atoms[f]), b.mesh.position(rank, split.atoms[f]));
      }
      const Rect mine = local_rect(b.mesh, {sizes[0] * sizes[1], sizes[2]}, in[0], rank);
      CHECK(mine.dims[0].size == blocks[0].size * blocks[1].size);
      if (mine.dims[0].size > 0) CHECK(mine.dims[0].begin == blocks[0].begin * sizes[1] + blocks[1].begin);
      const Rect made = local_rect(b.mesh, {sizes[0], sizes[1] * sizes[2]}, out[0], rank);
      CHECK(made.dims[1].size == blocks[1].size * blocks[2].size);
    }
  }
  CHECK(legal > 0);
}

}  // namespace
}  // namespace meshard
