// bind_rule: "..." spelled out, and a size for every factor, from operands, attributes and given results.
#include <algorithm>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "meshard/base/text.h"
#include "meshard/ir/op.h"

namespace meshard {
namespace {

constexpr int64_t kUnknown = -1;
constexpr size_t kMostFactors = 1024;

// Product of sizes; the largest integer where it does not fit, which no dimension has.
int64_t times(int64_t a, int64_t b) {
  int64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) ? INT64_MAX : out;
}

class Binder {
 public:
  Binder(const OpDef& def, const Attributes& attributes, std::span<const Type> operands, std::span<const Type> results,
         const Place& place)
      : def_(def), attributes_(attributes), place_(place) {
    const std::string text = rule_text(def, attributes, operands, place);
    label_ = std::string(def.name);
    if (text != def.rule) label_ += " " + quote(text);
    rule_ = Rule::parse(text, place);
    if (rule_.operands.size() != operands.size()) {
      fail(fmt::format(" takes {} operand{}, got {}", rule_.operands.size(), rule_.operands.size() == 1 ? "" : "s",
                       operands.size()));
    }
    if (static_cast<int>(rule_.results.size()) != def.results) {
      fail(fmt::format(": the rule has {} results, {} has {}", rule_.results.size(), def.name, def.results));
    }
    MESHARD_CHECK(results.empty() || results.size() == rule_.results.size(),
                  "types are given for all results or for none");
    for (size_t i = 0; i < operands.size(); ++i) {
      tensors_.push_back({&rule_.operands[i], &operands[i], fmt::format("operand {}", i)});
    }
    for (size_t r = 0; r < rule_.results.size(); ++r) {
      const std::string name = rule_.results.size() == 1 ? "the result" : fmt::format("result {}", r);
      tensors_.push_back({&rule_.results[r], results.empty() ? nullptr : &results[r], name, true});
    }
  }

  BoundRule run() {
    find_leading();
    for (Tensor& t : tensors_) check_rank(t);
    for (const Tensor& t : tensors_) number_factors(t);
    where_.resize(out_.factors.size());
    for (const std::string& name : rule_.whole) mark(name, &Factor::whole);
    for (const std::string& name : rule_.lower) mark(name, &Factor::lower);
    sizes_from_attributes();
    for (const auto& [name, size] : rule_.sizes) {
      Factor& f = factor(name);
      if (size < 0) fail(fmt::format(": the size of {} would be {}", name, size));
      f.size = size;
      where_[static_cast<size_t>(&f - out_.factors.data())] = "the op's rule";
    }
    for (int i = 0; i < leading_; ++i) leading_size(i);
    for (const Tensor& t : tensors_) single_sizes(t);
    while (compound_sizes()) {
    }
    for (const Factor& f : out_.factors) {
      if (f.size != kUnknown) continue;
      if (f.name.starts_with("...")) fail(": the type of the result must be given");
      fail(fmt::format(": the size of {} does not follow from the operands; give it as an attribute, {{{} = ...}}",
                       f.name, f.name));
    }
    for (const Tensor& t : tensors_) {
      for (size_t d : t.term->halos) {
        // "..." before it stands for more or fewer dimensions than are written.
        const bool behind = t.has_leading() && leading_at(t) < d;
        const int dim = static_cast<int>(d) + (behind ? t.leading - 1 : 0);
        out_.halos.push_back({static_cast<int>(out_.operands.size()), dim, number(t.term->dims[d][0])});
      }
      (t.result ? out_.results : out_.operands).push_back(dims(t));
    }
    out_.zero = def_.zero_if_value0 && attributes_.number("value") == 0;
    return std::move(out_);
  }

 private:
  struct Tensor {
    const Rule::Term* term;
    const Type* type;  // nullptr: not given
    std::string name;  // "operand 0", "the result", "result 1"
    bool result = false;
    int leading = 0;  // dimensions that its "..." stands for

    bool has_leading() const {
      return std::any_of(term->dims.begin(), term->dims.end(), [](const auto& dim) { return is_leading(dim); });
    }
    int written() const { return static_cast<int>(term->dims.size()) - (has_leading() ? 1 : 0); }
    std::string str() const { return name + (type ? " " + type->str() : ""); }
  };

  static bool is_leading(const std::vector<std::string>& dim) { return dim.size() == 1 && dim[0] == "..."; }

  [[noreturn]] void fail(const std::string& text) const { throw UserError(place_, label_ + text); }

  Factor& factor(std::string_view name) {
    for (Factor& f : out_.factors) {
      if (f.name == name) return f;
    }
    if (out_.factors.size() == kMostFactors) fail(fmt::format(": a rule has at most {} factors", kMostFactors));
    return out_.factors.emplace_back(Factor{std::string(name), kUnknown});
  }
  int number(std::string_view name) { return static_cast<int>(&factor(name) - out_.factors.data()); }
  static std::string leading_name(int i) { return fmt::format("...{}", i); }

