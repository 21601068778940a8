#include "meshard/ir/verify.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/runs.h"
#include "meshard/ir/signature.h"
#include "meshard/ir/verify_local.h"

namespace meshard {
namespace {

// Index in Function::ops of the op that does something to a value; kNever: none does. The end of the function counts as
// an op after the last.
constexpr int kNever = -1;

class Verifier {
 public:
  Verifier(const Program& program, Level level) : program_(program), level_(level) {}

  void run() {
    MESHARD_CHECK(program_.table != nullptr, "a program has no table of ops");
    MESHARD_CHECK(!program_.functions.empty(), "a program has no function");
    if (level_ != Level::traced && !program_.mesh) throw UserError("the program has no mesh line; layouts need one");
    absl::flat_hash_set<absl::string_view> functions;  // only looked up
    for (size_t i = 0; i < program_.functions.size(); ++i) {
      f_ = &program_.functions[i];
      MESHARD_CHECK(!split_name(f_->name).empty(), fmt::format("\"{}\" is no name of a function", f_->name));
      MESHARD_CHECK(functions.insert(f_->name).second, fmt::format("two functions are called {}", f_->name));
      function(static_cast<int>(i));
    }
  }

 private:
  // What is known of a value while the ops are gone through.
  struct State {
    int made = kNever;  // -1 for parameters too
    bool exists = false;
    int started = kNever;  // by a collective that wants a wait
    bool waited = false;
    int gone = kNever;     // from the op after this one on nobody may read it
    std::string taken_by;  // what took its memory, for messages
    int last_read = kNever;
    ValueId origin = ValueId::none;  // in whose memory it lies: the first argument of a chain of in-place calls
  };

  struct Inlined {
    int64_t ops = 0, runs = 0;
  };

  const ValueInfo& value(ValueId v) const { return f_->value(v); }
  State& state(ValueId v) { return states_[index(v)]; }
  std::string name(ValueId v) const { return "%" + value(v).name; }
  const Function& callee(const Op& op) const { return program_.functions[static_cast<size_t>(op.callee)]; }
  static bool is_call(const Op& op) { return op.kind == Op::call || op.kind == Op::repeat; }

  [[noreturn]] void fail(const Op& op, std::string text) const {
    throw UserError(op.source, std::move(text), {print_op(program_, *f_, op)});
  }
  [[noreturn]] void fail(const Place& place, std::string text) const { throw UserError(place, std::move(text)); }

  void function(int self) {
    states_.assign(f_->values.size(), {});
    names_.clear();
    names_.reserve(f_->values.size());
    holders_.clear();
    structure(self);
    std::vector<int>& numbers = param_numbers_.emplace_back(f_->values.size(), -1);
    for (size_t p = f_->params.size(); p-- > 0;) numbers[index(f_->params[p])] = static_cast<int>(p);
    returned_in_place_.assign(f_->values.size(), false);
    for (const Return& r : f_->returns) {
      if (r.in_place != ValueId::none) returned_in_place_[index(r.in_place)] = true;
    }
    for (size_t p = 0; p < f_->params.size(); ++p) parameter(p);
    for (size_t i = 0; i < f_->ops.size(); ++i) op(f_->ops[i], static_cast<int>(i));
    returns();
    memory();
    count_inlined();
    for (const Op& op : f_->ops) {
      if (op.start && !state(op.results[0]).waited)
        fail(op, fmt::format("{} is started, but nobody waits for it", name(op.results[0])));
    }
  }

  // --- what no text can have wrong

  void check_id(ValueId v) const {
    MESHARD_CHECK(v != ValueId::none && index(v) < f_->values.size(),
                  fmt::format("func {}: an id is out of range", f_->name));
  }

