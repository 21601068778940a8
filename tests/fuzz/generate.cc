#include "generate.h"

#include <fmt/format.h>

#include <cmath>

#include "interpret.h"
#include "meshard/autodiff/differentiate.h"
#include "meshard/ops/functions.h"
#include "propose.h"

namespace meshard::fuzz {
namespace {

// There is nothing to differentiate, or an op on the way has no gradient.
struct NoGradient {};

constexpr double kLargest = 1000;  // of any value: what is larger hides small errors

// A value that ops may read, and what it is on the data of the check.
struct Known {
  Value value;
  Array array;
};

struct Shared {
  Rng& rng;
  const Proposer& proposer;
  Trace& trace;
  CheckOptions data;
  Dtype dtype;
  bool backward;
  std::vector<int> functions;  // to call, as indices in the program that is being built
  int calls = 0;
};

// Builds one function.
class Maker {
 public:
  Maker(Shared& shared, int function) : s_(shared), rng_(shared.rng), builder_(shared.trace.builder(function)), is_main_(function == 0) {}

  void grow(int64_t steps) {
    for (int64_t made = 0, tries = 0; made < steps && tries < 200; ++tries) {
      const bool calls = !s_.functions.empty() && rng_.chance(is_main_ ? 25 : 10);
      made += (calls ? call() : op()) ? 1 : 0;
    }
  }

  void finish_function() {
    in_place_results();
    std::vector<Value> made = unread();
    rng_.shuffle(made);
    const auto results = std::min<size_t>(made.size(), static_cast<size_t>(rng_.between(1, 3)));
    for (size_t i = 0; i < results; ++i) result(made[i]);
  }

  void finish_main() {
    if (s_.backward) gradients_of_some();
    in_place_results();
    for (const Value& v : unread()) {
      if (function().returns.empty() || rng_.chance(80)) result(v);
    }
    for (const Known& k : pool_) {
      if (function().returns.empty() || rng_.chance(10)) result(k.value);
    }
  }

 private:
  Function& function() { return builder_.function(); }
  const ValueInfo& info(const Value& v) { return function().value(v.id()); }

  // A new parameter of the type; integers below `below`.
  Known param(const Type& type, int64_t below) {
    ParamInfo about;
    std::string name = fmt::format("{}{}", is_main_ ? "x" : "p", function().params.size());
    if (is_main_ && is_float(type.dtype) && rng_.chance(40)) {
      about.kind = ParamInfo::param;
      about.init = {Init::normal, 0.5};
      name[0] = 'w';
      std::vector<ValueId> params;
      for (size_t p = 0; p < function().params.size(); ++p) {
        if (function().param_info[p].kind == ParamInfo::param) params.push_back(function().params[p]);
      }
      if (!params.empty() && rng_.chance(15)) {
        about.kind = ParamInfo::state;
        about.of = rng_.pick(params);
        name[0] = 's';
      }
    }
    Known k{builder_.param(name, type, about, below), Array(type)};
    draw_value(info(k.value), about.kind, s_.data, k.array.view());
    pool_.push_back(k);
    return k;
  }

  // A value of the type that may still be read, or a new parameter.
  Known operand(const Type& type, int64_t below, int fresh_percent) {
    std::vector<const Known*> fit;
    for (const Known& k : pool_) {
      if (k.value.type() != type) continue;
      if (!is_float(type.dtype)) {
        // What a function gets differs from call to call: there only bounds count.
        if (info(k.value).op < 0 ? (info(k.value).below == 0 || info(k.value).below > below) : !is_main_) continue;
        const std::vector<double> numbers = k.array.numbers();
        if (std::any_of(numbers.begin(), numbers.end(), [&](double x) { return x < 0 || x >= static_cast<double>(below); })) continue;
      }
      fit.push_back(&k);
    }
    if (fit.empty() || rng_.chance(fresh_percent)) return param(type, is_float(type.dtype) ? 0 : below);
    return *rng_.pick(fit);
  }

