// The cost model: which link a group talks by, and the time of each kind of step by hand.
#include "meshard/layout/cost.h"

#include <catch2/catch.hpp>

namespace meshard {
namespace {

struct Row {
  const char *from, *to;
  int64_t messages, nanoseconds;  // of all steps
};

}  // namespace

TEST_CASE("messages and time of steps", "[cost]") {
  const Mesh mesh = Mesh::parse("x=4, y=2");
  const Shape shape{16, 16};
  const CostModel model{.host = {.message_ns = 1000, .bytes_per_us = 2}, .network = {}};  // an element takes 500 ns
  const std::vector<Row> rows = {
      {"[-, -]", "[x, y]", 0, 0},
      {"[x, -]", "[-, -]", 3, 3000 + 500 * 192},
      {"[-, y] + sum(x)", "[x, y]", 3, 3000 + 500 * 96},
      {"[-, y] + sum(x)", "[-, y]", 6, 6000 + 500 * 192},
      {"[x, -]", "[-, x]", 3, 3000 + 500 * 48},
      {"[(x,y), -]", "[(y,x), -]", 1, 1000 + 500 * 32},
      // Rows 0-7 of 16 from four ranks that have four each, of a rank's own y: two pieces; rank x=2, y=0 has none.
      {"[x, -]", "[y, -]", 2, 2000 + 500 * 128},
  };
  for (const Row& row : rows) {
    INFO(row.from << " -> " << row.to);
    const Layout from = Layout::parse(row.from, mesh), to = Layout::parse(row.to, mesh);
    const auto steps = plan_reshard(mesh, shape, from, to);
    int64_t messages = 0;
    for (const ReshardStep& step : steps) messages += step_messages(mesh, shape, step);
    CHECK(messages == row.messages);
    CHECK(steps_nanoseconds(model, mesh, shape, steps, 1) == row.nanoseconds);
  }
}

TEST_CASE("the link between ranks that differ along given axes", "[cost]") {
  const Mesh mesh = Mesh::parse("x=4, y=6");
  const auto over = [&](const char* text) { return Layout::parse(text, mesh).split(); };
  CostModel model;
  const auto network = [&](const char* text) { return &model.link(mesh, over(text)) == &model.network; };
  CHECK_FALSE(network("[x, y]"));
  model.ranks_per_host = 24;
  CHECK_FALSE(network("[x, y]"));
  model.ranks_per_host = 12;
  CHECK_FALSE(network("[y]"));
  CHECK_FALSE(network("[x:(2)2]"));
  CHECK(network("[x:2]"));
  CHECK(network("[x, y]"));
  model.ranks_per_host = 3;  // the ranks of a y are on two hosts: y=0..2 and y=3..5
  CHECK_FALSE(network("[y:(2)3]"));
  CHECK(network("[y:2]"));
  model.ranks_per_host = 4;  // 0-3, 4-7: a host's edge cuts y=3..5 of x=0
  CHECK(network("[y:(2)3]"));
}

TEST_CASE("time saturates and rounds up", "[cost]") {
  CHECK(CostModel::nanoseconds({.message_ns = 5, .bytes_per_us = 3000}, 2, 1) == 11);
  CHECK(CostModel::nanoseconds({.message_ns = 5, .bytes_per_us = 1}, 1, int64_t{1} << 62) == int64_t{1} << 62);
}

}  // namespace meshard
