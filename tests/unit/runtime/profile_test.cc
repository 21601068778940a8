// Times of steps, and where numbers stop being finite.
#include "meshard/runtime/profile.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "lockstep.h"
#include "meshard/runtime/finite.h"

namespace meshard {
namespace {

const Profile::Line& line(const std::vector<Profile::Line>& lines, std::string_view name) {
  for (const Profile::Line& l : lines) {
    if (l.name == name) return l;
  }
  FAIL("no line " << name);
  return lines.front();
}

constexpr const char* kProgram = R"(mesh data=2
func main(%x: f32[6,4] [data, -], %w: f32[4,3] [-, -]) {
  %y = einsum %x, %w {rule = "i k, k j -> i j"} : f32[6,3] [data, -]
  %r = sqrt %y : f32[6,3] [data, -]
  %all = start all_gather %r {over = data} : f32[6,3] [-, -]
  %s = square %r : f32[6,3] [data, -]
  wait %all
  return %all, %s
}
)";

TEST_CASE("a profile counts calls, flops, bytes and spans of the runs it was asked for") {
  Lockstep w(kProgram);
  w.set("x", std::vector<float>(24, 1), {6, 4});
  w.set("w", std::vector<float>(12, 1), {4, 3});
  Profile profile(*w.executor, {.events_from = 1, .events_until = 2, .sums_from = 1});
  w.executor->set_profile(&profile);
  for (int i = 0; i < 4; ++i) w.executor->run();
  CHECK(profile.runs() == 3);
  const auto lines = profile.lines();
  CHECK(line(lines, "einsum").calls == 3 * 2);
  CHECK(line(lines, "einsum").flops == 3 * 2 * (2 * 3 * 4 * 3));
  CHECK(line(lines, "all_gather").collective);
  CHECK(line(lines, "all_gather").calls == 3 * 2);
  CHECK(line(lines, "all_gather").bytes == 3 * 2 * (3 * 3 * 4));
  CHECK(line(lines, "all_gather").hidden > 0);
  double sum = 0;
  for (const Profile::Line& l : lines) sum += l.seconds;
  CHECK(sum <= profile.seconds());
  // On each of two devices: einsum, sqrt, start, square, wait; one run.
  REQUIRE(profile.events().size() == 2 * 5);
  for (const Profile::Event& e : profile.events()) {
    CHECK(e.run == 1);
    CHECK(e.begin <= e.end);
  }
  const std::string table = profile.table();
  for (const char* name : {"einsum", "all_gather", "GFLOP/s", "between start and wait", "between the ops"}) CHECK(table.find(name) != std::string::npos);
  CHECK(Profile(*w.executor).table() == "no run was timed\n");
}

TEST_CASE("the first step that gives no finite number is found on the device where it is") {
  Lockstep w(kProgram);
  std::vector<float> x(24, 1);
  w.set("w", std::vector<float>(12, 2), {4, 3});
  w.set("x", x, {6, 4});
  CHECK(!first_not_finite(*w.executor));
  for (int k = 0; k < 4; ++k) x[4 * 4 + k] = -1;  // row 4: the second of device 1
  w.set("x", x, {6, 4});
  const auto found = first_not_finite(*w.executor);
  REQUIRE(found);
  CHECK(found->step == 1);
  CHECK(found->text.find("sqrt %r gives ") == 0);
  INFO(found->text);
  CHECK(found->text.find("nan in %r[1,0] on rank 1") != std::string::npos);
  x[0] = INFINITY;
  w.set("x", x, {6, 4});
  const auto input = first_not_finite(*w.executor);
  REQUIRE(input);
  CHECK(input->step == -1);
  CHECK(input->text == "x holds inf at [0,0] on rank 0 before the step");
}

TEST_CASE("adamw leaves everything as it is where the scale is no finite number") {
  Lockstep w(R"(mesh data=1
func main(%w: f32[5] [-], %m: f32[5] [-], %v: f32[5] [-], %g: f32[5] [-], %rate: f32[] [], %clip: f32[] [], %step: f32[] []) {
  %w2, %m2, %v2 = adamw %w, %m, %v, %g, %rate, %clip, %step : f32[5] [-], f32[5] [-], f32[5] [-]
  return %w2, %m2, %v2
}
)");
  for (const char* name : {"w", "m", "v"}) w.set(name, {1, 2, 3, 4, 5}, {5});
  w.set("g", {7, 8, 9, 10, 11}, {5});
  w.executor->set_scalar("rate", 1);
  w.executor->set_scalar("step", 1);
  for (double clip : {1.0, HUGE_VAL, std::nan("")}) {
    w.executor->set_scalar("clip", clip);
    w.executor->run();
    for (const char* name : {"w2", "m2", "v2"}) CHECK((w.executor->whole(name) == std::vector<double>{1, 2, 3, 4, 5}) == !std::isfinite(clip));
  }
}

}  // namespace
}  // namespace meshard