  void structure(int self) const {
    MESHARD_CHECK(f_->params.size() == f_->param_info.size(),
                  fmt::format("func {}: parameters lack their infos", f_->name));
    for (ValueId p : f_->params) check_id(p);
    for (const ParamInfo& p : f_->param_info) {
      if (p.of != ValueId::none) check_id(p.of);
    }
    for (const Return& r : f_->returns) {
      check_id(r.value);
      if (r.in_place != ValueId::none) check_id(r.in_place);
    }
    for (const Op& op : f_->ops) {
      MESHARD_CHECK((op.kind == Op::apply) == (op.def != nullptr),
                    fmt::format("func {}: only what is applied has a definition", f_->name));
      MESHARD_CHECK(!is_call(op) || (op.callee >= 0 && op.callee < self),
                    fmt::format("func {} calls no function above it", f_->name));
      for (size_t i = 0; i < op.operands.size(); ++i) {
        const bool round = op.kind == Op::repeat && static_cast<int>(i) == op.index_operand;
        MESHARD_CHECK(!round || op.operands[i] == ValueId::none,
                      fmt::format("func {}: a round's number is given a value", f_->name));
        if (!round) check_id(op.operands[i]);
      }
      for (ValueId v : op.results) check_id(v);
      MESHARD_CHECK(op.kind != Op::wait || (op.operands.size() == 1 && op.results.empty()),
                    "a wait has one operand and no result");
    }
  }

  void make(ValueId v, int op) {
    const ValueInfo& info = value(v);
    MESHARD_CHECK(!state(v).exists, fmt::format("func {}: {} is made twice", f_->name, name(v)));
    MESHARD_CHECK(info.op == op,
                  fmt::format("func {}: {} is made by op {}, but says {}", f_->name, name(v), op, info.op));
    MESHARD_CHECK(is_value_name(info.name), fmt::format("\"{}\" is no name of a value", info.name));
    MESHARD_CHECK(names_.insert(info.name).second,
                  fmt::format("func {}: two values are called {}", f_->name, name(v)));
    state(v).exists = true;
    state(v).made = op;
    layout(v);
  }

  void layout(ValueId v) const {
    const ValueInfo& info = value(v);
    const auto place = [&] { return fmt::format("{} {}", name(v), info.type.str()); };
    if (!info.layout) {
      if (level_ != Level::traced) fail(info.source, fmt::format("{} has no layout", place()));
      return;
    }
    if (!program_.mesh) fail(info.source, fmt::format("{} has a layout, but the program has no mesh line", place()));
    MESHARD_CHECK(info.layout->rank() == info.type.shape.rank(),
                  fmt::format("the layout of {} has another rank", place()));
    AtomSet seen;
    const auto use = [&](AtomId a) {
      MESHARD_CHECK(a < program_.mesh->atom_count() && !seen.has(a),
                    fmt::format("the layout of {} uses an axis twice or one that is none", place()));
      seen.add(a);
    };
    for (const DimLayout& d : info.layout->dims) std::for_each(d.atoms.begin(), d.atoms.end(), use);
    for (AtomSet pending : info.layout->pending) {
      for (AtomId a : pending.list()) use(a);
    }
    if (level_ != Level::traced && info.layout->has_open()) {
      fail(info.source, fmt::format("the layout of {} is open: {}", place(), info.layout->str(*program_.mesh)));
    }
  }

  // --- parameters

  void parameter(size_t p) {
    const ValueId v = f_->params[p];
    const ParamInfo& info = f_->param_info[p];
    make(v, -1);
    MESHARD_CHECK(value(v).below >= 0 && (value(v).below == 0 || !is_float(value(v).type.dtype)),
                  fmt::format("the bound of {} is none", name(v)));
    MESHARD_CHECK(info.kind == ParamInfo::state || info.of == ValueId::none, fmt::format("{} is no state", name(v)));
    if (info.of == ValueId::none) return;
    const int of = param_number(info.of);
    if (of < 0 || f_->param_info[static_cast<size_t>(of)].kind != ParamInfo::param) {
      fail(value(v).source, fmt::format("{} is the state of {}, which is no param", name(v), name(info.of)));
    }
  }

  // --- ops

  void op(const Op& op, int i) {
    for (ValueId v : op.operands) {
      if (v != ValueId::none) read(op, v, i);
    }
    guard(op);
    switch (op.kind) {
      case Op::apply:
        apply(op);
        break;
      case Op::call:
      case Op::repeat:
        call(op, i);
        break;
      case Op::wait:
        wait(op);
        break;
    }
    for (ValueId v : op.results) make(v, i);
    if (op.start) {
      for (ValueId v : op.results) state(v).started = i;
    }
    if (level_ == Level::local) verify_local(program_, *f_, op);
  }

