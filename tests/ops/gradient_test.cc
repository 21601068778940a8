// Gradients against central differences in f64, and their types in every float dtype.
#include <algorithm>
#include <catch2/catch.hpp>

#include "interpret.h"
#include "meshard/ir/trace.h"
#include "meshard/ops/table.h"

namespace meshard::test {
namespace {

// A function: the op, then its vjp. Parameters: the operands, then a cotangent for each result of `with`.
struct Differentiated {
  explicit Differentiated(const Case& c, const std::vector<bool>& with) : trace(op_table()) {
    Builder& b = trace.main();
    b.set_source(Place{"case", 1, 0});
    std::vector<Value> operands;
    for (size_t i = 0; i < c.operands.size(); ++i) operands.push_back(b.param("x" + std::to_string(i), c.operands[i]));
    const std::vector<Value> results = b.apply(*c.def, operands, c.attributes, c.explicit_results());
    std::vector<Value> cotangents(results.size());
    for (size_t r = 0; r < results.size(); ++r)
      if (with[r]) cotangents[r] = b.param("d" + std::to_string(r), results[r].type());
    Vjp vjp(b, c.attributes, operands, results, cotangents);
    std::vector<bool> needed;
    for (const Type& t : c.operands) needed.push_back(is_float(t.dtype));
    vjp.set_needed(needed);
    c.def->vjp(vjp);
    out = vjp.out();
  }

  Trace trace;
  std::vector<Value> out;  // the operands' cotangents
};

// The results whose cotangents the vjp takes: all, or those that it does not refuse with an error of its own.
std::vector<bool> differentiable_results(const Case& c) {
  const auto size = static_cast<size_t>(c.def->results);
  std::vector<bool> taken(size, true);
  for (size_t r = 1; r < size; ++r) {
    std::vector<bool> only(size, false);
    only[0] = only[r] = true;
    try {
      Differentiated d(c, only);
    } catch (const UserError& error) {
      CHECK_THAT(error.what(), Catch::Contains(std::string(c.def->name)));
      taken[r] = false;
    }
  }
  return taken;
}

// sum over results of sum(result * cotangent)
double objective(const Case& c, const std::vector<Tensor>& operands, const std::vector<Tensor>& cotangents) {
  double total = 0;
  const std::vector<Tensor> results = run_whole(c, operands);
  for (size_t r = 0; r < results.size(); ++r) {
    if (cotangents[r].type().dtype != results[r].type().dtype) continue;
    for (int64_t i = 0; i < results[r].elements(); ++i) total += results[r].get(i) * cotangents[r].get(i);
  }
  return total;
}

void check_against_differences(const Case& c, Random& random) {
  const std::vector<bool> with = differentiable_results(c);
  const Differentiated d(c, with);
  std::vector<Tensor> operands = draw_operands(c, random), params, cotangents;
  for (const Tensor& t : operands) params.push_back(t.clone());
  const std::vector<Type> types = c.results();
  for (size_t r = 0; r < types.size(); ++r) {
    cotangents.push_back(draw(types[r], 0, false, random));
    if (!with[r]) cotangents.back().fill(0);
    if (with[r]) params.push_back(cotangents.back().clone());
  }
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!is_float(c.operands[i].dtype)) continue;
    INFO("operand " << i);
    REQUIRE(static_cast<bool>(d.out[i]));
    REQUIRE(d.out[i].type() == c.operands[i]);
    const Tensor gradient = std::move(interpret(d.out[i].builder().function(), params, {d.out[i].id()})[0]);
    Tensor expected(c.operands[i]);
    for (int64_t e = 0; e < expected.elements(); ++e) {
      constexpr double kStep = 1e-5;
      const double x = operands[i].get(e);
      operands[i].set(e, x + kStep);
      const double above = objective(c, operands, cotangents);
      operands[i].set(e, x - kStep);
      const double below = objective(c, operands, cotangents);
      operands[i].set(e, x);
      expected.set(e, (above - below) / (2 * kStep));
    }
    CHECK(difference(gradient, expected, 1e-7) == "");
  }
}

bool all_f64(const Case& c) {
  for (const Type& t : c.operands)
    if (is_float(t.dtype) && t.dtype != Dtype::f64) return false;
  for (const Type& t : c.results())
    if (is_float(t.dtype) && t.dtype != Dtype::f64) return false;
  return true;
}

}  // namespace

TEST_CASE("gradients equal central differences") {
  for (const OpDef* def : computing_ops()) {
    if (!def->vjp) continue;
    DYNAMIC_SECTION(def->name) {
      Random random(4);
      for (const Case& as_written : cases(*def)) {
        if (!as_written.small()) continue;
        const auto floating = [](const Type& t) { return is_float(t.dtype); };
        if (std::none_of(as_written.operands.begin(), as_written.operands.end(), floating)) continue;
        INFO(as_written.text);
        const Case c = as_written.with(Dtype::f64);
        if (all_f64(c)) check_against_differences(c, random);
        for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
          const Case typed = as_written.with(dtype);
          std::vector<bool> first(static_cast<size_t>(def->results), false);
          first[0] = true;
          const Differentiated d(typed, first);
          for (size_t i = 0; i < typed.operands.size(); ++i)
            if (is_float(typed.operands[i].dtype)) CHECK(d.out[i].type() == typed.operands[i]);
        }
      }
    }
  }
}

}  // namespace meshard::test
