// The functions that models call: what they build, and what they say to wrong calls.
#include "meshard/ops/functions.h"

#include <catch2/catch.hpp>

#include "meshard/ops/gradients.h"
#include "meshard/ops/ops.h"
#include "meshard/ops/table.h"

namespace meshard {
namespace {

struct Fixture {
  Trace trace{op_table()};
  Builder& builder = trace.main();

  Value param(std::string_view name, std::string_view type) { return builder.param(name, Type::parse(type)); }
  const Op& last_op() { return builder.function().ops.back(); }
  std::vector<std::string> op_names() {
    std::vector<std::string> names;
    for (const Op& op : builder.function().ops) names.emplace_back(op.def->name);
    return names;
  }
};

template <class F>
std::string message(F f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.diagnostic().text;
  }
  return "";
}

TEST_CASE_METHOD(Fixture, "functions give the shapes that the header says") {
  Value x = param("x", "f32[2,5,6]"), w = param("w", "f32[6]"), up = param("up", "f32[6,4]");
  Value ids = param("ids", "i32[2,5]"), table = param("table", "f32[7,6]");
  CHECK(einsum("b t d, d f -> b t f", x, up).type() == Type::parse("f32[2,5,4]"));
  CHECK(add(x, w).shape() == Shape{2, 5, 6});
  CHECK(sum(x, "b t d -> d").shape() == Shape{6});
  CHECK(mean(x).shape() == Shape{});
  CHECK(max(x, "... v -> ...").shape() == Shape{2, 5});
  CHECK(sum_squares(x).shape() == Shape{});
  CHECK(reshape(x, "b t (h e) -> b t h e", {{"h", 2}}).shape() == Shape{2, 5, 2, 3});
  CHECK(transpose(x, "b t d -> d b t").shape() == Shape{6, 2, 5});
  CHECK(broadcast(w, "d -> b d", {{"b", 3}}).shape() == Shape{3, 6});
  CHECK(embedding(ids, table).shape() == Shape{2, 5, 6});
  CHECK(rms_norm(x, w).shape() == Shape{2, 5, 6});
  CHECK(cross_entropy(x, ids).shape() == Shape{2, 5});
  CHECK(convert(x, Dtype::bf16).type() == Type::parse("bf16[2,5,6]"));
  CHECK(convert(x, Dtype::f32).id() == x.id());
  CHECK(fill(builder, 1, Type::parse("f32[3]")).shape() == Shape{3});
  CHECK(iota(builder, Type::parse("i32[3,4]"), 1).type() == Type::parse("i32[3,4]"));
  CHECK(random_normal(builder, Type::parse("f32[3]"), 7, "w", 0.02).shape() == Shape{3});
  CHECK(take(x, param("i", "i32[]")).shape() == Shape{5, 6});
}

TEST_CASE_METHOD(Fixture, "attention takes plain and grouped heads") {
  Value q = param("q", "f32[2,4,5,6]"), k = param("k", "f32[2,4,3,6]");
  CHECK(attention(q, k, k, false).shape() == Shape{2, 4, 5, 6});
  Value grouped = param("g", "f32[2,4,3,5,6]"), kv = param("kv", "f32[2,4,5,6]");
  CHECK(attention(grouped, kv, kv).shape() == Shape{2, 4, 3, 5, 6});
}

TEST_CASE_METHOD(Fixture, "operators build the ops that they read as, at the line they stand on") {
  Value a = param("a", "f32[4]"), b = param("b", "f32[4]");
  Value y = 1.0 - (a + b) * 2.0 / a;
  const int line = __LINE__ - 1;
  CHECK(op_names() == std::vector<std::string>{"add", "scale", "div", "neg", "offset"});
  CHECK(y.shape() == Shape{4});
  for (const Op& op : builder.function().ops) CHECK(op.source.line == line);
  CHECK(builder.function().ops[1].attributes.number("factor") == 2.0);
}

TEST_CASE_METHOD(Fixture, "the place that a pass has set goes before the line of the call") {
  builder.set_source(Place{"model.cc", 12, 0});
  gelu(param("x", "f32[4]"));
  CHECK(last_op().source == Place{"model.cc", 12, 0});
}

TEST_CASE_METHOD(Fixture, "wrong calls") {
  Value x = param("x", "f32[2,5]"), y = param("y", "f32[3,4]"), z = param("z", "bf16[2,5]");
  CHECK(message([&] { gelu(Value()); }) ==
        "gelu: operand 0 is none; a Value comes from an input, a parameter or an op");
  CHECK(message([&] { add(x, z); }) == "add: operand 0 is f32[2,5] but operand 1 is bf16[2,5]; convert one of them");
  CHECK(message([&] { einsum("m k, k n -> m n", x, y); }) ==
        "einsum \"m k, k n -> m n\": factor k is 5 in operand 0 dimension 1 but 3 in operand 1 dimension 0");
  CHECK(message([&] { einsum("m k, n k -> m z", x, x); }) ==
        "einsum \"m k, n k -> m z\": z of the result is in no operand; broadcast makes a dimension");
  CHECK(message([&] { reshape(x, "a b -> a"); }) ==
        "reshape \"a b -> a\": b of the operand is not in the result; sum reduces a dimension");
  CHECK(message([&] {
          broadcast(x, "a b -> b t", {{"t", 2}});
        }) == "broadcast \"a b -> b t\": a of the operand is not in the result; sum reduces a dimension");
  CHECK(message([&] { iota(builder, Type::parse("i32[3]"), 1); }) == "iota: i32[3] has no dimension 1");
}

TEST_CASE_METHOD(Fixture, "unbroadcast sums over what was repeated") {
  Value d = param("d", "f32[2,5,3]");
  CHECK(unbroadcast(d, Shape{2, 5, 3}).id() == d.id());
  CHECK(unbroadcast(d, Shape{5, 1}).shape() == Shape{5, 1});
  CHECK(last_op().attributes.text("rule") == "n0 n1 n2 -> n1 1");
  CHECK(unbroadcast(d, Shape{}).shape() == Shape{});
}

TEST_CASE_METHOD(Fixture, "the cotangent of a mean over a constant cotangent is one fill") {
  Value x = param("x", "f32[3,5]");
  Value loss = mean(x);
  Value one = fill(builder, 1, loss.type());
  const Attributes none;
  Vjp vjp(builder, none, {x}, {loss}, {one});
  mean_op().vjp(vjp);
  CHECK(vjp.out()[0].type() == x.type());
  CHECK(last_op().def == &fill_op());
  CHECK(last_op().attributes.number("value") == 1.0 / 15);
}

TEST_CASE("the table") {
  CHECK(op_table().find("gelu") == &gelu_op());
  CHECK(op_table().find("gelo") == nullptr);
  CHECK(op_table().collective(Collective::all_gather).name == "all_gather");
  CHECK(op_table().role(Role::grad).name == "grad");
}

}  // namespace
}  // namespace meshard