  void read(const Op& op, ValueId v, int i) {
    State& s = state(v);
    MESHARD_CHECK(s.exists, fmt::format("func {}: {} is read before it is made", f_->name, name(v)));
    if (op.kind != Op::wait && s.started != kNever && !s.waited) {
      fail(op, fmt::format("{} is read before the wait for it", name(v)));
    }
    if (s.gone != kNever) fail(op, fmt::format("{} is read after {} took over its memory", name(v), s.taken_by));
    s.last_read = i;
  }

  void guard(const Op& op) const {
    AtomSet unused;
    for (size_t g = 0; g < op.guard.size(); ++g) {
      const auto& [axis, coordinate] = op.guard[g];
      if (!program_.mesh) fail(op, "a guard needs a mesh line");
      MESHARD_CHECK(axis >= 0 && static_cast<size_t>(axis) < program_.mesh->axes().size(),
                    "a guard names an axis that is none");
      const Axis& a = program_.mesh->axes()[static_cast<size_t>(axis)];
      if (coordinate < 0 || coordinate >= a.size) {
        fail(op, fmt::format("{}={} is outside of mesh {}", a.name, coordinate, program_.mesh->str()));
      }
      for (size_t h = 0; h < g; ++h) {
        if (op.guard[h].first == axis) fail(op, fmt::format("the guard names axis {} twice", a.name));
      }
    }
  }

  std::vector<Type> types(const std::vector<ValueId>& values) const {
    std::vector<Type> out;
    for (ValueId v : values) out.push_back(value(v).type);
    return out;
  }

  // An error that knows no place gets the op's, and any gets its text.
  template <class Body>
  auto with_op(const Op& op, Body body) const -> decltype(body()) {
    try {
      return body();
    } catch (const UserError& error) {
      fail(op, error.diagnostic().text);
    }
  }

  void apply(const Op& op) const {
    const size_t wanted = op.def->collective ? op.operands.size() : static_cast<size_t>(op.def->results);
    MESHARD_CHECK(op.results.size() == wanted && (!op.def->collective || wanted > 0),
                  fmt::format("{} has another number of results", op.def->name));
    MESHARD_CHECK(op.def->collective || (!op.start && op.over.empty()),
                  fmt::format("{} is no collective", op.def->name));
    MESHARD_CHECK(!op.def->collective || op.attributes.empty(),
                  fmt::format("{} has attributes, which are not printed", op.def->name));
    const std::vector<Type> written = types(op.results);
    const std::vector<Type>& found =
        with_op(op, [&]() -> const Signature& { return signature(program_, *f_, op); }).results;
    for (size_t r = 0; r < written.size(); ++r) {
      if (found[r] != written[r]) {
        fail(op, fmt::format("{} gives {} as result {}, but {} is {}", op.def->name, found[r].str(), r,
                             name(op.results[r]), written[r].str()));
      }
    }
  }

  void call(const Op& op, int i) {
    const Function& g = callee(op);
    MESHARD_CHECK(op.operands.size() == g.params.size() && op.results.size() == g.returns.size(),
                  fmt::format("a call of {} has another number of values", g.name));
    const auto what = [&] { return op.prefix.empty() ? g.name : fmt::format("{} as {}", g.name, op.prefix); };
    for (size_t a = 0; a < op.operands.size(); ++a) {
      const ValueInfo& parameter = g.value(g.params[a]);
      if (op.operands[a] == ValueId::none) {
        if (parameter.type != Type{Dtype::i32, {}}) {
          fail(op, fmt::format("%{} of func {} gets the number of the round and must be i32[], but is {}",
                               parameter.name, g.name, parameter.type.str()));
        }
        continue;
      }
      const ValueInfo& argument = value(op.operands[a]);
      if (argument.type != parameter.type) {
        fail(op, fmt::format("%{} of func {} is {}, but {} is {}", parameter.name, g.name, parameter.type.str(),
                             name(op.operands[a]), argument.type.str()));
      }
      if (level_ == Level::local && *argument.layout != *parameter.layout) {
        fail(op, fmt::format("%{} of func {} is {}, but {} is {}", parameter.name, g.name,
                             parameter.layout->str(*program_.mesh), name(op.operands[a]),
                             argument.layout->str(*program_.mesh)));
      }
    }
    for (size_t r = 0; r < op.results.size(); ++r) {
      const ValueInfo& returned = g.value(g.returns[r].value);
      const ValueInfo& result = value(op.results[r]);
      MESHARD_CHECK(result.type == returned.type,
                    fmt::format("{}: {} has another type than %{}", what(), name(op.results[r]), returned.name));
      MESHARD_CHECK(level_ != Level::local || result.layout == returned.layout,
                    fmt::format("{}: {} has another layout than %{}", what(), name(op.results[r]), returned.name));
      // The text of a call does not name its results.
      MESHARD_CHECK(result.name == join_name(op.prefix, base_name(returned.name)),
                    fmt::format("{}: result %{} is called {}", what(), returned.name, name(op.results[r])));
      const ValueId place = g.returns[r].in_place;
      const std::vector<int>& numbers = param_numbers_[static_cast<size_t>(op.callee)];
      if (place != ValueId::none) overwrite(op, i, numbers[index(place)], op.results[r]);
    }
    if (op.kind == Op::repeat && op.count < 1)
      fail(op, fmt::format("repeat {}: a call is repeated once or more", op.count));
  }

