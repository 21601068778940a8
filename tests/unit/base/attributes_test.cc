#include "meshard/base/attributes.h"

#include <catch2/catch.hpp>

#include "meshard/base/error.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

Attributes parsed(std::string_view text) {
  Scanner in(text, "x");
  Attributes attributes = Attributes::parse(in);
  CHECK(in.at_end());
  return attributes;
}

std::string error_of(std::string_view text) {
  try {
    parsed(text);
  } catch (const UserError& error) {
    return error.diagnostic().place.str() + ": " + error.diagnostic().text;
  }
  return "no error";
}

}  // namespace

TEST_CASE("attributes are sorted and read back the same") {
  const Attributes a = {
      {"rule", std::string("b t, v d -> b t d")}, {"eps", 1e-05}, {"causal", true}, {"n", int64_t{-3}}, {"scale", 2.0}};
  const std::string text = R"({causal = true, eps = 1e-05, n = -3, rule = "b t, v d -> b t d", scale = 2.0})";
  CHECK(a.str() == text);
  CHECK(parsed(text) == a);
  CHECK(parsed("{ }") == Attributes());
  CHECK(Attributes().str().empty());
  CHECK(parsed("{a = -inf, b = 1e+300, c = -4.0}").str() == "{a = -inf, b = 1e+300, c = -4.0}");
}

TEST_CASE("attributes by name and type") {
  Attributes a = {{"eps", 1e-05}, {"n", int64_t{4}}, {"causal", true}, {"rule", std::string("i -> i")}};
  CHECK(a.flag("causal"));
  CHECK(a.flag("missing", true));
  CHECK(a.integer("n") == 4);
  CHECK(a.number("n") == 4.0);
  CHECK(a.number("eps") == 1e-05);
  CHECK(a.text("rule") == "i -> i");
  CHECK(a.text("missing", "x") == "x");
  CHECK_THROWS_AS(a.integer("eps"), InternalError);
  CHECK_THROWS_AS(a.number("rule"), InternalError);
  a.set("n", int64_t{5});
  CHECK(a.integer("n") == 5);
  a.erase("n");
  a.erase("n");
  CHECK(a.find("n") == nullptr);
  CHECK(a.integer("n", 9) == 9);
}

TEST_CASE("wrong attributes") {
  CHECK(error_of("{a = 1, a = 2}") == "x:1:9: attribute a is given twice");
  CHECK(error_of("{a 1}") == "x:1:4: expected \"=\" but found \"1\"");
  CHECK(error_of("{a = yes}") ==
        "x:1:6: expected a value (true, false, a number or a text in quotes) but found \"yes\"");
  CHECK(error_of("{a = 1") == "x:1:7: expected \",\" but found the end of the text");
}

}  // namespace meshard
