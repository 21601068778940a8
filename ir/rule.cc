#include "meshard/ir/rule.h"

#include <algorithm>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

using Term = Rule::Term;

constexpr size_t kMostInTensor = 128;
// Sizes are below it, or too large to be any.
constexpr int64_t kMost = int64_t{1} << 62;

int64_t times(int64_t a, int64_t b) {
  int64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) || out > kMost ? kMost : out;
}

std::string factor_name(Scanner& in) {
  if (in.accept("...")) return "...";
  return in.word("a factor, \"...\", \"1\" or \"(\"");
}

// Up to "," or "->" or "|" or the end; nothing is a scalar.
Term parse_term(Scanner& in) {
  Term term;
  std::vector<std::string> seen;
  const auto factor = [&] {
    const Place place = in.place();
    std::string name = factor_name(in);
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
      in.fail(place, fmt::format("{} stands twice in one tensor", name));
    }
    if (seen.size() == kMostInTensor) in.fail(place, fmt::format("a tensor has at most {} factors", kMostInTensor));
    seen.push_back(name);
    return name;
  };
  while (!in.at_end() && in.peek() != ',' && in.peek() != '|' && !in.looking_at("->")) {
    if (in.accept("(")) {
      std::vector<std::string>& dim = term.dims.emplace_back();
      while (!in.accept(")")) {
        if (in.looking_at("...")) in.fail("\"...\" stands for whole dimensions, not inside of \"( )\"");
        dim.push_back(factor());
      }
      if (dim.empty()) in.fail("\"()\" is no dimension; write \"1\" for one of size 1");
    } else if (in.at_integer()) {
      const Place place = in.place();
      if (in.integer("1") != 1) in.fail(place, "a size in a rule can only be 1; name the dimension");
      term.dims.emplace_back();
    } else {
      term.dims.push_back({factor()});
      const Place tilde = in.place();
      if (!in.accept("~")) continue;
      if (term.dims.back()[0] == "...") in.fail(tilde, "\"~\" stands behind one name, not behind \"...\"");
      term.halos.push_back(term.dims.size() - 1);
    }
  }
  return term;
}

std::vector<Term> parse_terms(Scanner& in) {
  std::vector<Term> terms{parse_term(in)};
  while (in.accept(",")) terms.push_back(parse_term(in));
  return terms;
}

void parse_marks(Scanner& in, Rule& rule) {
  while (!in.at_end()) {
    const Place place = in.place();
    const std::string mark = in.word("whole(...), lower(...) or size(...)");
    const std::string known[] = {"whole", "lower", "size"};
    if (mark != "whole" && mark != "lower" && mark != "size") {
      in.fail(place, fmt::format("no mark \"{}\"; there are whole, lower and size{}", mark, did_you_mean(mark, known)));
    }
    in.expect("(");
    do {
      const Place at = in.place();
      const std::string name = factor_name(in);
      if (!rule.names(name)) in.fail(at, fmt::format("{}({}): the rule has no factor {}", mark, name, name));
      if (mark == "size") {
        in.expect("=");
        rule.sizes.emplace_back(name, in.integer("a size"));
      } else {
        (mark == "whole" ? rule.whole : rule.lower).push_back(name);
      }
    } while (in.accept(","));
    in.expect(")");
    in.accept(",");
  }
}

std::string term_text(const Term& term) {
  std::vector<std::string> words;
  for (const std::vector<std::string>& dim : term.dims) {
    const std::string names = absl::StrJoin(dim, " ");
    words.push_back(dim.empty() ? "1" : dim.size() == 1 ? names : "(" + names + ")");
  }
  for (size_t d : term.halos) words[d] += "~";
  return absl::StrJoin(words, " ");
}

std::string terms_text(const std::vector<Term>& terms) {
  return absl::StrJoin(terms, ", ", [](std::string* out, const Term& term) { *out += term_text(term); });
}

bool has(const std::vector<Term>& terms, std::string_view factor) {
  for (const Term& term : terms) {
    for (const auto& dim : term.dims) {
      if (std::find(dim.begin(), dim.end(), factor) != dim.end()) return true;
    }
  }
  return false;
}

}  // namespace

bool Rule::names(std::string_view factor) const { return has(operands, factor) || has(results, factor); }

Rule Rule::parse(std::string_view text, const Place& place) {
  Rule rule;
  try {
    Scanner in(text, "rule");
    // Nothing before "->" is an op without operands, not one with a scalar.
    if (!in.looking_at("->")) rule.operands = parse_terms(in);
    in.expect("->");
    const Place results = in.place();
    rule.results = parse_terms(in);
    for (const Term& term : rule.results) {
      if (!term.halos.empty()) in.fail(results, "\"~\" stands in operands only");
    }
    if (in.accept("|")) parse_marks(in, rule);
    if (!in.at_end()) in.fail("expected \",\", \"|\" or the end of the rule");
  } catch (const UserError& error) {
    throw UserError(place, fmt::format("rule {}: {}", quote(text), error.diagnostic().text), error.diagnostic().notes);
  }
  return rule;
}

std::string Rule::str() const {
  std::string out = terms_text(operands);
  out += (out.ends_with(' ') ? "-> " : " -> ") + terms_text(results);
  if (!whole.empty() || !lower.empty() || !sizes.empty()) out += " |";
  if (!whole.empty()) out += fmt::format(" whole({})", absl::StrJoin(whole, ","));
  if (!lower.empty()) out += fmt::format(" lower({})", absl::StrJoin(lower, ","));
  if (!sizes.empty()) out += fmt::format(" size({})", absl::StrJoin(sizes, ",", absl::PairFormatter("=")));
  return out;
}

bool BoundRule::in(const std::vector<Dim>& dims, int factor) const {
  return std::any_of(dims.begin(), dims.end(),
                     [&](const Dim& dim) { return std::find(dim.begin(), dim.end(), factor) != dim.end(); });
}

bool BoundRule::in_operands(int factor) const {
  return std::any_of(operands.begin(), operands.end(), [&](const auto& dims) { return in(dims, factor); });
}

bool BoundRule::reduced(int factor, int result) const {
  return in_operands(factor) && !in(results[static_cast<size_t>(result)], factor);
}

int64_t BoundRule::points() const {
  int64_t points = 1;
  for (const Factor& f : factors) points = times(points, f.size);
  return points;
}

std::vector<Shape> result_shapes(const BoundRule& rule) {
  std::vector<Shape> shapes;
  for (const auto& dims : rule.results) {
    Shape& shape = shapes.emplace_back();
    for (const BoundRule::Dim& dim : dims) {
      int64_t size = 1;
      for (int f : dim) size = times(size, rule.factors[static_cast<size_t>(f)].size);
      shape.dims.push_back(size);
    }
  }
  return shapes;
}

}  // namespace meshard
