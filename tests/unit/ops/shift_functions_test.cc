// Functions of indices, shifts, order and windows: shapes, and what they say to wrong calls.
#include <catch2/catch.hpp>

#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"

namespace meshard {
namespace {

struct Fixture {
  Trace trace{op_table()};

  Value param(std::string_view name, std::string_view type) { return trace.main().param(name, Type::parse(type)); }
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

TEST_CASE_METHOD(Fixture, "indices, shifts and order give the shapes that the header says") {
  Value x = param("x", "f32[2,5,6]"), ids = param("ids", "i32[2,3]"), at = param("at", "i32[]");
  CHECK(gather(x, ids, "b k d, b i -> b i d").shape() == Shape{2, 3, 6});
  CHECK(scatter_add(ids, param("y", "f32[2,3,6]"), "b i, b i d -> b k d", 9).shape() == Shape{2, 9, 6});
  CHECK(one_hot(ids, 7).type() == Type::parse("f32[2,3,7]"));
  CHECK(slice(x, 1, 1, 5, 2).shape() == Shape{2, 2, 6});
  CHECK(pad(x, 2, 1, 3).shape() == Shape{2, 5, 10});
  CHECK(roll(x, 1, 2).shape() == Shape{2, 5, 6});
  CHECK(reverse(x, 0).shape() == Shape{2, 5, 6});
  CHECK(concat({x, slice(x, 1, 0, 2), x}, 1).shape() == Shape{2, 12, 6});
  CHECK(concat({x}, 1).id() == x.id());
  const std::vector<int64_t> sizes = {2, 0, 3};
  const std::vector<Value> parts = split(x, 1, sizes);
  REQUIRE(parts.size() == 3);
  CHECK(parts[2].shape() == Shape{2, 3, 6});
  CHECK(dynamic_slice(x, at, 1, 2).shape() == Shape{2, 2, 6});
  CHECK(dynamic_update(x, param("u", "f32[2,1,6]"), at, 1).shape() == Shape{2, 5, 6});
  CHECK(cumsum(x, 1).shape() == Shape{2, 5, 6});
  CHECK(scan(x, x, 2, true).shape() == Shape{2, 5, 6});
  CHECK(sort(x)[1].type() == Type::parse("i32[2,5,6]"));
  CHECK(top_k(x, 4)[0].shape() == Shape{2, 5, 4});
  CHECK(argmax(x).type() == Type::parse("i32[2,5]"));
  CHECK(logsumexp(x).shape() == Shape{2, 5});
  CHECK(select(less(x, x), x, x).shape() == Shape{2, 5, 6});
  CHECK(bit_and(less(x, x), greater_equal(x, x)).type() == Type::parse("i32[2,5,6]"));
  CHECK(dropout(x, at, 0.1, 3, "h").type() == Type::parse("f32[2,5,6]"));
}

TEST_CASE_METHOD(Fixture, "convolutions and pools have the sizes that their windows leave") {
  Value line = param("line", "f32[2,9,4]"), picture = param("picture", "f32[2,9,10,4]");
  CHECK(conv(line, param("a", "f32[3,4,5]")).shape() == Shape{2, 7, 5});
  CHECK(conv(line, param("b", "f32[3,2,6]"), {.before = {1, 0}, .behind = {1, 0}, .groups = 2}).shape() == Shape{2, 9, 6});
  CHECK(conv(picture, param("c", "f32[3,2,4,5]"), {.stride = {2, 1}, .dilation = {2, 3}}).shape() == Shape{2, 3, 7, 5});
  CHECK(max_pool(line, {.window = {2, 1}, .stride = {2, 1}}).shape() == Shape{2, 4, 4});
  CHECK(mean_pool(picture, {.window = {3, 2}, .stride = {3, 2}}).shape() == Shape{2, 3, 5, 4});
  CHECK(batch_norm(picture, param("w", "f32[4]"), param("v", "f32[4]")).shape() == Shape{2, 9, 10, 4});
}

TEST_CASE_METHOD(Fixture, "wrong calls are told what is wrong") {
  Value x = param("x", "f32[4,6]"), ids = param("ids", "i32[3]");
  CHECK(message([&] { gather(x, ids, "k d, i -> d"); }) == "gather \"k d, i -> d\": i of the ids is not in what they pick");
  CHECK(message([&] { gather(x, ids, "a d, i -> i d"); }) ==
        "gather \"a d, i -> i d\": the dimension that the ids count is called k");
  CHECK(message([&] { slice(x, 0, 2, 9); }) == "slice: 2 to 9 by 1 of dimension 0 of f32[4,6], which has 4");
  CHECK(message([&] { roll(x, 2, 1); }) == "window: operand f32[4,6] has no dimension 2");
  CHECK(message([&] { concat({x, ids}, 0); }) ==
        "concat \"t~ b1, t~ b1 -> t b1 | size(t=7)\": operand 1 i32[3] has 1 dimension, the rule expects 2: \"t~ b1\"");
  CHECK(message([&] { top_k(x, 7); }) == "top_k: k is 7, but a row of f32[4,6] has 6");
  CHECK(message([&] { conv(x, x); }) == "conv: operand 0 has 2 dimensions; b w c has 3, b h w c 4");
  CHECK(message([&] { dropout(x, ids, 1.5, 3, "h"); }) == "dropout: rate is 1.5; it is at least 0 and below 1");
  CHECK(message([&] { split(x, 0, std::vector<int64_t>{1, 2}); }) ==
        "split: the sizes are 3 together, dimension 0 of f32[4,6] is 4");
}

}  // namespace
}  // namespace meshard
