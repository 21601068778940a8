// The least communication of 42 patterns (products, layers, optimizers, indexing): each is a program text in tests/golden/patterns
// with a formula, and the bill of what the library makes of it equals the formula. See pattern.h for the form of the files.
//
//   MESHARD_PATTERNS_TABLE=1 build/tests/golden/patterns_test     also prints formula and bill, side by side
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <set>

#include "meshard/ir/parse.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/simulate.h"
#include "pattern.h"

namespace meshard {
namespace {

constexpr int kRows = 42;

std::vector<Pattern> all() { return read_patterns(std::string(MESHARD_TESTS) + "/golden/patterns"); }

std::string collectives(const Bill& bill) {
  std::map<std::string, int64_t> counts;
  for (const BillLine& line : bill.lines) counts[std::string(name(line.kind))] += line.count;
  std::string out;
  for (const auto& [kind, count] : counts) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, kind);
  return out.empty() ? "none" : out;
}

// The table is of collectives as they are chosen: none shared by a forward and a backward pass that stand in one function.
const CompileOptions kEachByItself{.optimize = {.on = false}};

// Of the texts, what moves least.
Compiled cheapest(const PatternCase& c, const std::string& file) {
  Compiled best;
  for (size_t i = 0; i < c.texts.size(); ++i) {
    Compiled made = compile(parse_program(c.texts[i], file, op_table()), kEachByItself);
    if (i == 0 || made.bill.bytes < best.bill.bytes) best = std::move(made);
  }
  return best;
}

// Asked for with MESHARD_PATTERNS_TABLE.
void print_row(const std::string& pattern, const std::string& sizes, const std::string& table, const std::string& bill, const std::string& ratio,
               const std::string& collectives) {
  if (std::getenv("MESHARD_PATTERNS_TABLE") == nullptr) return;
  fmt::print("{:<32} {:<40} {:>12} {:>10} {:>6}  {}\n", pattern, sizes, table, bill, ratio, collectives);
}

TEST_CASE("the bill of every pattern is its formula") {
  const char* only = std::getenv("MESHARD_PATTERNS_ONLY");  // files that contain this
  print_row("pattern", "sizes and mesh", "table", "bill", "ratio", "collectives");
  for (const Pattern& p : all()) {
    if (only != nullptr && p.file.find(only) == std::string::npos) continue;
    for (const PatternCase& c : cases(p)) {
      INFO(p.file << ", " << c.label);
      const Compiled compiled = cheapest(c, p.file);
      const Bill& bill = compiled.bill;
      const double bytes = p.mean.empty() ? static_cast<double>(bill.bytes) : static_cast<double>(bill.bytes_all_devices) / static_cast<double>(bill.mesh.size());
      const std::string ratio = c.table == 0 ? (bytes == 0 ? "1.00" : "-") : fmt::format("{:.2f}", bytes / c.table);
      print_row(p.file.substr(0, p.file.find('.')), c.label, fmt::format("{}{:.0f}", c.even ? "" : "<= ", c.table), fmt::format("{:.0f}", bytes), ratio,
                collectives(bill));
      INFO(print(compiled.local));
      CHECK(bytes >= c.low - 0.01);  // whole numbers both
      CHECK(bytes <= c.high + 0.01);
      const CheckResult check = check_partition(compiled.global, compiled, 11);
      INFO(check.text());
      CHECK(check.good(2e-4));
    }
  }
}

// Rows 12 to 19 as whole training steps, with layouts for parameters and batch alone. P are the bytes of the parameters, S of those that
// tensor parallelism leaves whole, V those of an activation, T the tokens; what is one number a step (loss, norm of the gradients) is at
// most 64 bytes a device.
TEST_CASE("training steps cost what their rows say, or less") {
  struct Step {
    int row;
    std::string plan, axis, bytes;
  };
  const std::string reductions = "(4*L + 2)*2*q*V + 24*q*T";
  const std::vector<Step> steps = {{12, "tensor", "model", reductions},
                                   {14, "tensor_sequence", "model", reductions + " + 2*L*q*V + 2*q*S"},
                                   {17, "data", "data", "2*q*P"},
                                   {18, "zero1", "data", "2*q*P"},
                                   {18, "zero2", "data", "2*q*P"},
                                   {19, "zero3", "data", "3*q*P"}};
  for (const Step& step : steps) {
    for (const int64_t batch : {4, 32}) {
      for (const int p : {2, 4, 8}) {
        const ModelConfig config = model_config("gpt-tiny:layers=2,d=64,heads=8,f=256,vocab=512,context=32");
        Trace trace(op_table());
        trace_train_step(trace, config, batch, 32, AdamWConfig{}, 1);
        const std::string mesh = fmt::format("{}={}", step.axis, p);
        const Compiled compiled = compile(trace.program(), Plan::parse(*builtin_plan(step.plan), step.plan + ".plan"), Mesh::parse(mesh));
        const auto tokens = static_cast<double>(batch * 32);
        const Sizes sizes = {{"q", (p - 1.0) / p}, {"L", 2}, {"T", tokens}, {"V", 4 * tokens * 64}, {"P", 4 * static_cast<double>(param_count(config))},
                             {"S", 4 * static_cast<double>((2 * 6 + 2 + 32) * 64)}};
        const double formula = evaluate(step.bytes, {}, sizes);
        const auto bytes = static_cast<double>(compiled.bill.bytes);
        print_row(fmt::format("row_{}_gpt_{}", step.row, step.plan), fmt::format("{} x 32 tokens on {}", batch, mesh), fmt::format("<= {:.0f}", formula),
                  fmt::format("{:.0f}", bytes), fmt::format("{:.2f}", bytes / formula), collectives(compiled.bill));
        INFO(step.plan << ", " << batch << " x 32 tokens on " << mesh);
        CHECK(bytes <= formula + 64);
      }
    }
  }
}

TEST_CASE("every row of the table has a pattern") {
  std::set<int> covered;
  for (const Pattern& p : all()) {
    CHECK(p.file.starts_with(fmt::format("row_{:02}_", p.row)));
    covered.insert(p.row);
  }
  CHECK(covered.size() == kRows);
  if (!covered.empty()) CHECK(*covered.rbegin() <= kRows);
}

TEST_CASE("formulas of patterns") {
  const std::map<std::string, std::string> where = {{"V", "4*M*(K + 1)"}};
  const Sizes sizes = {{"M", 3}, {"K", 2}, {"p", 8}, {"q", 0.875}};
  CHECK(evaluate("V", where, sizes) == 36);
  CHECK(evaluate("q*V/p - 1", where, sizes) == Approx(0.875 * 36 / 8 - 1));
  CHECK(evaluate("min(V, max(2, 7), 9)", where, sizes) == 7);
  CHECK(evaluate("ceil(log2(5))", where, sizes) == 3);
  CHECK(evaluate("factors(r + 2*s)", where, sizes) == 8);
  CHECK(evaluate("factors3(r + s + t)", where, sizes) == 6);
  CHECK_THROWS(evaluate("V +", where, sizes));
  CHECK_THROWS(evaluate("W", where, sizes));
  CHECK_THROWS(evaluate("(1", where, sizes));
}

}  // namespace
}  // namespace meshard
