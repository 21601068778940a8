#include "meshard/ir/rule.h"

#include <catch2/catch.hpp>

#include "meshard/ir/op.h"

namespace meshard {
namespace {

std::vector<Type> types(std::initializer_list<std::string_view> texts) {
  std::vector<Type> out;
  for (std::string_view t : texts) out.push_back(Type::parse(t));
  return out;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// An op by its rule; a rule of "" is taken from the attribute.
OpDef op(std::string_view name, std::string_view rule, int results = 1) {
  OpDef def;
  def.name = name;
  def.rule = rule;
  def.results = results;
  def.repeats = true;
  return def;
}

// The types of the results as text, or the message.
std::string infer(const OpDef& def, std::initializer_list<std::string_view> operands, const Attributes& attributes = {},
                  std::initializer_list<std::string_view> results = {}) {
  try {
    check_attributes(def, attributes, {"m.cc", 3});
    std::string out;
    for (const Type& t : infer_types(def, attributes, types(operands), types(results), {"m.cc", 3})) {
      out += (out.empty() ? "" : ", ") + t.str();
    }
    return out;
  } catch (const UserError& error) {
    return first_line(error.what());
  }
}

std::string factors(const BoundRule& rule) {
  std::string out;
  for (const Factor& f : rule.factors) out += (out.empty() ? "" : " ") + f.name + "=" + std::to_string(f.size);
  return out;
}

std::string parse_error(std::string_view text) {
  try {
    Rule::parse(text, {"m.cc", 3});
  } catch (const UserError& error) {
    return first_line(error.what());
  }
  return "";
}

TEST_CASE("a rule reads back as it prints") {
  for (std::string_view text :
       {"b t i, i j -> b t j", "... c -> ... c | whole(c)", "..., , -> ...", "b t (h e) -> b h t e", "b t d -> 1 d",
        "... -> ", " -> ...", "k ..., -> ...", ", , -> , "}) {
    CHECK(Rule::parse(text).str() == text);
  }
  const Rule rule = Rule::parse("... v a, ... -> ..., ... | whole(a), lower(v,...)");
  CHECK(rule.str() == "... v a, ... -> ..., ... | whole(a) lower(v,...)");
  CHECK(Rule::parse(" -> ...").operands.empty());
  CHECK(Rule::parse(", -> ").operands.size() == 2);
  CHECK(Rule::parse("a -> ").results.size() == 1);
  CHECK(rule.names("..."));
  CHECK_FALSE(rule.names("b"));
}

TEST_CASE("bad rules") {
  CHECK(parse_error("b t") == "m.cc:3: rule \"b t\": expected \"->\" but found the end of the text");
  CHECK(parse_error("b b -> b") == "m.cc:3: rule \"b b -> b\": b stands twice in one tensor");
  CHECK(parse_error("(b t b) -> b") == "m.cc:3: rule \"(b t b) -> b\": b stands twice in one tensor");
  CHECK(parse_error("b 2 -> b") == "m.cc:3: rule \"b 2 -> b\": a size in a rule can only be 1; name the dimension");
  CHECK(parse_error("(... b) -> b") ==
        "m.cc:3: rule \"(... b) -> b\": \"...\" stands for whole dimensions, not inside of \"( )\"");
  CHECK(parse_error("() -> ") == "m.cc:3: rule \"() -> \": \"()\" is no dimension; write \"1\" for one of size 1");
  CHECK(parse_error("b -> b | hole(b)") ==
        "m.cc:3: rule \"b -> b | hole(b)\": no mark \"hole\"; there are whole, lower and size; did you mean \"whole\"?");
  CHECK(parse_error("b -> b | whole(c)") == "m.cc:3: rule \"b -> b | whole(c)\": whole(c): the rule has no factor c");
  CHECK(parse_error("b -> b -> b") == "m.cc:3: rule \"b -> b -> b\": expected \",\", \"|\" or the end of the rule");
  CHECK(parse_error("(b -> b") != "");
}

TEST_CASE("factors come in the order in which the rule names them") {
  const OpDef def = op("attention", "... t e, ... s e -> ... t e, ... t | whole(e)", 2);
  const BoundRule rule = bind_rule(def, {}, types({"f32[3,5,2]", "f32[3,7,2]"}), {}, {});
  CHECK(factors(rule) == "...0=3 t=5 e=2 s=7");
  CHECK(rule.factors[2].whole);
  CHECK_FALSE(rule.factors[1].whole);
  CHECK(rule.reduced(3, 0));
  CHECK(rule.reduced(2, 1));
  CHECK_FALSE(rule.reduced(2, 0));
  CHECK(rule.points() == 3 * 5 * 2 * 7);
  CHECK(result_shapes(rule)[1] == Shape{3, 5});
}

TEST_CASE("dimensions that stand for any") {
  const OpDef add = op("add", "..., ... -> ...");
  CHECK(infer(add, {"f32[2,3]", "f32[2,3]"}) == "f32[2,3]");
  CHECK(infer(add, {"f32[3]", "f32[2,3]"}) == "f32[2,3]");
  CHECK(infer(add, {"f32[]", "f32[]"}) == "f32[]");
  CHECK(infer(add, {"f32[5,1]", "f32[1,3]"}) == "f32[5,3]");
  CHECK(infer(add, {"f32[1]", "f32[0]"}) == "f32[0]");
  CHECK(infer(add, {"f32[1]", "f32[1]"}) == "f32[1]");
  CHECK(infer(add, {"f32[2,3]", "f32[2,4]"}) ==
        "m.cc:3: add: dimension 1 is 3 in operand 0 f32[2,3] but 4 in operand 1 f32[2,4]");
  CHECK(infer(add, {"f32[2,3]", "f32[4]"}) ==
        "m.cc:3: add: dimension 1 of operand 0 f32[2,3] is 3 but dimension 0 of operand 1 f32[4] is 4");
  CHECK(infer(add, {"f32[0]", "f32[2]"}) ==
        "m.cc:3: add: dimension 0 is 0 in operand 0 f32[0] but 2 in operand 1 f32[2]");

  // Repeated dimensions have no factor in the operand that lacks them; equal ones of size 1 have.
  const BoundRule rule = bind_rule(add, {}, types({"f32[1,5,1]", "f32[5,3]"}), {}, {});
  CHECK(factors(rule) == "...0=1 ...1=5 ...2=3");
  CHECK(rule.operands[0] == std::vector<BoundRule::Dim>{{0}, {1}, {}});
  CHECK(rule.operands[1] == std::vector<BoundRule::Dim>{{1}, {2}});
  CHECK(rule.results[0] == std::vector<BoundRule::Dim>{{0}, {1}, {2}});

  const OpDef take = op("take", "k ..., -> ...");
  OpDef ids = take;
  ids.operand_dtypes = {std::nullopt, Dtype::i32};
  CHECK(infer(ids, {"f32[4,2,3]", "i32[]"}) == "f32[2,3]");
  CHECK(infer(ids, {"f32[4]", "i32[]"}) == "f32[]");
  CHECK(infer(ids, {"f32[4]", "i32[1]"}) == "m.cc:3: take: operand 1 i32[1] has 1 dimension, the rule expects 0: \"\"");
  const OpDef softmax = op("softmax", "... c -> ... c | whole(c)");
  CHECK(infer(softmax, {"f32[]"}) ==
        "m.cc:3: softmax: operand 0 f32[] has 0 dimensions, the rule expects at least 1: \"... c\"");
}

TEST_CASE("rules in attributes") {
  const OpDef einsum = op("einsum", "");
  const auto product = [&](std::string_view rule, std::string_view a, std::string_view b) {
    return infer(einsum, {a, b}, {{"rule", std::string(rule)}});
  };
  CHECK(product("b t i, i j -> b t j", "f32[3,5,7]", "f32[7,11]") == "f32[3,5,11]");
  CHECK(product("b t i, i j -> ", "f32[3,5,7]", "f32[7,11]") == "f32[]");
  CHECK(product("b m k, b k n -> b m n", "f32[2,3,64]", "f32[2,32,5]") ==
        "m.cc:3: einsum \"b m k, b k n -> b m n\": factor k is 64 in operand 0 dimension 2 but 32 in operand 1 "
        "dimension 1");
  CHECK(product("b m k, b k n -> b m n", "f32[2,3,4]", "f32[4,5]") ==
        "m.cc:3: einsum \"b m k, b k n -> b m n\": operand 1 f32[4,5] has 2 dimensions, the rule expects 3: \"b k n\"");
  CHECK(product("i j -> j", "f32[2,3]", "f32[3]") == "m.cc:3: einsum \"i j -> j\" takes 1 operand, got 2");
  CHECK(product("i, j -> i, j", "f32[2]", "f32[3]") ==
        "m.cc:3: einsum \"i, j -> i, j\": the rule has 2 results, einsum has 1");
  CHECK(product("i, j -> i k", "f32[2]", "f32[3]") ==
        "m.cc:3: einsum \"i, j -> i k\": the size of k does not follow from the operands; give it as an attribute, {k "
        "= ...}");
  CHECK(infer(einsum, {"f32[2]", "f32[3]"}, {{"rule", std::string("i, j -> i k")}, {"k", int64_t{4}}}) == "f32[2,4]");
  CHECK(infer(einsum, {"f32[2]", "f32[3]"}) == "m.cc:3: einsum needs the attribute rule");
  CHECK(infer(einsum, {"f32[2]", "f32[3]"}, {{"rule", 1.5}}) ==
        "m.cc:3: einsum: attribute rule is a number, it must be a text");
  CHECK(product("m 1, k -> m k", "f32[2,1]", "f32[3]") == "f32[2,3]");
  CHECK(product("m 1, k -> m k", "f32[2,5]", "f32[3]") ==
        "m.cc:3: einsum \"m 1, k -> m k\": dimension 1 of operand 0 f32[2,5] is 5, the rule says 1");
  CHECK(product("i, j -> i j", "f32[4000000000]", "f32[4000000000]") ==
        "m.cc:3: einsum: a result f32[4000000000,4000000000] has more than 2^62 bytes");

  OpDef sum = op("sum", "");
  sum.attributes = {{"rule", std::string("... -> ")}};
  CHECK(infer(sum, {"f32[5,3]"}) == "f32[]");
  CHECK(infer(sum, {"f32[5,3]"}, {{"rule", std::string("b d -> 1 d")}}) == "f32[1,3]");
}

TEST_CASE("dimensions made of factors") {
  const OpDef reshape = op("reshape", "");
  const auto shape = [&](std::string_view rule, std::string_view type, Attributes sizes = {}) {
    sizes.set("rule", std::string(rule));
    return infer(reshape, {type}, sizes);
  };
  CHECK(shape("b (h e) -> b h e", "f32[5,12]", {{"h", int64_t{3}}}) == "f32[5,3,4]");
  CHECK(shape("b (h e) -> b h e", "f32[5,12]", {{"e", int64_t{3}}}) == "f32[5,4,3]");
  CHECK(shape("b h e -> b (h e)", "f32[5,4,3]") == "f32[5,12]");
  CHECK(shape("(a b c) -> c (a b)", "f32[30]", {{"a", int64_t{2}}, {"c", int64_t{5}}}) == "f32[5,6]");
  CHECK(shape("b (h e) -> b h e", "f32[5,0]", {{"h", int64_t{3}}}) == "f32[5,3,0]");
  CHECK(shape("b h e -> b (h e)", "f32[5,0,3]") == "f32[5,0]");
  CHECK(shape("b (h e) -> b h e", "f32[5,13]", {{"h", int64_t{4}}}) ==
        "m.cc:3: reshape \"b (h e) -> b h e\": dimension 1 of operand 0 f32[5,13] is 13, which is no multiple of 4 in "
        "(h e) = 4 x e");
  CHECK(shape("b (h e) -> b h e", "f32[5,12]", {{"h", int64_t{3}}, {"e", int64_t{5}}}) ==
        "m.cc:3: reshape \"b (h e) -> b h e\": dimension 1 of operand 0 f32[5,12] is 12, but (h e) = 3 x 5 = 15");
  CHECK(shape("b (h e) -> b h e", "f32[5,12]") ==
        "m.cc:3: reshape \"b (h e) -> b h e\": the size of h does not follow from the operands; give it as an "
        "attribute, {h = ...}");
  CHECK(shape("b (h e) -> b h e", "f32[5,12]", {{"h", int64_t{0}}}) ==
        "m.cc:3: reshape \"b (h e) -> b h e\": dimension 1 of operand 0 f32[5,12] is 12, which is no multiple of 0 in "
        "(h e) = 0 x e");
  CHECK(shape("b e -> b e", "f32[5,12]", {{"e", int64_t{3}}}) ==
        "m.cc:3: reshape \"b e -> b e\": factor e is 3 by its attribute but 12 in operand 0 dimension 1");
  CHECK(shape("b (h e) -> b h e", "f32[5,12]", {{"h", int64_t{-3}}}) ==
        "m.cc:3: reshape \"b (h e) -> b h e\": attribute h is -3; a size is 0 or more");
}

TEST_CASE("types that are part of the op") {
  OpDef fill = op("fill", " -> ...");
  fill.explicit_type = true;
  fill.zero_if_value0 = true;
  fill.attributes = {{"value", 0.0, true}};
  CHECK(infer(fill, {}, {{"value", 1.0}}, {"bf16[2,3]"}) == "bf16[2,3]");
  CHECK(infer(fill, {}, {{"value", int64_t{1}}}, {"f32[]"}) == "f32[]");
  CHECK(infer(fill, {}, {{"value", 1.0}}) == "m.cc:3: fill: the type of the result must be given");
  CHECK(infer(fill, {}, {}, {"f32[2]"}) == "m.cc:3: fill: attribute value is missing; it is a number");
  CHECK(bind_rule(fill, {{"value", 0.0}}, {}, types({"f32[3]"}), {}).zero);
  CHECK_FALSE(bind_rule(fill, {{"value", 2.0}}, {}, types({"f32[3]"}), {}).zero);

  OpDef convert = op("convert", "... -> ...");
  convert.explicit_type = true;
  CHECK(infer(convert, {"f32[2,3]"}, {}, {"bf16[2,3]"}) == "bf16[2,3]");
  CHECK(infer(convert, {"f32[2,3]"}, {}, {"bf16[2,4]"}) ==
        "m.cc:3: convert: dimension 1 is 3 in operand 0 f32[2,3] but 4 in the result bf16[2,4]");
  CHECK(infer(convert, {"f32[1]"}, {}, {"bf16[4]"}) ==
        "m.cc:3: convert: dimension 0 is 1 in operand 0 f32[1] but 4 in the result bf16[4]");
  CHECK(infer(convert, {"f32[2]"}, {}, {"bf16[2,1]"}) ==
        "m.cc:3: convert: the result bf16[2,1] has 2 dimensions, the rule expects 1: \"...\"");
}

TEST_CASE("dtypes") {
  const OpDef add = op("add", "..., ... -> ...");
  CHECK(infer(add, {"f32[2]", "bf16[2]"}) ==
        "m.cc:3: add: operand 0 is f32[2] but operand 1 is bf16[2]; convert one of them");
  CHECK(infer(add, {"f32[2]", "i32[2]"}) == "m.cc:3: add: operand 1 is i32[2], it must be a float");
  OpDef embedding = op("embedding", "..., v d -> ... d");
  embedding.operand_dtypes = {Dtype::i32};
  CHECK(infer(embedding, {"i32[3,5]", "bf16[13,7]"}) == "bf16[3,5,7]");
  CHECK(infer(embedding, {"f32[3,5]", "f32[13,7]"}) == "m.cc:3: embedding: operand 0 is f32[3,5], it must be i32");
  OpDef vjp = op("embedding_vjp", "..., ... d -> v d");
  vjp.operand_dtypes = {Dtype::i32};
  vjp.attributes = {{"v", int64_t{0}, true}};
  CHECK(infer(vjp, {"i32[3,5]", "f64[3,5,7]"}, {{"v", int64_t{13}}}) == "f64[13,7]");
  CHECK(infer(vjp, {"i32[3,5]", "f64[3,5,7]"}) == "m.cc:3: embedding_vjp: attribute v is missing; it is an integer");
  OpDef identity = op("reshard", "... -> ...");
  identity.identity = true;
  CHECK(infer(identity, {"i32[3]"}) == "i32[3]");
  OpDef second = op("where", "..., ... -> ...");
  second.operand_dtypes = {Dtype::i32, Dtype::i32};
  second.result_dtype = {1};
  CHECK(infer(second, {"i32[3]", "i32[3]"}) == "i32[3]");
}

TEST_CASE("attributes") {
  OpDef norm = op("rms_norm", "... d, d -> ... d");
  norm.attributes = {{"eps", 1e-5}, {"causal", false}};
  CHECK(infer(norm, {"f32[2,3]", "f32[3]"}, {{"eps", int64_t{1}}}) == "f32[2,3]");
  CHECK(infer(norm, {"f32[2,3]", "f32[3]"}, {{"epz", 1.0}}) ==
        "m.cc:3: rms_norm: no attribute \"epz\"; did you mean \"eps\"?");
  CHECK(infer(norm, {"f32[2,3]", "f32[3]"}, {{"eps", true}}) ==
        "m.cc:3: rms_norm: attribute eps is true or false, it must be a number");
  CHECK(infer(norm, {"f32[2,3]", "f32[3]"}, {{"causal", int64_t{1}}}) ==
        "m.cc:3: rms_norm: attribute causal is an integer, it must be true or false");
  CHECK(infer(norm, {"f32[2,3]", "f32[3]"}, {{"d", 3.0}}) ==
        "m.cc:3: rms_norm: attribute d is a number, it must be an integer");
  OpDef grouped = op("attention", "");
  grouped.rule_for = [](std::span<const Type> operands, const Attributes&) {
    return std::string(operands[0].shape.rank() == 5 ? "b g r t e -> b g t e" : "b h t e -> b h t e");
  };
  CHECK(infer(grouped, {"f32[1,2,3,4,5]"}) == "f32[1,2,4,5]");
  CHECK(infer(grouped, {"f32[2]"}) ==
        "m.cc:3: attention \"b h t e -> b h t e\": operand 0 f32[2] has 1 dimension, the rule expects 4: \"b h t e\"");
  CHECK(infer(grouped, {"f32[1,2,3,4,5]"}, {{"rule", std::string("a -> a")}}) ==
        "m.cc:3: attention: no attribute \"rule\"");
}

TEST_CASE("the table") {
  const OpDef add = op("add", "..., ... -> ...");
  OpDef use = op("use", "... -> ...");
  use.role = Role::use;
  OpDef gather = op("all_gather", "... -> ...");
  gather.collective = Collective::all_gather;
  gather.identity = true;
  const OpTable table({&use, &gather, &add});
  CHECK(table.names() == std::vector<std::string>{"add", "all_gather", "use"});
  CHECK(table.find("use") == &use);
  CHECK(table.find("us") == nullptr);
  CHECK(&table.get("add") == &add);
  CHECK(&table.role(Role::use) == &use);
  CHECK(&table.collective(Collective::all_gather) == &gather);
  CHECK_THROWS_AS(table.get("sub"), InternalError);
  CHECK_THROWS_AS(table.role(Role::grad), InternalError);
  CHECK_THROWS_AS(OpTable({&add, &add}), InternalError);
}

}  // namespace
}  // namespace meshard
