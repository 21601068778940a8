// Signatures: one for all ops that are alike, another wherever something differs, errors each time they are asked.
#include "meshard/ir/signature.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "meshard/ir/parse.h"
#include "op_table.h"

namespace meshard {
namespace {

TEST_CASE("ops that are alike have one signature") {
  const Program p = parse_program(
      "func main(%x: f32[3,5], %y: f32[3,5], %z: f32[5]) {\n"
      "  %a = add %x, %y : f32[3,5]\n"
      "  %b = add %y, %a : f32[3,5]\n"
      "  %c = add %x, %z : f32[3,5]\n"
      "  %d = scale %x {factor = 2.0} : f32[3,5]\n"
      "  %e = scale %x {factor = 3.0} : f32[3,5]\n"
      "  %f = fill {value = 0.0} : f32[3]\n"
      "  %g = fill {value = 0.0} : f32[4]\n"
      "}\n",
      "p.mesh", test::op_table());
  const Function& f = p.main();
  const auto of = [&](size_t op) { return &bound_rule(p, f, f.ops[op]); };
  CHECK(of(0) == of(1));
  CHECK(of(0) != of(2));
  CHECK(of(3) != of(4));
  CHECK(of(5) != of(6));
  CHECK(of(2)->operands[1].size() == 1);
  CHECK(of(6)->factors[0].size == 4);
  CHECK(signature(p, f, f.ops[2]).results == std::vector{Type::parse("f32[3,5]")});
  const Program copy = p;
  CHECK(&bound_rule(copy, copy.main(), copy.main().ops[1]) == of(0));
}

TEST_CASE("an attribute that is no number is found again, and zero has two signs") {
  Signatures signatures;
  const OpDef& scale = test::op_table().get("scale");
  const std::vector<Type> x{Type::parse("f32[3]")};
  const auto of = [&](double factor) { return &signatures.get(scale, {{"factor", factor}}, x, {}, {}); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(of(nan) == of(nan));
  CHECK(of(0.0) == of(0.0));
  CHECK(of(0.0) != of(-0.0));
}

TEST_CASE("what is wrong is said each time, at the place that asks") {
  Signatures signatures;
  const OpDef& add = test::op_table().get("add");
  const std::vector<Type> x{Type::parse("f32[3]"), Type::parse("f32[4]")};
  for (int line : {7, 8}) {
    try {
      signatures.get(add, {}, x, {}, {"m.cc", line});
      FAIL("no error");
    } catch (const UserError& error) {
      CHECK(error.diagnostic().place.line == line);
      CHECK(error.diagnostic().text == "add: dimension 0 is 3 in operand 0 f32[3] but 4 in operand 1 f32[4]");
    }
  }
  CHECK_THROWS_AS(signatures.get(add, {{"factor", 1.0}}, std::vector{x[0], x[0]}, {}, {}), UserError);
}

}  // namespace
}  // namespace meshard