  bool op() {
    std::vector<Type> types;
    for (const Known& k : pool_) types.push_back(k.value.type());
    const std::optional<Proposal> p = s_.proposer.propose(rng_, s_.dtype, types);
    if (!p) return false;
    Op op;
    op.def = p->def;
    op.attributes = p->attributes;
    std::vector<Value> operands;
    std::vector<Array> arrays;
    for (size_t i = 0; i < p->operands.size(); ++i) {
      const Known k = operand(p->operands[i], p->below[i], 10);
      operands.push_back(k.value);
      arrays.push_back(k.array);
    }
    const std::vector<Array> results = interpret_op(op, p->results, arrays);
    for (const Array& a : results) {
      if (!(a.largest() <= kLargest)) return false;  // parameters that were made for it stay
    }
    const std::vector<Value> made =
        builder_.apply(*p->def, operands, p->attributes, p->def->explicit_type ? p->results : std::vector<Type>{});
    for (size_t r = 0; r < made.size(); ++r) pool_.push_back({made[r], results[r]});
    return true;
  }

  bool call() {
    Program& program = s_.trace.building();
    Op op;
    op.kind = Op::call;
    op.callee = rng_.pick(s_.functions);
    const Function& callee = program.functions[static_cast<size_t>(op.callee)];
    if (&callee == &function()) return false;
    if (rng_.chance(40)) {
      op.kind = Op::repeat;
      op.count = rng_.between(1, 4);
    }
    std::vector<bool> overwritten(callee.params.size(), false);
    for (const Return& r : callee.returns) {
      if (r.in_place != ValueId::none) overwritten[static_cast<size_t>(callee.param_index(r.in_place))] = true;
    }
    // What is overwritten is passed once and read no more; a parameter would have to be returned in place too.
    std::vector<Known> taken(callee.params.size());
    for (size_t p = 0; p < taken.size(); ++p) {
      if (!overwritten[p]) continue;
      taken[p] = fresh_copy(callee.value(callee.params[p]).type);
      if (!taken[p].value) return false;
    }
    std::vector<Value> arguments;
    std::vector<Array> arrays;
    for (size_t p = 0; p < callee.params.size(); ++p) {
      const ValueInfo& parameter = callee.value(callee.params[p]);
      const bool number = parameter.type == Type{Dtype::i32, {}} && (parameter.below == 0 || parameter.below >= op.count);
      if (op.kind == Op::repeat && op.index_operand < 0 && number && !overwritten[p] && rng_.chance(70)) {
        op.index_operand = static_cast<int>(p);
        arguments.emplace_back();
        arrays.emplace_back();
        continue;
      }
      const int64_t below = is_float(parameter.type.dtype) ? 0 : parameter.below > 0 ? parameter.below : 2;
      const Known k = overwritten[p] ? taken[p] : operand(parameter.type, below, 10);
      arguments.push_back(k.value);
      arrays.push_back(k.array);
    }
    std::vector<Array> results = op.kind == Op::call ? interpret(program, op.callee, arrays) : interpret_repeat(program, op, arrays);
    for (const Array& a : results) {
      if (!(a.largest() <= kLargest)) return false;
    }
    const std::string prefix = fmt::format("c.{}", s_.calls++);
    const std::vector<Value> made = op.kind == Op::call
                                        ? builder_.call(op.callee, prefix, arguments)
                                        : builder_.repeat(op.callee, prefix, op.count, arguments, op.index_operand);
    for (size_t r = 0; r < made.size(); ++r) pool_.push_back({made[r], results[r]});
    return true;
  }

  // A value made here that nobody has read, taken out of the pool; none: there is none.
  Known fresh_copy(const Type& type) {
    const std::vector<std::vector<int>> readers = users(function());
    for (size_t i = pool_.size(); i-- > 0;) {
      if (pool_[i].value.type() != type || info(pool_[i].value).op < 0) continue;
      if (!readers[index(pool_[i].value.id())].empty() && rng_.chance(50)) continue;
      if (has_role(pool_[i].value.id())) continue;
      Known k = pool_[i];
      pool_.erase(pool_.begin() + static_cast<std::ptrdiff_t>(i));
      return k;
    }
    return {};
  }

  // Whether a role or reshard gives it another name, or made it: what has two names is not overwritten.
  bool has_role(ValueId v) {
    return std::any_of(function().ops.begin(), function().ops.end(), [&](const Op& op) {
      return op.kind == Op::apply && op.def->identity && (op.operands[0] == v || op.results[0] == v);
    });
  }

  void result(const Value& v, Value in_place = {}) {
    for (const Return& r : function().returns) {
      if (r.value == v.id() || r.in_place == v.id()) return;
    }
    if (in_place || !is_main_ || info(v).op >= 0) builder_.result(v, in_place);
  }