  // How many dimensions "..." stands for: the most that an operand has; where no operand has any, as many as the
  // result.
  void find_leading() {
    bool in_operands = false;
    for (const Tensor& t : tensors_) {
      if (!t.has_leading() || t.type == nullptr || (t.result && in_operands)) continue;
      in_operands = in_operands || !t.result;
      leading_ = std::max(leading_, t.type->shape.rank() - t.written());
    }
    if (in_operands) return;
    for (const Tensor& t : tensors_) {
      if (t.has_leading() && t.type == nullptr) fail(": the type of the result must be given");
    }
  }

  void check_rank(Tensor& t) const {
    t.leading = t.has_leading() ? leading_ : 0;
    if (t.type == nullptr) return;
    const int rank = t.type->shape.rank();
    const bool least = t.has_leading() && !t.result && (def_.repeats || leading_ == 0);
    if (!least && t.has_leading() && !t.result && rank < t.written() + leading_) lacks_dimensions(t);
    if (least ? rank >= t.written() : rank == t.written() + t.leading) {
      t.leading = rank - t.written();
      return;
    }
    const int expected = least ? t.written() : t.written() + t.leading;
    const Rule term{{}, {*t.term}, {}, {}};
    fail(fmt::format(": {} has {} dimension{}, the rule expects {}{}: \"{}\"", t.str(), rank, rank == 1 ? "" : "s",
                     least ? "at least " : "", expected, term.str().substr(4)));
  }