  // The call puts `result` where its argument `a` was.
  void overwrite(const Op& op, int i, int a, ValueId result) {
    const ValueId argument = op.operands[static_cast<size_t>(a)];
    if (argument == ValueId::none) fail(op, "the number of the round is overwritten in func " + callee(op).name);
    if (std::count(op.operands.begin(), op.operands.end(), argument) > 1) {
      fail(op, fmt::format("{} is passed twice, and {} takes over its memory", name(argument), name(result)));
    }
    take(argument, i, name(result));
    state(result).origin = origin(argument);
    holders_[index(origin(argument))].push_back(result);
    // What is read again from the outside must be returned in place too.
    if (param_number(argument) < 0) return;
    if (!returned_in_place_[index(argument)]) {
      fail(op, fmt::format("{} takes over the memory of {}, a parameter that func {} does not return in place",
                           name(result), name(argument), f_->name));
    }
  }

  int param_number(ValueId v) const { return param_numbers_.back()[index(v)]; }

  ValueId origin(ValueId v) { return state(v).origin == ValueId::none ? v : state(v).origin; }

  void take(ValueId v, int i, std::string by) {
    state(v).gone = i;
    state(v).taken_by = std::move(by);
  }

  void wait(const Op& op) {
    State& s = state(op.operands[0]);
    if (s.started == kNever)
      fail(op, fmt::format("{} is not started: there is nothing to wait for", name(op.operands[0])));
    if (s.waited) fail(op, fmt::format("{} is waited for twice", name(op.operands[0])));
    const Op& started = f_->ops[static_cast<size_t>(s.started)];
    if (started.results[0] != op.operands[0]) {
      fail(op, fmt::format("{} comes with {}: wait for that one, the first of the message", name(op.operands[0]),
                           name(started.results[0])));
    }
    for (ValueId v : started.results) state(v).waited = true;
  }

  // A device runs main with its calls written out, a loop's body once.
  void count_inlined() {
    constexpr int64_t kMost = int64_t{1} << 24, kMostRuns = int64_t{1} << 62;
    Inlined& sum = inlined_.emplace_back();
    for (const Op& op : f_->ops) {
      const Inlined inner = op.callee < 0 ? Inlined() : inlined_[static_cast<size_t>(op.callee)];
      sum.ops += 1 + inner.ops;
      if (sum.ops > kMost)
        fail(op, fmt::format("with its calls written out func {} has more than 2^24 ops", f_->name));
      int64_t runs = 0;
      if (__builtin_mul_overflow(std::max<int64_t>(1, inner.runs), op.count, &runs) ||
          __builtin_add_overflow(sum.runs, runs, &sum.runs) || sum.runs > kMostRuns) {
        fail(op, fmt::format("func {} runs more than 2^62 ops", f_->name));
      }
    }
  }

  // --- returns and memory

