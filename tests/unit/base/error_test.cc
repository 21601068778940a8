#include "meshard/base/error.h"

#include <catch2/catch.hpp>

namespace meshard {

TEST_CASE("a place is written as far as it is known") {
  CHECK(Place{"gpt.plan", 4, 23}.str() == "gpt.plan:4:23");
  CHECK(Place{"gpt.plan", 4, 0}.str() == "gpt.plan:4");
  CHECK(Place{"gpt.plan", 0, 0}.str() == "gpt.plan");
  CHECK(Place{}.str().empty());
}

TEST_CASE("a user error shows place, text and notes") {
  const UserError error({"a.plan", 2, 5}, "no such thing", {"[x, y]", "    ^"});
  CHECK(std::string(error.what()) == "a.plan:2:5: no such thing\n  [x, y]\n      ^");
  CHECK(std::string(UserError("no mesh").what()) == "no mesh");
}

TEST_CASE("a check that fails says what was wrong and where") {
  const int begin = 3;
  try {
    MESHARD_CHECK(begin < 2, "block ends before it begins");
    FAIL("nothing was thrown");
  } catch (const InternalError& error) {
    const std::string what = error.what();
    CHECK(what.find("error_test.cc:") != std::string::npos);
    CHECK(what.find("internal error: block ends before it begins (begin < 2 does not hold)") != std::string::npos);
  }
}

TEST_CASE("the nearest word is within a third of the length") {
  const std::vector<std::string> axes = {"data", "model"};
  CHECK(nearest("modle", axes) == "model");  // two letters swapped count one
  CHECK(nearest("dat", axes) == "data");
  CHECK(nearest("xyz", axes).empty());
  CHECK(nearest("moda", axes).empty());  // two away, one allowed
  CHECK(nearest("", axes).empty());
  CHECK(nearest("model", {}).empty());
  const std::vector<std::string> alike = {"dada", "data"};
  CHECK(nearest("daxa", alike) == "dada");  // the first of equals
  CHECK(did_you_mean("modle", axes) == "; did you mean \"model\"?");
  CHECK(did_you_mean("zzz", axes).empty());
}

}  // namespace meshard