  [[noreturn]] void lacks_dimensions(const Tensor& t) const {
    const auto most = std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensor& o) {
      return o.has_leading() && o.type != nullptr && o.type->shape.rank() - o.written() == leading_;
    });
    fail(fmt::format(": {} lacks dimensions of {}, and {} repeats none; broadcast it first", t.str(), most->str(),
                     def_.name));
  }

  void number_factors(const Tensor& t) {
    for (const auto& dim : t.term->dims) {
      if (is_leading(dim)) {
        for (int i = 0; i < leading_; ++i) factor(leading_name(i));
      } else {
        for (const std::string& name : dim) factor(name);
      }
    }
  }

  void mark(const std::string& name, bool Factor::*what) {
    if (name != "...") {
      factor(name).*what = true;
      return;
    }
    for (int i = 0; i < leading_; ++i) factor(leading_name(i)).*what = true;
  }

  void sizes_from_attributes() {
    for (size_t i = 0; i < out_.factors.size(); ++i) {
      Factor& f = out_.factors[i];
      const Attribute* value = attributes_.find(f.name);
      if (value == nullptr || !std::holds_alternative<int64_t>(*value)) continue;
      f.size = std::get<int64_t>(*value);
      if (f.size < 0) fail(fmt::format(": attribute {} is {}; a size is 0 or more", f.name, f.size));
      where_[i] = "its attribute";
    }
  }

  // Calls f(dimension, names) for each dimension that the rule writes out; "..." is skipped.
  template <class F>
  void each_dim(const Tensor& t, F f) const {
    int d = 0;
    for (const auto& dim : t.term->dims) {
      if (is_leading(dim)) {
        d += t.leading;
      } else {
        f(d++, dim);
      }
    }
  }

  // The dimension of t that position i of "..." is, -1: it lacks it.
  int leading_dim(const Tensor& t, int i) const {
    if (!t.has_leading()) return -1;
    const int from_first = i - (leading_ - t.leading);
    return from_first < 0 ? -1 : static_cast<int>(leading_at(t)) + from_first;
  }

  // Where "..." stands.
  static size_t leading_at(const Tensor& t) {
    const auto at =
        std::find_if(t.term->dims.begin(), t.term->dims.end(), [](const auto& dim) { return is_leading(dim); });
    return static_cast<size_t>(at - t.term->dims.begin());
  }
  static bool is_halo(const Tensor& t, const std::vector<std::string>& dim) {
    const auto d = static_cast<size_t>(&dim - t.term->dims.data());
    return std::find(t.term->halos.begin(), t.term->halos.end(), d) != t.term->halos.end();
  }

  // Sizes differ only where one is 1; results are as large as the operands say, or as given where no operand has "...".
  void leading_size(int i) {
    Factor& f = factor(leading_name(i));
    const Tensor* from = nullptr;
    for (const Tensor& t : tensors_) {
      const int d = leading_dim(t, i);
      if (d < 0 || t.type == nullptr) continue;
      const int64_t size = t.type->shape[d];
      if (from == nullptr || (def_.repeats && f.size == 1 && !t.result)) {
        f.size = size;
        from = &t;
      } else if (size != f.size && (size != 1 || t.result || !def_.repeats)) {
        leading_conflict(*from, leading_dim(*from, i), t, d);
      }
    }
  }

  [[noreturn]] void leading_conflict(const Tensor& a, int da, const Tensor& b, int db) const {
    const int64_t x = a.type->shape[da], y = b.type->shape[db];
    const bool repeated = !def_.repeats && !b.result && (x == 1 || y == 1);
    const std::string remedy = repeated ? fmt::format("; {} repeats none: broadcast it first", def_.name) : "";
    if (da == db) fail(fmt::format(": dimension {} is {} in {} but {} in {}{}", da, x, a.str(), y, b.str(), remedy));
    fail(fmt::format(": dimension {} of {} is {} but dimension {} of {} is {}{}", da, a.str(), x, db, b.str(), y, remedy));
  }

  void single_sizes(const Tensor& t) {
    if (t.type == nullptr) return;
    each_dim(t, [&](int d, const std::vector<std::string>& names) {
      const int64_t size = t.type->shape[d];
      if (names.empty() && size != 1)
        fail(fmt::format(": dimension {} of {} is {}, the rule says 1", d, t.str(), size));
      if (names.size() != 1 || is_halo(t, names)) return;
      const auto f = static_cast<size_t>(number(names[0]));
      const std::string here = fmt::format("{} dimension {}", t.name, d);
      if (out_.factors[f].size == kUnknown) {
        out_.factors[f].size = size;
        where_[f] = here;
      } else if (out_.factors[f].size != size) {
        fail(fmt::format(": factor {} is {} {} {} but {} in {}", names[0], out_.factors[f].size,
                         where_[f] == "its attribute" ? "by" : "in", where_[f], size, here));
      }
    });
  }

  // One round over dimensions of several factors; true if it found a size.
  bool compound_sizes() {
    bool found = false;
    for (const Tensor& t : tensors_) {
      if (t.type == nullptr) continue;
      each_dim(t, [&](int d, const std::vector<std::string>& names) {
        if (names.size() < 2) return;
        const int64_t size = t.type->shape[d];
        int64_t known = 1;
        std::vector<std::string> sizes;
        Factor* unknown = nullptr;
        int unknowns = 0;
        for (const std::string& name : names) {
          Factor& f = factor(name);
          sizes.push_back(f.size == kUnknown ? name : std::to_string(f.size));
          if (f.size == kUnknown) {
            unknown = &f;
            ++unknowns;
          } else {
            known = times(known, f.size);
          }
        }
        const std::string parts = fmt::format("({}) = {}", absl::StrJoin(names, " "), absl::StrJoin(sizes, " x "));
        const bool zero = known == 0 && size == 0;
        if (unknowns == 0 && known != size) {
          fail(fmt::format(": dimension {} of {} is {}, but {} = {}", d, t.str(), size, parts, known));
        }
        if (unknowns > 0 && !zero && (known == 0 || size % known != 0)) {
          fail(fmt::format(": dimension {} of {} is {}, which is no multiple of {} in {}", d, t.str(), size, known,
                           parts));
        }
        if (unknowns != 1 || zero) return;
        unknown->size = size / known;
        where_[static_cast<size_t>(unknown - out_.factors.data())] = fmt::format("{} dimension {}", t.name, d);
        found = true;
      });
    }
    return found;
  }

  std::vector<BoundRule::Dim> dims(const Tensor& t) {
    std::vector<BoundRule::Dim> out;
    for (const auto& dim : t.term->dims) {
      if (!is_leading(dim)) {
        BoundRule::Dim& numbers = out.emplace_back();
        for (const std::string& name : dim) numbers.push_back(number(name));
        continue;
      }
      for (int i = leading_ - t.leading; i < leading_; ++i) {
        const int f = number(leading_name(i));
        const int d = leading_dim(t, i);
        // An operand of size 1 that is repeated has no factor there.
        const bool repeated = !t.result && t.type->shape[d] == 1 && out_.factors[static_cast<size_t>(f)].size != 1;
        out.push_back(repeated ? BoundRule::Dim{} : BoundRule::Dim{f});
      }
    }
    return out;
  }

  const OpDef& def_;
  const Attributes& attributes_;
  const Place& place_;
  std::string label_;
  Rule rule_;
  std::vector<Tensor> tensors_;
  int leading_ = 0;
  BoundRule out_;
  std::vector<std::string> where_;  // of each factor: what said its size
};

}  // namespace

std::string rule_text(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                      const Place& place) {
  if (def.rule_for != nullptr) {
    try {
      return def.rule_for(operands, attributes);
    } catch (const UserError& error) {
      if (error.diagnostic().place.known()) throw;
      throw UserError(place, error.diagnostic().text, error.diagnostic().notes);
    }
  }
  if (!def.rule.empty()) return std::string(def.rule);
  std::string_view text = attributes.text("rule");
  for (const AttributeSpec& spec : def.attributes) {
    if (spec.name == "rule" && !spec.required && text.empty()) text = std::get<std::string>(spec.otherwise);
  }
  if (text.empty()) throw UserError(place, fmt::format("{} needs the attribute rule", def.name));
  return std::string(text);
}

BoundRule bind_rule(const OpDef& def, const Attributes& attributes, std::span<const Type> operands,
                    std::span<const Type> results, const Place& place) {
  return Binder(def, attributes, operands, results, place).run();
}

}  // namespace meshard
