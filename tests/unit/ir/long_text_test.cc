// Texts of 10^6 characters that are wrong are refused in time linear in their length: what is quadratic takes minutes, and
// the test's time runs out.
#include <catch2/catch.hpp>

#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/verify.h"
#include "op_table.h"

namespace meshard {
namespace {

constexpr size_t kLength = 1000000;

// `piece` again and again, "#" in it replaced by a number that counts up.
std::string repeated(std::string_view piece, std::string_view between = "") {
  std::string out;
  for (int i = 0; out.size() < kLength; ++i) {
    if (i > 0) out += between;
    for (char c : piece) c == '#' ? out.append(std::to_string(i)) : out.append(1, c);
  }
  return out;
}

// The first line of the error, "" if the program is right.
std::string refused(const std::string& text) {
  try {
    verify(parse_program(text, "p.mesh", test::op_table()), Level::traced);
  } catch (const UserError& error) {
    return error.diagnostic().text;
  }
  return "";
}

TEST_CASE("long wrong texts are refused in linear time") {
  const std::string x = "%x: f32[2]", word(kLength, 'w'), other(kLength, 'v');
  const std::string ops = repeated("  %y# = gelu %x : f32[2]\n");
  const std::string arguments = repeated("p# = %x", ", ");
  struct Bad {
    std::string text, error;
  };
  const Bad bad[] = {
      {repeated("("), "expected \"func\""},
      {"mesh " + repeated("a#=1", ", "), "a mesh has at most 64 axes"},
      {"mesh a=2\nfunc main(%x: f32[4] [" + repeated("a") + "]) {}\n", "no axis"},
      {"mesh a=4\nfunc main(%x: f32[4] [(" + repeated("a:2", ",") + ")]) {}\n", "axis a:2 is used twice"},
      {"func main(%x: f32[" + repeated("1", ",") + "]) {}\n", "a tensor has at most 64 dimensions"},
      {"func main(" + x + ") {\n  %y = scale %x {" + repeated("a# = 1", ", ") + "} : f32[2]\n}\n",
       "an op has at most 256 attributes"},
      {"func main(" + x + ") {\n  %y = einsum %x {rule = \"" + repeated("i#", " ") + " -> i\"} : f32[2]\n}\n",
       "a tensor has at most 128 factors"},
      {"func main(" + x + ") {\n  %y = einsum %x {rule = \"" + repeated("i#", ", ") + " -> i\"} : f32[2]\n}\n",
       "takes"},
      {"func main(" + x + ") {\n" + ops + "  %z = gelu %y : f32[2]\n}\n", "no value %y in func main"},
      {"func main(" + x + ") {\n" + ops + "  return %" + word + "\n}\n", "no value %ww"},
      {"func main(%" + word + ": f32[2]) {\n  return %" + other + "\n}\n", "no value %vv"},
      {"func main(" + x + ") {\n" + ops, "the text ends inside func main"},
      {"func main(" + x + ") {\n" + ops + "  %y7 = gelu %x : f32[2]\n}\n", "%y7 is made twice"},
      {repeated("func f#() {}\n") + "func g() { call h as h }\n", "no function \"h\" above func g"},
      {repeated("func f#() {}\n") + "func f7() {}\n", "there are two functions f7"},
      {"func f(" + repeated("%p#: f32[2]", ", ") + ") {}\nfunc main(" + x + ") {\n  call f (" + arguments +
           ", q = %x)\n}\n",
       "func f has no parameter"},
      {"func main(%x.0..999999999: f32[2]) {}\n", "the runs expand to more than"},
      {"func f(" + x + ") {}\nfunc main(" + x + ") {\n  call f as f.0..999999999 (x = %x)\n}\n",
       "the text makes more than"},
  };
  for (const Bad& b : bad) {
    const std::string error = refused(b.text);
    if (error.find(b.error) == std::string::npos) FAIL("expected " << b.error << " but got " << error.substr(0, 200));
  }
}

TEST_CASE("calls in calls that write out to too much are refused") {
  std::string text = "func f0(%x: f32[2]) { %y = gelu %x : f32[2] }\n", loops = text;
  for (int i = 1; i <= 40; ++i) {
    text += fmt::format("func f{0}(%x: f32[2]) {{ call f{1} as a (x = %x) call f{1} as b (x = %x) }}\n", i, i - 1);
    loops += fmt::format("func f{0}(%x: f32[2]) {{ repeat 100 call f{1} as a (x = %x) }}\n", i, i - 1);
  }
  CHECK(refused(text) == "with its calls written out func f23 has more than 2^24 ops");
  CHECK(refused(loops) == "func f10 runs more than 2^62 ops");
}

}  // namespace
}  // namespace meshard
