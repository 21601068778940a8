#include "meshard/ir/pass.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "meshard/ir/parse.h"
#include "op_table.h"

namespace meshard {
namespace {

constexpr std::string_view kText = "mesh data=2\nfunc main(%x: f32[5]) {\n  %y = gelu %x : f32[5]\n  return %y\n}\n";

Program start() { return parse_program(kText, "p.mesh", test::op_table()); }

Program lay_out(const Program& program) {
  Program out = program;
  for (ValueInfo& v : out.main().values) v.layout = Layout::parse("[data]", *out.mesh, 1);
  return out;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST_CASE("passes run in order, timed, written and read again") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "meshard_pass_test";
  std::filesystem::remove_all(folder);
  std::vector<PassTime> times;
  const std::vector<Pass> passes = {{"lay_out", Level::closed, lay_out},
                                    {"check", Level::local, [](const Program& p) { return p; }}};
  const Program out = run_passes(start(), passes, {.reparse = true, .dump = folder.string()}, &times);
  CHECK(out.main().values[1].layout);
  REQUIRE(times.size() == 3);  // and verify
  CHECK(times[0].name == "lay_out");
  CHECK(times[0].seconds >= 0);
  CHECK(read(folder / "00-trace.mesh") == print(start()));
  CHECK(read(folder / "01-lay_out.mesh") == print(out));
  CHECK(read(folder / "02-check.mesh") == print(out));
  std::filesystem::remove_all(folder);
}

TEST_CASE("a pass can be skipped by name") {
  const std::vector<Pass> passes = {{"lay_out", Level::closed, lay_out}};
  CHECK(!run_passes(start(), passes, {.skip = {"lay_out"}}).main().values[1].layout);
  CHECK_THROWS_WITH(run_passes(start(), passes, {.skip = {"layout"}}),
                    "no pass \"layout\" to skip; there are lay_out; did you mean \"lay_out\"?");
}

TEST_CASE("a pass that leaves a wrong program is our mistake, a wrong input the caller's") {
  const std::vector<Pass> lazy = {{"lay_out", Level::closed, [](const Program& p) { return p; }}};
  CHECK_THROWS_WITH(run_passes(start(), lazy, {}),
                    "pass lay_out leaves a wrong program: p.mesh:2:11: %x f32[5] has no layout");
  CHECK_THROWS_AS(run_passes(start(), lazy, {}), InternalError);
  Program input =
      parse_program("func main(%x: f32[5], %m: f32[5] state of %x) { return %x }", "p.mesh", test::op_table());
  CHECK_THROWS_AS(run_passes(input, {}, {}), UserError);
}

TEST_CASE("what prints but does not parse is found") {
  const std::vector<Pass> hide = {
      {"hide", Level::traced, [](const Program& program) {
         Program out = program;
         out.main().param_info[0].init = {Init::normal, 0.5};  // of an input: not printed as such
         return out;
       }}};
  CHECK_THROWS_AS(run_passes(start(), hide, {.reparse = true}), InternalError);
}

TEST_CASE("a folder that can't be written is the caller's mistake") {
  CHECK_THROWS_WITH(run_passes(start(), {}, {.dump = "/dev/null/x"}), "can't write /dev/null/x/00-trace.mesh");
}

}  // namespace
}  // namespace meshard
