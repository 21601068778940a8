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

// Two hosts of four ranks: with blocks of 32 bytes, of seven that a rank receives one crosses, and it is passed on.
TEST_CASE("calls that span hosts cross once for all ranks of a host", "[cost]") {
  const Mesh mesh = Mesh::parse("x=2, y=4");
  const Shape shape{16, 16};
  CostModel model{.host = {.message_ns = 1000, .bytes_per_us = 2}, .network = {.message_ns = 10'000, .bytes_per_us = 1}};
  const auto time = [&](Collective kind, const char* from, const char* to, const char* over = "[(x,y)]") {
    const ReshardStep step = step_of(kind, Layout::parse(over, mesh).split(), Layout::parse(from, mesh), Layout::parse(to, mesh));
    return step_nanoseconds(model, mesh, shape, step, 1);
  };
  CHECK(time(Collective::all_gather, "[(x,y), -]", "[-, -]") == 7 * 1000 + 500 * 224);  // one host
  model.ranks_per_host = 4;
  CHECK(time(Collective::all_gather, "[(x,y), -]", "[-, -]") == 10'000 + 1000 * 32 + 6 * 1000 + 500 * 192);
  CHECK(time(Collective::reduce_scatter, "[-, -] + sum(x,y)", "[(x,y), -]") == 10'000 + 1000 * 32 + 6 * 1000 + 500 * 192);
  CHECK(time(Collective::all_reduce, "[-, -] + sum(x,y)", "[-, -]") == 2 * (10'000 + 1000 * 32) + 6 * 1000 + 500 * 384);
  // Blocks of 4 bytes, four of which come from the other host while three come from this one.
  CHECK(time(Collective::all_to_all, "[(x,y), -]", "[-, (x,y)]") == 4 * 10'000 + 1000 * 16);
  // One rank of a host, and a group within one.
  CHECK(time(Collective::all_gather, "[x, -]", "[-, -]", "[x]") == 10'000 + 1000 * 128);
  CHECK(time(Collective::all_gather, "[y, -]", "[-, -]", "[y]") == 3 * 1000 + 500 * 192);
  // The edge of a host cuts a y in two: no phases.
  model.ranks_per_host = 3;
  CHECK(time(Collective::all_gather, "[(x,y), -]", "[-, -]") == 7 * 10'000 + 1000 * 224);
}

TEST_CASE("the plan for two hosts is chosen by what crosses", "[cost]") {
  const Mesh mesh = Mesh::parse("x=2, y=4");
  const Layout from = Layout::parse("[-] + sum(x,y)", mesh), to = Layout::parse("[-]", mesh);
  // Messages are dear: one call in phases, of which 2 messages cross, is as good as any row of calls, and never dearer than flat.
  const CostModel model{.host = {.message_ns = 1000, .bytes_per_us = 1000}, .network = {.message_ns = 100'000, .bytes_per_us = 100}, .ranks_per_host = 4};
  for (const int64_t n : {8, 4096, 1 << 20}) {
    const Shape shape{n};
    const auto steps = plan_reshard(mesh, shape, from, to, {.model = &model, .element_bytes = 4});
    const int64_t flat = CostModel::nanoseconds(model.network, 14, 2 * 7 * n / 8 * 4);
    CHECK(steps_nanoseconds(model, mesh, shape, steps, 4) < flat / 3);
  }
}

TEST_CASE("time saturates and rounds up", "[cost]") {
  CHECK(CostModel::nanoseconds({.message_ns = 5, .bytes_per_us = 3000}, 2, 1) == 11);
  CHECK(CostModel::nanoseconds({.message_ns = 5, .bytes_per_us = 1}, 1, int64_t{1} << 62) == int64_t{1} << 62);
}

}  // namespace meshard