  void returns() {
    std::vector<bool> taken(f_->values.size(), false);
    std::vector<int> given(f_->values.size(), 0);  // in place of how many parameters each value is returned
    for (const Return& r : f_->returns) given[index(r.value)] += r.in_place != ValueId::none;
    for (const Return& r : f_->returns) {
      const ValueInfo& info = value(r.value);
      MESHARD_CHECK(state(r.value).exists,
                    fmt::format("func {}: {} is returned but not made", f_->name, name(r.value)));
      if (state(r.value).started != kNever && !state(r.value).waited) {
        fail(info.source, fmt::format("{} is returned before the wait for it", name(r.value)));
      }
      if (r.in_place == ValueId::none) continue;
      const ValueInfo& parameter = value(r.in_place);
      MESHARD_CHECK(param_number(r.in_place) >= 0, fmt::format("{} is no parameter", name(r.in_place)));
      const auto both = [&](const std::string& a, const std::string& b) {
        return fmt::format("{} is returned in place of {}, but is {} and not {}", name(r.value), name(r.in_place), a,
                           b);
      };
      if (info.type != parameter.type) fail(info.source, both(info.type.str(), parameter.type.str()));
      if (level_ == Level::local && *info.layout != *parameter.layout) {
        fail(info.source, both(info.layout->str(*program_.mesh), parameter.layout->str(*program_.mesh)));
      }
      if (r.value == r.in_place) continue;
      if (param_number(r.value) >= 0) {
        fail(info.source, fmt::format("{} is returned in place of {}, but is a parameter: it has memory of its own",
                                      name(r.value), name(r.in_place)));
      }
      if (taken[index(r.in_place)]) {
        fail(info.source, fmt::format("two values are returned in place of {}", name(r.in_place)));
      }
      taken[index(r.in_place)] = true;
      if (given[index(r.value)] > 1) fail(info.source, fmt::format("{} is returned in place of two parameters", name(r.value)));
    }
    for (const Return& r : f_->returns) {
      if (taken[index(r.value)] || state(r.value).gone != kNever)
        fail(value(r.value).source, fmt::format("{} is returned, but its memory was taken over", name(r.value)));
    }
  }

  // Nobody reads what lies in a parameter's memory after the value that is returned there is made, nor does a started
  // collective.
  void memory() {
    for (const Return& r : f_->returns) {
      if (r.in_place == ValueId::none || r.in_place == r.value) continue;
      const ValueId from = origin(r.value);
      if (param_number(from) >= 0 && from != r.in_place) {
        fail(value(r.value).source, fmt::format("{} is returned in place of {}, but lies in the memory of {}",
                                                name(r.value), name(r.in_place), name(from)));
      }
      const int made = value(from == r.in_place ? r.value : from).op;
      std::vector<ValueId> before{r.in_place};
      if (const auto held = holders_.find(index(r.in_place)); held != holders_.end()) {
        before.insert(before.end(), held->second.begin(), held->second.end());
      }
      for (ValueId v : before) {
        if (v == r.value || state(v).last_read <= made) continue;
        fail(f_->ops[static_cast<size_t>(state(v).last_read)],
             fmt::format("{} is read after {} took over its memory", name(v), name(r.value)));
      }
      if (state(r.in_place).gone == kNever) take(r.in_place, made, name(r.value));
    }
    std::vector<int> waits(f_->values.size(), kNever);
    for (size_t i = 0; i < f_->ops.size(); ++i) {
      if (f_->ops[i].kind == Op::wait) waits[index(f_->ops[i].operands[0])] = static_cast<int>(i);
    }
    for (size_t i = 0; i < f_->ops.size(); ++i) {
      const Op& op = f_->ops[i];
      if (!op.start) continue;
      for (ValueId v : op.operands) {
        const State& source = state(v);
        if (source.gone == kNever || source.gone < static_cast<int>(i)) continue;
        if (source.gone >= waits[index(op.results[0])]) continue;
        fail(op, fmt::format("{} takes over the memory of {} before the wait for {}", source.taken_by, name(v),
                             name(op.results[0])));
      }
    }
  }

  const Program& program_;
  Level level_;
  const Function* f_ = nullptr;
  std::vector<State> states_;
  absl::flat_hash_set<absl::string_view> names_;  // only looked up
  std::vector<std::vector<int>> param_numbers_;  // of each function so far: which parameter each value is, or -1
  std::vector<Inlined> inlined_;                 // of each function so far
  std::vector<bool> returned_in_place_;          // of each value of the function: something is returned in its place
  // By value: what in-place calls put into its memory; only looked up.
  absl::flat_hash_map<size_t, std::vector<ValueId>> holders_;
};

}  // namespace

void verify(const Program& program, Level level) { Verifier(program, level).run(); }

}  // namespace meshard
