// Windows: blocks of parameters that are read, updated and gathered where they lie, and when they are not.
#include "meshard/runtime/windows.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <functional>

#include "lockstep.h"

namespace meshard {
namespace {

using Doubles = std::vector<double>;

// A parameter of n elements, half of which each rank updates; `body` makes %w.new of %w@1 and %g.
std::string program(int n, std::string_view body, std::string_view after = "", std::string_view result = "") {
  return fmt::format(R"(mesh data=2
func main(%g: f32[{0}] [data], %w: f32[{0}] [-] param init=ones) {{
  %w@1 = slice %w {{over = data}} : f32[{0}] [data]
{1}  %w.new@1 = all_gather %w.new {{over = data}} : f32[{0}] [-]
{2}  return {3}%w.new@1 -> %w
}}
)",
                     n, body, after, result);
}

// How many values of rank 1 begin within a parameter.
int windows(const std::string& text) {
  const Program local = parse_program(text, "test", op_table());
  Flat flat = flatten(local, Rank{1});
  find_windows(*local.mesh, Rank{1}, flat);
  int count = 0;
  for (const FlatValue& v : flat.values) count += v.within > 0;
  for (const FlatValue& v : flat.values) CHECK((v.within == 0 || v.within == v.local.elements() * 4));
  return count;
}

const std::string kAdd = "  %w.new = add %w@1, %g : f32[32] [data]\n";

// Two runs on g = 0, 1, 2 ...: %w as every rank holds it, and what is returned.
void check(const std::string& text, const std::function<double(double)>& expected, std::string_view result = "") {
  Lockstep w(text);
  std::vector<float> g;
  for (int i = 0; i < 32; ++i) g.push_back(static_cast<float>(i));
  w.set("g", g, {32});
  w.executor->run();
  Doubles returned;
  if (!result.empty()) returned = w.executor->whole(result);
  for (int device = 0; device < 2; ++device) {
    for (int i = 0; i < 32; ++i) CHECK(w.state->view("w", device).as<float>()[i] == expected(i));
  }
  for (size_t i = 0; i < returned.size(); ++i) CHECK(returned[i] == static_cast<double>(i) + 2);
}

}  // namespace

TEST_CASE("a parameter's block is updated where it lies") {
  const std::string text = program(32, kAdd);
  CHECK(windows(text) == 2);
  Lockstep w(text);
  CHECK(w.executor->memory(0).arena_bytes == 0);
  w.set("g", std::vector<float>(32, 0.5f), {32});
  for (int again = 1; again <= 2; ++again) {
    w.executor->run();
    for (int device = 0; device < 2; ++device) {
      for (int i = 0; i < 32; ++i) CHECK(w.state->view("w", device).as<float>()[i] == 1 + 0.5f * again);
    }
  }
  CHECK(w.devices[0]->received_bytes() == 2 * 16 * 4);
}

TEST_CASE("a block that begins between two lines of the cache has memory of its own") {
  CHECK(windows(program(6, "  %w.new = add %w@1, %g : f32[6] [data]\n")) == 0);
}

TEST_CASE("what is read after it was overwritten has memory of its own") {
  // The block as it was, after the gather.
  const std::string old_block = program(32, kAdd, "  %z = add %w.new, %w@1 : f32[32] [data]\n", "%z, ");
  CHECK(windows(old_block) == 1);  // the new block alone
  check(
      old_block, [](double g) { return 1 + g; }, "z");
  // The whole parameter as it was, after its block was updated: read from the block that was not touched yet.
  const std::string old_whole = program(32,
                                        kAdd +
                                            "  %o = square %w : f32[32] [-]\n  %o@1 = slice %o {over = data} : f32[32] "
                                            "[data]\n  %z = add %w.new, %o@1 : f32[32] [data]\n",
                                        "", "%z, ");
  CHECK(windows(old_whole) == 1);
  check(
      old_whole, [](double g) { return 1 + g; }, "z");
}

TEST_CASE("an op that may not work in place writes elsewhere") {
  const std::string twice =
      program(32, "  %s = mul %w@1, %w@1 : f32[32] [data]\n  %w.new = add %s, %g : f32[32] [data]\n");
  CHECK(windows(twice) == 2);  // the product has memory of its own; nobody reads the block any more when %w.new is made
  check(twice, [](double g) { return 1 + g; });
  CHECK(windows(program(32, "  %w.new = mul %w@1, %w@1 : f32[32] [data]\n")) == 1);
}

TEST_CASE("no window is open while a loop turns") {
  const std::string text = R"(mesh data=2
func round(%sum: f32[32] [data], %w: f32[32] [data]) {
  %sum.new = add %sum, %w : f32[32] [data]
  return %sum.new -> %sum
}
func main(%g: f32[32] [data], %w: f32[32] [-] param init=ones) {
  %w@1 = slice %w {over = data} : f32[32] [data]
  %start = add %g, %g : f32[32] [data]
  repeat 3 call round as r (sum = %start, w = %w@1)
  %w.new@1 = all_gather %r.sum.new {over = data} : f32[32] [-]
  return %w.new@1 -> %w
}
)";
  CHECK(windows(text) == 0);
  check(text, [](double g) { return 2 * g + 3; });
}

}  // namespace meshard
