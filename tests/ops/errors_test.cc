// What a caller can get wrong with any op is a UserError that names the op.
#include <catch2/catch.hpp>

#include <algorithm>

#include "cases.h"
#include "meshard/base/error.h"
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
  const std::string rule = rule_text(*c.def, c.attributes, c.operands, {});
  const Rule written = Rule::parse(rule);
  // Another rank may have another rule: attention with grouped heads, ops along one of any number of dimensions.
  const auto refused = [&](const Case& other) {
    try {
      return rule_text(*c.def, c.attributes, other.operands, {}) == rule;
    } catch (const UserError&) {
      return true;
    }
  };
  for (size_t i = 0; i < c.operands.size(); ++i) {
    int leading = 0;
    for (const auto& dim : written.operands[i].dims) leading += dim == std::vector<std::string>{"..."};
    const int least = static_cast<int>(written.operands[i].dims.size()) - leading;
    if (least > 0) {
      Case few = c;
      few.operands[i].shape.dims.resize(static_cast<size_t>(least) - 1);
      if (refused(few)) check_refused(few, "too few dimensions");
    }
    if (leading == 0) {
      Case many = c;
      many.operands[i].shape.dims.push_back(2);
      if (refused(many)) check_refused(many, "too many dimensions");
    }
  }
}

// The op has a case with as many operands less the last.
bool may_lack_last(const Case& c) {
  const std::vector<Case> all = cases(*c.def);
  return std::any_of(all.begin(), all.end(), [&](const Case& o) { return o.operands.size() + 1 == c.operands.size(); });
}

// Every factor that two operands share, made larger in one of them.
void check_wrong_sizes(const Case& c, const BoundRule& rule) {
  // Dimensions with a size of their own may have any.
  const auto holds = [&](size_t i, int factor) {
    const auto own = [&](const BoundRule::Halo& h) { return h.operand == static_cast<int>(i) && h.factor == factor; };
    return rule.in(rule.operands[i], factor) && std::none_of(rule.halos.begin(), rule.halos.end(), own);
  };
  for (size_t i = 0; i < rule.operands.size(); ++i) {
    for (size_t d = 0; d < rule.operands[i].size(); ++d) {
      const BoundRule::Dim& dim = rule.operands[i][d];
      if (dim.size() != 1 || rule.factors[static_cast<size_t>(dim[0])].size < 2) continue;
      int holders = 0;
      for (size_t o = 0; o < rule.operands.size(); ++o) holders += holds(o, dim[0]);
      if (holders < 2 || !holds(i, dim[0])) continue;
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
    // So it is where the op takes integers too and no other operand has to have the same.
    const auto free = [&](size_t o) { return o >= c.def->operand_dtypes.size() || !c.def->operand_dtypes[o]; };
    int alike = 0;
    for (size_t o = 0; o < c.operands.size(); ++o) alike += free(o);
    if (c.def->integers && free(i) && alike < 2) continue;
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
        wrong.operands.push_back(Type{Dtype::f32, {}});
        if (!def->collective) check_refused(wrong, "an operand too many");  // a collective carries any number
        if (!c.operands.empty() && !may_lack_last(c)) {
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
