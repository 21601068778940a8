#include "meshard/base/text.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace meshard {
namespace {

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("words, numbers and marks with their places") {
  Scanner in("# a plan\n  data=2, // two\n\tmodel : (-4) 1e-05", "x.plan", 7);
  CHECK(in.place() == Place{"x.plan", 8, 3});
  CHECK(in.word("an axis") == "data");
  in.expect("=");
  CHECK(in.integer("a size") == 2);
  CHECK(in.accept(","));
  CHECK(!in.accept(","));
  CHECK(in.place() == Place{"x.plan", 9, 2});
  CHECK(!in.accept_word("mod"));
  CHECK(in.accept_word("model"));
  in.expect(":");
  in.expect("(");
  CHECK(in.integer("a size") == -4);
  in.expect(")");
  CHECK(!in.at_integer());
  CHECK(in.number("a number") == 1e-05);
  CHECK(in.at_end());
  CHECK(in.peek() == '\0');
}

TEST_CASE("newlines count where they are asked for") {
  Scanner in("a # one\n\nb", "x");
  in.stop_at_newline(true);
  CHECK(in.word("a word") == "a");
  CHECK(in.at_newline());
  CHECK(!in.at_end());
  CHECK(error_of([&] { in.expect("]"); }) ==
        "x:1:8: expected \"]\" but found the end of the line\n  a # one\n         ^");
  in.stop_at_newline(false);
  CHECK(!in.at_newline());
  CHECK(in.word("a word") == "b");
  CHECK(in.at_end());
}

TEST_CASE("names may hold more characters") {
  Scanner in("block.0.wq@1 -> 3x", "x");
  CHECK(in.word_of(".@", "a name") == "block.0.wq@1");
  in.expect("->");
  CHECK(in.word_of("", "a name") == "3x");
}

TEST_CASE("an integer is not the beginning of something else") {
  CHECK(Scanner("0..11", "x").integer("n") == 0);
  CHECK(Scanner("+7", "x").integer("n") == 7);
  CHECK(Scanner("-9223372036854775808", "x").integer("n") == std::numeric_limits<int64_t>::min());
  const auto error = [](const char* text) { return error_of([&] { Scanner(text, "x").integer("a size"); }); };
  CHECK(error("4abc") == "x:1:1: expected a size but found \"4abc\"\n  4abc\n  ^");
  CHECK(error("1.5") == "x:1:1: expected a size but found \"1.5\"\n  1.5\n  ^");
  CHECK(error("1e3") == "x:1:1: expected a size but found \"1e3\"\n  1e3\n  ^");
  CHECK(error("-") == "x:1:1: expected a size but found \"-\"\n  -\n  ^");
  CHECK(error("") == "x:1:1: expected a size but found the end of the text");
  CHECK(error("9223372036854775808") ==
        "x:1:1: expected a size but 9223372036854775808 does not fit in 63 bits\n  9223372036854775808\n  ^");
}

TEST_CASE("numbers read back as they are written") {
  for (double value : {0.1, 1e-05, 1.0 / 15, -0.0, 1e300, 5e-324, std::numeric_limits<double>::infinity()}) {
    CHECK(Scanner(number_text(value), "x").number("n") == value);
    CHECK(Scanner(number_text(-value), "x").number("n") == -value);
  }
  CHECK(number_text(0.1) == "0.1");
  CHECK(number_text(1e-05) == "1e-05");
  CHECK(number_text(1.0 / 15) == "0.06666666666666667");
  CHECK(std::isnan(Scanner(number_text(-std::nan("")), "x").number("n")));
  CHECK(Scanner(".5", "x").number("n") == 0.5);
  CHECK(Scanner("-.5e1", "x").number("n") == -5);
  CHECK(error_of([] { Scanner("1e", "x").number("a scale"); }) ==
        "x:1:1: expected a scale but 1e is no number that a double can hold\n  1e\n  ^");
  CHECK(error_of([] { Scanner("1e999", "x").number("a scale"); }) ==
        "x:1:1: expected a scale but 1e999 is no number that a double can hold\n  1e999\n  ^");
  CHECK(error_of([] { Scanner("high", "x").number("a scale"); }) ==
        "x:1:1: expected a scale but found \"high\"\n  high\n  ^");
}

TEST_CASE("quotes hold any text") {
  const std::string text = "b t, \"v\" \\ d\n# no comment";
  Scanner in(quote(text), "x");
  CHECK(in.quoted("a rule") == text);
  CHECK(in.at_end());
  CHECK(error_of([] { Scanner("\"ab", "x").quoted("a rule"); }) ==
        "x:1:1: a rule: the quote is not closed on its line\n  \"ab\n  ^");
  CHECK(error_of([] { Scanner("\"a\\t\"", "x").quoted("a rule"); }) ==
        "x:1:4: unknown escape; there are \\\", \\\\ and \\n\n  \"a\\t\"\n     ^");
  CHECK(error_of([] { Scanner("ab", "x").quoted("a rule"); }) ==
        "x:1:1: expected a rule in quotes but found \"ab\"\n  ab\n  ^");
}

TEST_CASE("a caret stands below its column, tabs and wide characters before it") {
  CHECK(error_of([] {
          Scanner in("\"\xC3\xA4\"\t]", "x");
          in.quoted("a text");
          in.expect("[");
        }) == "x:1:6: expected \"[\" but found \"]\"\n  \"\xC3\xA4\"\t]\n     \t^");
  Scanner in("one\ntwo\r\n", "x", 5);
  CHECK(in.line_text(5) == "one");
  CHECK(in.line_text(6) == "two");
  CHECK(in.line_text(4).empty());
  CHECK(in.line_text(9).empty());
}

}  // namespace meshard