  // Values that are made after the last reading of a parameter take over its memory.
  void in_place_results() {
    const std::vector<std::vector<int>> readers = users(function());
    const size_t params = function().params.size();
    for (size_t p = 0; p < params; ++p) {
      const ValueId id = function().params[p];
      if (is_main_ && function().param_info[p].kind == ParamInfo::input) continue;
      if (has_role(id) || !rng_.chance(50)) continue;
      const int last = readers[index(id)].empty() ? -1 : readers[index(id)].back();
      for (size_t i = pool_.size(); i-- > 0;) {
        const Value v = pool_[i].value;
        const int made = info(v).op;
        if (v.type() != info(Value(&builder_, id)).type || made < 0 || made < last) continue;
        if (function().ops[static_cast<size_t>(made)].kind != Op::apply) continue;
        const size_t before = function().returns.size();
        result(v, Value(&builder_, id));
        if (function().returns.size() > before) break;
      }
    }
  }

  std::vector<Value> unread() {
    const std::vector<std::vector<int>> readers = users(function());
    std::vector<Value> out;
    for (const Known& k : pool_) {
      if (info(k.value).op >= 0 && readers[index(k.value.id())].empty()) out.push_back(k.value);
    }
    return out;
  }

  void gradients_of_some() {
    std::vector<Value> ends;
    for (const Value& v : unread()) {
      if (v.type().dtype == s_.dtype) ends.push_back(v);
    }
    std::vector<Value> wrt;
    for (size_t p = 0; p < function().params.size(); ++p) {
      const Value v(&builder_, function().params[p]);
      if (is_float(v.type().dtype) && rng_.chance(70)) wrt.push_back(v);
    }
    if (ends.empty() || wrt.empty()) throw NoGradient();
    rng_.shuffle(ends);
    Value loss;
    for (size_t i = 0; i < std::min<size_t>(ends.size(), 3); ++i) {
      const Value part = rng_.chance(50) ? sum_squares(ends[i]) : sum(ends[i]);
      loss = loss ? add(loss, part) : part;
    }
    std::vector<Value> found;
    try {
      found = gradients(s_.trace, loss.named("loss"), wrt);
    } catch (const UserError&) {
      throw NoGradient();
    }
    result(loss);
    // Functions and values have new numbers; what the reverse pass reads is read no more than once more here.
    pool_.clear();
    for (size_t i = 0; i < found.size(); ++i) {
      const int p = function().param_index(wrt[i].id());
      if (function().param_info[static_cast<size_t>(p)].kind == ParamInfo::param && rng_.chance(40)) {
        result(sub(wrt[i], scale(found[i], 0.1)), wrt[i]);
      } else {
        result(found[i]);
      }
    }
  }

  Shared& s_;
  Rng& rng_;
  Builder& builder_;
  bool is_main_;
  std::vector<Known> pool_;
};

Program trace_program(const OpTable& table, uint64_t seed, bool backward, CheckOptions& data) {
  const Proposer proposer(table);
  Rng rng(seed);
  data.seed = seed % 1000 + 1;
  data.whole_numbers = rng.chance(40);
  const Dtype dtype = rng.chance(70) ? Dtype::f64 : Dtype::f32;
  Trace trace(table, dtype);
  Shared shared{rng, proposer, trace, data, dtype, backward, {}};
  for (int64_t n = rng.below(3); n-- > 0;) {
    const int f = trace.add_function(fmt::format("f{}", shared.functions.size()));
    Maker maker(shared, f);
    maker.grow(rng.between(1, 5));
    maker.finish_function();
    if (!trace.building().functions[static_cast<size_t>(f)].returns.empty()) shared.functions.push_back(f);
  }
  Maker maker(shared, 0);
  maker.grow(rng.between(1, rng.chance(20) ? 20 : 9));
  maker.finish_main();
  Program program = trace.program();
  lay_out(rng, program);
  return program;
}

}  // namespace

Generated generate(const OpTable& table, uint64_t seed, bool backward) {
  Generated g;
  if (backward) {
    try {
      g.program = trace_program(table, seed, true, g.data);
      g.backward = true;
      return g;
    } catch (const NoGradient&) {
      g = {};
    }
  }
  g.program = trace_program(table, seed, false, g.data);
  return g;
}

}  // namespace meshard::fuzz
