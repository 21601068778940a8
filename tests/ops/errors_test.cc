// What a caller can get wrong with any op is a UserError that names the op.
#include <catch2/catch.hpp>

#include <algorithm>

#include "cases.h"
#include "meshard/ir/trace.h"
#include "meshard/ops/table.h"

namespace meshard::test {
namespace {

std::string error_of(const Case& c) {
  Trace trace(op_table());
  std::vector<Value> operands;
  for (size_t i = 0; i < c.operands.size(); ++i)
    operands.push_back(trace.main().param("x" + std::to_string(i), c.operands[i]));
  try {
    trace.main().apply(*c.def, operands, c.attributes, c.explicit_results(), "", Place{"model.cc", 7, 0});
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

void check_refused(const Case& c, const std::string& what) {
  INFO(c.text << ": " << what);
  const std::string message = error_of(c);
  CHECK(message != "");
  CHECK_THAT(message, Catch::Contains(std::string(c.def->name)));
}

void check_wrong_ranks(const Case& c) {
  const Rule written = Rule::parse(rule_text(*c.def, c.attributes, c.operands, {}));
  for (size_t i = 0; i < c.operands.size(); ++i) {
    int leading = 0;
    for (const auto& dim : written.operands[i].dims) leading += dim == std::vector<std::string>{"..."};
    const int least = static_cast<int>(written.operands[i].dims.size()) - leading;
    if (least > 0) {
      Case few = c;
      few.operands[i].shape.dims.resize(static_cast<size_t>(least) - 1);
      check_refused(few, "too few dimensions");
    }
    if (leading == 0) {
      Case many = c;
      many.operands[i].shape.dims.push_back(2);
      // Another rank may have another rule: attention with grouped heads.
      const std::string rule = rule_text(*c.def, c.attributes, c.operands, {});
      if (rule_text(*c.def, c.attributes, many.operands, {}) == rule) check_refused(many, "too many dimensions");
    }
  }
}

// Every factor that two operands share, made larger in one of them.
void check_wrong_sizes(const Case& c, const BoundRule& rule) {
  for (size_t i = 0; i < rule.operands.size(); ++i) {
    for (size_t d = 0; d < rule.operands[i].size(); ++d) {
      const BoundRule::Dim& dim = rule.operands[i][d];
      if (dim.size() != 1 || rule.factors[static_cast<size_t>(dim[0])].size < 2) continue;
      int holders = 0;
      for (const auto& dims : rule.operands) holders += rule.in(dims, dim[0]);
      if (holders < 2) continue;
      Case wrong = c;
      wrong.operands[i].shape.dims[d] += 1;
      check_refused(wrong, "a size that does not match");
    }
  }
}

void check_wrong_dtypes(const Case& c) {
  int floats = 0;
  for (const Type& t : c.operands) floats += is_float(t.dtype);
  for (size_t i = 0; i < c.operands.size(); ++i) {
    // Where a result has the type of this operand, any type is right.
    const auto& kept = c.def->result_dtype;
    if (std::find(kept.begin(), kept.end(), static_cast<int>(i)) != kept.end()) continue;
    Case wrong = c;
    wrong.operands[i].dtype = is_float(c.operands[i].dtype) ? Dtype::i32 : Dtype::f32;
    check_refused(wrong, "an integer for a float or the other way round");
    if (!is_float(c.operands[i].dtype) || floats < 2) continue;
    wrong.operands[i].dtype = Dtype::f64;
    check_refused(wrong, "floats of two dtypes");
  }
}

}  // namespace

TEST_CASE("wrong operands and attributes are refused") {
  for (const OpDef* def : op_table().all()) {
    DYNAMIC_SECTION(def->name) {
      for (const Case& c : cases(*def)) {
        INFO(c.text);
        CHECK(error_of(c) == "");
        const BoundRule rule = c.rule();
        Case wrong = c;
        if (!def->collective) {  // a collective may carry several values
          wrong.operands.push_back(Type{Dtype::f32, {}});
          check_refused(wrong, "an operand too many");
        }
        if (!c.operands.empty()) {
          wrong = c;
          wrong.operands.pop_back();
          check_refused(wrong, "an operand too few");
        }
        wrong = c;
        wrong.attributes.set("colour", int64_t{3});
        check_refused(wrong, "an attribute that no op has");
        for (const AttributeSpec& spec : def->attributes) {
          wrong = c;
          wrong.attributes.set(
              spec.name, std::holds_alternative<bool>(spec.otherwise) ? Attribute(std::string("x")) : Attribute(true));
          check_refused(wrong, "an attribute of another type");
          if (!spec.required) continue;
          wrong = c;
          wrong.attributes.erase(spec.name);
          check_refused(wrong, "a required attribute left out");
        }
        check_wrong_ranks(c);
        check_wrong_sizes(c, rule);
        if (!def->identity) check_wrong_dtypes(c);
      }
    }
  }
}

}  // namespace meshard::test
