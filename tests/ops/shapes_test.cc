// Every entry is complete: it has cases, its rule is text that prints back, and results have the shapes that it states.
#include <algorithm>
#include <catch2/catch.hpp>

#include "cases.h"
#include "meshard/ops/table.h"

namespace meshard::test {

TEST_CASE("entries are complete") {
  for (const OpDef* def : op_table().all()) {
    DYNAMIC_SECTION(def->name) {
      CHECK_FALSE(def->purpose.empty());
      CHECK_FALSE(def->cases.empty());
      const auto states_results = [](const OpCase& c) { return !c.results.empty(); };
      CHECK(std::any_of(def->cases.begin(), def->cases.end(), states_results));
      CHECK((def->collective.has_value() || def->reference != nullptr));
      CHECK((def->results == 1 || static_cast<int>(def->result_names.size()) == def->results));
      for (const auto& [result, operand] : def->in_place) {
        CHECK(result < def->results);
        CHECK(operand >= 0);
      }
    }
  }
}

TEST_CASE("rules print back and give the stated shapes") {
  for (const OpDef* def : op_table().all()) {
    DYNAMIC_SECTION(def->name) {
      for (const Case& c : cases(*def)) {
        INFO(c.text);
        const std::string text = rule_text(*def, c.attributes, c.operands, {});
        const std::string printed = Rule::parse(text).str();
        CHECK(Rule::parse(printed).str() == printed);
        check_attributes(*def, c.attributes, {});
        const BoundRule rule = c.rule();
        const std::vector<Type> results = c.results();
        CHECK(static_cast<int>(results.size()) == def->results);
        if (!c.expected.empty()) CHECK(results == c.expected);
        // Sizes of factors and of dimensions say the same.
        const std::vector<Shape> shapes = result_shapes(rule);
        for (size_t r = 0; r < shapes.size(); ++r) CHECK(shapes[r] == results[r].shape);
      }
    }
  }
}

}  // namespace meshard::test
