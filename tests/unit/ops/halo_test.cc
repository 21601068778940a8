// What ops that read their neighbours' edges fetch, in elements: no more than the edges.
#include "meshard/ir/halo.h"

#include <catch2/catch.hpp>
#include <functional>

#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"

namespace meshard {
namespace {

// The op that `make` appends last, run with factor `letter` split over all devices of a 1-D mesh.
struct Run {
  Run(int64_t parts, std::string_view letter, const std::function<void(Trace&)>& make)
      : mesh(Mesh::parse("p=" + std::to_string(parts))) {
    make(trace);
    const Function& f = trace.main().function();
    op = &f.ops.back();
    std::vector<Type> results;
    for (ValueId v : op->operands) operands.push_back(f.value(v).type);
    for (ValueId v : op->results) results.push_back(f.value(v).type);
    rule = bind_rule(*op->def, op->attributes, operands, results, {});
    atoms.resize(rule.factors.size());
    for (size_t k = 0; k < rule.factors.size(); ++k) {
      if (rule.factors[k].name == letter) atoms[k] = mesh.axes()[0].atoms;
    }
  }

  // Received by each device, of one operand.
  std::vector<int64_t> received(int operand = 0) const {
    const HaloFetch fetch(mesh, *op->def, op->attributes, rule, operands, atoms, operand);
    std::vector<int64_t> out;
    for (int32_t r = 0; r < mesh.size(); ++r) out.push_back(fetch.received_elements(Rank{r}));
    return out;
  }
  int64_t all(int operand = 0) const {
    return halo_elements(mesh, *op->def, op->attributes, rule, operands, atoms, operand);
  }

  Mesh mesh;
  Trace trace{op_table()};
  const Op* op = nullptr;
  std::vector<Type> operands;
  BoundRule rule;
  FactorAtoms atoms;
};

Value x_of(Trace& t, std::string_view type) { return t.main().param("x", Type::parse(type)); }
using Counts = std::vector<int64_t>;

TEST_CASE("a convolution fetches half a window from each neighbour") {
  const auto conv_of = [](int64_t window) {
    return [window](Trace& t) {
      Value x = x_of(t, "f32[2,24,6,5]"), w = t.main().param("w", Type{Dtype::f32, {window, 3, 5, 4}});
      conv(x, w, {.before = {window / 2, 1}, .behind = {window / 2, 1}});
    };
  };
  const int64_t row = 2 * 6 * 5;  // elements at one h
  CHECK(Run(2, "h", conv_of(3)).received() == Counts{row, row});
  CHECK(Run(3, "h", conv_of(3)).received() == Counts{row, 2 * row, row});
  CHECK(Run(4, "h", conv_of(5)).received() == Counts{2 * row, 4 * row, 4 * row, 2 * row});
  CHECK(Run(8, "h", conv_of(1)).all() == 0);
  // Windows wider than a block: from as many devices as it takes.
  CHECK(Run(8, "h", conv_of(9)).received() == Counts{4 * row, 7 * row, 8 * row, 8 * row, 8 * row, 8 * row, 7 * row, 4 * row});
}

TEST_CASE("windows that do not overlap fetch nothing where blocks fit") {
  const auto pool = [](Trace& t) { max_pool(x_of(t, "f32[2,12,3]"), {.window = {2, 1}, .stride = {2, 1}}); };
  for (int64_t p : {2, 3}) CHECK(Run(p, "w", pool).all() == 0);
  // Six windows over four devices are 2, 1, 2, 1 windows, 4, 2, 4, 2 elements: of blocks of 3 one element goes over.
  CHECK(Run(4, "w", pool).received() == Counts{6, 0, 6, 0});
}

TEST_CASE("shifts move what crosses a border") {
  const auto rolled = [](int64_t by) { return [by](Trace& t) { roll(x_of(t, "f32[16,3]"), 0, by); }; };
  CHECK(Run(4, "t", rolled(1)).received() == Counts{3, 3, 3, 3});
  CHECK(Run(4, "t", rolled(-2)).received() == Counts{6, 6, 6, 6});
  CHECK(Run(4, "t", rolled(4)).received() == Counts{12, 12, 12, 12});  // whole blocks
  CHECK(Run(4, "t", rolled(16)).all() == 0);
  CHECK(Run(4, "t", rolled(15)).received() == Counts{3, 3, 3, 3});
  const auto cut = [](Trace& t) { slice(x_of(t, "f32[16,3]"), 0, 2, 16); };
  // 14 rows from row 2 on, in blocks of 4, 3, 4, 3: rows 2-5, 6-8, 9-12, 13-15.
  CHECK(Run(4, "t", cut).received() == Counts{6, 3, 3, 0});
  const auto padded = [](Trace& t) { pad(x_of(t, "f32[16]"), 0, 2, 2); };
  CHECK(Run(2, "t", padded).received() == Counts{0, 0});        // -2 to 7 and 8 to 17
  CHECK(Run(4, "t", padded).received() == Counts{0, 1, 1, 0});  // -2 to 2, 3 to 7, 8 to 12, 13 to 17
  const auto turned = [](Trace& t) { reverse(x_of(t, "f32[9]"), 0); };
  CHECK(Run(3, "t", turned).received() == Counts{3, 0, 3});
}

TEST_CASE("pieces of a concatenation go where they belong") {
  const auto joined = [](Trace& t) {
    concat({x_of(t, "f32[8]"), t.main().param("y", Type::parse("f32[8]"))}, 0);
  };
  const Run run(4, "t", joined);
  CHECK(run.received(0) == Counts{2, 4, 0, 0});  // the first device wants 0 to 3 of x and has 0 and 1
  CHECK(run.received(1) == Counts{0, 0, 4, 2});
}

TEST_CASE("totals of blocks are made where the blocks are") {
  for (int64_t p : {2, 3, 4}) {
    Run run(p, "t", [p](Trace& t) {
      apply("block_sum", {x_of(t, "f32[13,2]")}, {{"dimension", int64_t{0}}, {"parts", p}});
    });
    CHECK(run.all() == 0);
  }
}

}  // namespace
}  // namespace meshard
