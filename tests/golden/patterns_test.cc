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
#include "meshard/ops/table.h"
#include "meshard/runtime/simulate.h"
#include "pattern.h"

namespace meshard {
namespace {

constexpr int kRows = 42;

// Rows without a file, and what keeps them out.
const std::map<int, std::string> kNotCovered = {
};

std::vector<Pattern> all() { return read_patterns(std::string(MESHARD_TESTS) + "/golden/patterns"); }

std::string collectives(const Bill& bill) {
  std::map<std::string, int64_t> counts;
  for (const BillLine& line : bill.lines) counts[std::string(name(line.kind))] += line.count;
  std::string out;
  for (const auto& [kind, count] : counts) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, kind);
  return out.empty() ? "none" : out;
}

// Of the texts, what moves least.
Compiled cheapest(const PatternCase& c, const std::string& file) {
  Compiled best;
  for (size_t i = 0; i < c.texts.size(); ++i) {
    Compiled made = compile(parse_program(c.texts[i], file, op_table()));
    if (i == 0 || made.bill.bytes < best.bill.bytes) best = std::move(made);
  }
  return best;
}

TEST_CASE("the bill of every pattern is its formula") {
  const bool table = std::getenv("MESHARD_PATTERNS_TABLE") != nullptr;
  const char* only = std::getenv("MESHARD_PATTERNS_ONLY");  // files that contain this
  if (table) fmt::print("{:<30} {:<36} {:>9} {:>9} {:>6}  {}\n", "pattern", "sizes and mesh", "table", "bill", "ratio", "collectives");
  for (const Pattern& p : all()) {
    if (only != nullptr && p.file.find(only) == std::string::npos) continue;
    for (const PatternCase& c : cases(p)) {
      INFO(p.file << ", " << c.label);
      const Compiled compiled = cheapest(c, p.file);
      const Bill& bill = compiled.bill;
      const double bytes = p.mean.empty() ? static_cast<double>(bill.bytes) : static_cast<double>(bill.bytes_all_devices) / static_cast<double>(bill.mesh.size());
      if (table) {
        const std::string ratio = c.table == 0 ? (bytes == 0 ? "1.00" : "-") : fmt::format("{:.2f}", bytes / c.table);
        fmt::print("{:<30} {:<36} {}{:>8.0f} {:>9.0f} {:>6}  {}\n", p.file.substr(0, p.file.find('.')), c.label, c.even ? " " : "<", c.table, bytes, ratio,
                   collectives(bill));
      }
      INFO(print(compiled.local));
      CHECK(bytes >= c.low - 0.01);  // whole numbers both
      CHECK(bytes <= c.high + 0.01);
      const CheckResult check = check_partition(compiled.global, compiled, 11);
      INFO(check.text());
      CHECK(check.good(2e-4));
    }
  }
}

TEST_CASE("every row of the table has a pattern or a reason") {
  std::set<int> covered;
  for (const Pattern& p : all()) {
    CHECK(p.file.starts_with(fmt::format("row_{:02}_", p.row)));
    CHECK(kNotCovered.count(p.row) == 0);
    covered.insert(p.row);
  }
  CHECK(covered.size() + kNotCovered.size() == kRows);
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
