#include "meshard/ir/parse.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "fmt/format.h"
#include "meshard/ir/runs.h"
#include "meshard/ir/signature.h"
#include "meshard/ir/text_reader.h"

namespace meshard {
namespace {

// Runs make long programs of short texts; what passes these bounds is a slip of the keyboard.
constexpr int64_t kMostValues = int64_t{1} << 20;    // and ops, in a program
constexpr int64_t kMostOperands = int64_t{1} << 23;  // in a program

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r";
  text.remove_prefix(std::min(text.find_first_not_of(kBlanks), text.size()));
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

class Parser : private TextReader {
 public:
  Parser(std::string_view text, std::string_view file, const OpTable& table) : TextReader(text, file) {
    program_.table = &table;
  }

  Program program() {
    preamble();
    program_.mesh = mesh_;
    while (!in_.at_end()) function();
    if (program_.functions.empty())
      in_.fail("the text has no function; a program needs at least one, and the last is main");
    if (!any_marked_) pin_all();
    return std::move(program_);
  }

 private:
  struct Argument {
    std::string value, first, last;  // "" where not written; may have "#"
    bool index = false;
    Place place;
  };

  Function& f() { return program_.functions.back(); }

  void pin_all() {
    for (Function& function : program_.functions) {
      for (ValueInfo& v : function.values) v.pinned = v.layout.has_value();
    }
  }

  // --- names

  ValueId find(std::string_view name, const Place& place) {
    const auto found = ids_.find(std::string(name));
    if (found != ids_.end()) return found->second;
    if (made_later(name, place)) in_.fail(place, fmt::format("%{} is read before it is made", name));
    std::vector<std::string> names;
    for (const ValueInfo& v : f().values) names.push_back(v.name);
    in_.fail(place, fmt::format("no value %{} in func {}{}", name, f().name, did_you_mean(name, names)));
  }

  // Whether a line below makes %name: it is on the left of "=" before the function ends.
  bool made_later(std::string_view name, const Place& place) const {
    int line = 0;
    for (std::string_view text : split_at(text_, '\n')) {
      text = trimmed(text);
      if (++line < place.line) continue;
      if (!text.empty() && text[0] == '}') return false;
      if (text.empty() || text[0] != '%') continue;
      for (std::string_view result : split_at(text.substr(0, text.find('=')), ',')) {
        if (trimmed(result) == fmt::format("%{}", name)) return true;
      }
    }
    return false;
  }

  ValueId make(ValueInfo info) {
    const auto [at, fresh] = ids_.try_emplace(info.name, static_cast<ValueId>(f().values.size()));
    if (!fresh) {
      const ValueInfo& before = f().value(at->second);
      in_.fail(info.source, fmt::format("%{} is made twice, first in line {}", info.name, before.source.line));
    }
    if (++values_ > kMostValues) in_.fail(info.source, fmt::format("the text makes more than {} values", kMostValues));
    f().values.push_back(std::move(info));
    return at->second;
  }

  // --- types

  static ValueInfo value_info(std::string name, const Typed& typed, int op, Place source) {
    return {std::move(name), typed.type, typed.layout, typed.marked, typed.below, op, std::move(source), typed.layout_place};
  }

  // --- functions

  void function() {
    const Place begun = in_.place();
    if (!in_.accept_word("func")) in_.fail(fmt::format("expected \"func\"; a text is a mesh line and functions"));
    const Place place = in_.place();
    try {
      const std::string name = function_name("the name of the function");
      const auto number = static_cast<int>(program_.functions.size());
      if (functions_.contains(name)) in_.fail(place, fmt::format("there are two functions {}", name));
      if (functions_.contains("main"))
        in_.fail(place, fmt::format("func {} stands after func main; main must be the last", name));
      functions_.emplace(name, number);
      program_.functions.emplace_back().name = name;
      ids_.clear();
      header();
      body();
    } catch (const UserError&) {
      if (!in_.at_end()) throw;
      const std::string name = program_.functions.empty() ? "" : " " + f().name;
      in_.fail(fmt::format("the text ends inside func{}, begun at line {}", name, begun.line));
    }
  }

  void header() {
    struct Entry {
      Typed typed;
      ParamInfo info;
    };
    std::vector<Entry> entries;
    std::vector<RunItem> items;
    in_.expect("(");
    bool more = !in_.looking_at(")");
    while (more) {
      RunItem item{.payload = entries.size(), .place = in_.place()};
      item.name = run_name();
      in_.expect(":");
      Entry& entry = entries.emplace_back();
      entry.typed = typed();
      if (in_.accept_word("param")) {
        entry.info.kind = ParamInfo::param;
      } else if (in_.accept_word("state")) {
        entry.info.kind = ParamInfo::state;
        if (in_.accept_word("of")) item.link = run_name();
      }
      if (entry.info.kind != ParamInfo::input && in_.accept_word("init")) entry.info.init = init();
      item.ends_run = in_.accept(";");
      items.push_back(std::move(item));
      more = items.back().ends_run || in_.accept(",");
    }
    in_.expect(")");
    const std::vector<RunItem> plain = expand(items);
    for (const RunItem& item : plain) {
      const Entry& entry = entries[item.payload];
      f().params.push_back(make(value_info(join_parts(item.name), entry.typed, -1, item.place)));
      f().param_info.push_back(entry.info);
    }
    // A state may stand before its parameter.
    for (size_t i = 0; i < plain.size(); ++i) {
      if (!plain[i].link.empty()) f().param_info[i].of = find(join_parts(plain[i].link), plain[i].place);
    }
    in_.expect("{");
  }

  std::vector<RunItem> expand(std::span<const RunItem> items) {
    return expand_runs(items, kMostValues - values_,
                       [&](const Place& place, std::string text) { in_.fail(place, std::move(text)); });
  }

  void body() {
    while (!in_.accept("}")) {
      if (in_.accept_word("return")) {
        returns();
        in_.expect("}");
        return;
      }
      statement();
    }
  }

  void returns() {
    std::vector<RunItem> items;
    do {
      RunItem item{.place = in_.place()};
      item.name = run_name();
      if (in_.accept("->")) item.link = run_name();
      item.ends_run = in_.accept(";");
      items.push_back(std::move(item));
    } while (items.back().ends_run || in_.accept(","));
    for (const RunItem& item : expand(items)) {
      Return& r = f().returns.emplace_back();
      r.value = find(join_parts(item.name), item.place);
      if (item.link.empty()) continue;
      r.in_place = find(join_parts(item.link), item.place);
      if (f().param_index(r.in_place) < 0) {
        in_.fail(item.place, fmt::format("%{} is no parameter of func {}: only a parameter's memory is taken over",
                                         join_parts(item.link), f().name));
      }
    }
  }

  // --- statements

  void statement() {
    const Place place = in_.place();
    Op op;
    op.source = place;
    if (in_.accept_word("call")) {
      op.kind = Op::call;
      call(std::move(op));
    } else if (in_.accept_word("repeat")) {
      op.kind = Op::repeat;
      const Place number = in_.place();
      op.count = in_.integer("how often");
      if (op.count < 1) in_.fail(number, fmt::format("repeat {}: a call is repeated once or more", op.count));
      if (!in_.accept_word("call")) in_.fail("expected \"call\": repeat 3 call micro as micro");
      call(std::move(op));
    } else if (in_.accept_word("wait")) {
      op.kind = Op::wait;
      const Place value = in_.place();
      op.operands = {find(plain_name(), value)};
      op.guard = guard();
      append(std::move(op));
    } else if (in_.peek() == '%') {
      apply(std::move(op));
    } else {
      in_.fail("expected a statement: %x = op ..., call, repeat, wait, return or \"}\"");
    }
  }

  void append(Op op) {
    operands_ += static_cast<int64_t>(op.operands.size());
    if (++ops_ > kMostValues || operands_ > kMostOperands) {
      in_.fail(op.source, fmt::format("the text makes more than {} ops or {} operands", kMostValues, kMostOperands));
    }
    f().ops.push_back(std::move(op));
  }

  void apply(Op op) {
    std::vector<std::pair<std::string, Place>> results;
    do {
      const Place place = in_.place();
      results.emplace_back(plain_name(), place);
    } while (in_.accept(","));
    in_.expect("=");
    op.start = in_.accept_word("start");
    const Place place = in_.place();
    const std::string name = in_.word("the name of an op");
    op.def = program_.table->find(name);
    if (op.def == nullptr)
      in_.fail(place, fmt::format("no op \"{}\"{}", name, did_you_mean(name, program_.table->names())));
    if (!op.def->collective && static_cast<int>(results.size()) != op.def->results) {
      in_.fail(place, fmt::format("{} has {}, the text names {}", name, results_text(op.def->results), results.size()));
    }
    if (op.start && !op.def->collective)
      in_.fail(place, fmt::format("only a collective can be started, {} is none", name));
    if (in_.peek() == '%') {
      do {
        const Place operand = in_.place();
        op.operands.push_back(find(plain_name(), operand));
      } while (in_.accept(","));
    }
    if (op.def->collective && !op.operands.empty() && results.size() != op.operands.size()) {
      in_.fail(place, fmt::format("{} of {} values has {}, the text names {}", name, op.operands.size(),
                                  results_text(static_cast<int>(op.operands.size())), results.size()));
    }
    const Place attributes = in_.place();
    if (op.def->collective && in_.peek() == '{') {
      op.over = over(*op.def);
    } else if (in_.peek() == '{') {
      op.attributes = Attributes::parse(in_);
    }
    show_line(attributes, [&] { check_attributes(*op.def, op.attributes, attributes); });
    op.guard = guard();
    in_.expect(":");
    std::vector<Typed> types{typed()};
    while (in_.accept(",")) types.push_back(typed());
    if (types.size() != results.size()) {
      in_.fail(types.back().place,
               fmt::format("{} has {}, the text has {} types", name, results_text(op.def->results), types.size()));
    }
    check_types(op, types, place);
    for (size_t r = 0; r < results.size(); ++r) {
      op.results.push_back(
          make(value_info(results[r].first, types[r], static_cast<int>(f().ops.size()), results[r].second)));
    }
    append(std::move(op));
  }

  static std::string results_text(int results) { return fmt::format("{} result{}", results, results == 1 ? "" : "s"); }

  void check_types(const Op& op, const std::vector<Typed>& written, const Place& place) {
    std::vector<Type> operands, results;
    for (ValueId v : op.operands) operands.push_back(f().value(v).type);
    for (const Typed& t : written) results.push_back(t.type);
    const auto& types = show_line(place, [&]() -> const Signature& {
      return program_.signatures->get(*op.def, op.attributes, operands, results, place);
    }).results;
    for (size_t r = 0; r < types.size(); ++r) {
      if (types[r] == written[r].type) continue;
      const std::string which = types.size() > 1 ? fmt::format(" as result {}", r) : "";
      in_.fail(written[r].place, fmt::format("{} gives {}{}, the text says {}", op.def->name, types[r].str(), which,
                                             written[r].type.str()));
    }
  }

  // --- calls

  void call(Op op) {
    const Place place = in_.place();
    const std::string name = function_name("the name of a function");
    const auto known = functions_.find(name);
    op.callee = known == functions_.end() ? -1 : known->second;
    const int self = static_cast<int>(program_.functions.size()) - 1;
    if (op.callee == self) in_.fail(place, fmt::format("func {} calls itself", name));
    if (op.callee < 0) {
      std::vector<std::string> names;
      for (int i = 0; i < self; ++i) names.push_back(program_.functions[static_cast<size_t>(i)].name);
      in_.fail(place, fmt::format("no function \"{}\" above func {}{}", name, f().name, did_you_mean(name, names)));
    }
    NameParts prefix;
    if (in_.accept_word("as")) {
      const Place at = in_.place();
      const std::string text = in_.word_of(".@", "the prefix of the call");
      prefix = split_name(text);
      if (prefix.empty()) in_.fail(at, fmt::format("\"{}\" is no prefix of names", text));
    }
    const std::vector<Argument> arguments = this->arguments(op);
    op.guard = guard();
    const std::optional<size_t> part = find_range(prefix);
    if (!part) {
      call_once(std::move(op), join_parts(prefix), arguments, std::nullopt, false, false);
      return;
    }
    const Range numbers = *part_range(prefix[*part]);
    if (op.kind == Op::repeat) in_.fail(op.source, "a repeated call has one prefix, not a range");
    if (numbers.from == numbers.to) in_.fail(op.source, "a run of calls needs two numbers that differ");
    for (int64_t i = 0; i < numbers.length(); ++i) {
      prefix[*part] = std::to_string(numbers.at(i));
      if (find_range(prefix)) in_.fail(op.source, "a prefix may have one range");
      call_once(op, join_parts(prefix), arguments, numbers.at(i), i == 0, i + 1 == numbers.length());
    }
  }

  // The parameters of a function above by name.
  const absl::flat_hash_map<std::string, int>& params_of(int function) {
    absl::flat_hash_map<std::string, int>& out = params_[function];
    const Function& callee = program_.functions[static_cast<size_t>(function)];
    for (size_t p = out.size(); p < callee.params.size(); ++p) {
      out.emplace(callee.value(callee.params[p]).name, static_cast<int>(p));
    }
    return out;
  }

  // What the text passes for each parameter of the callee.
  std::vector<Argument> arguments(Op& op) {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    std::vector<Argument> out(callee.params.size());
    if (!in_.accept("(")) return out;
    do {
      const Place place = in_.place();
      const std::string name = in_.word_of(".@", "a parameter of the function");
      const auto known = params_of(op.callee).find(name);
      const int index = known == params_of(op.callee).end() ? -1 : known->second;
      if (index < 0) {
        std::vector<std::string> names;
        for (ValueId p : callee.params) names.push_back(callee.value(p).name);
        in_.fail(place, fmt::format("func {} has no parameter \"{}\"{}", callee.name, name, did_you_mean(name, names)));
      }
      Argument& argument = out[static_cast<size_t>(index)];
      if (argument.place.line > 0) in_.fail(place, fmt::format("\"{}\" is given twice", name));
      in_.expect("=");
      argument.place = in_.place();
      if (op.kind == Op::repeat && in_.accept_word("index")) {
        if (op.index_operand >= 0) in_.fail(argument.place, "only one parameter can get the index");
        op.index_operand = index;
        argument.index = true;
        continue;
      }
      argument.value = value_name("#+-");
      if (in_.accept_word("first")) argument.first = value_name("#+-");
      if (in_.accept_word("last")) argument.last = value_name("#+-");
    } while (in_.accept(","));
    in_.expect(")");
    return out;
  }

  // One call; `number` is what "#" stands for in a run.
  void call_once(Op op, std::string prefix, const std::vector<Argument>& arguments, std::optional<int64_t> number,
                 bool first, bool last) {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    op.prefix = std::move(prefix);
    for (size_t a = 0; a < arguments.size(); ++a) {
      const Argument& argument = arguments[a];
      if (argument.index) {
        op.operands.push_back(ValueId::none);
        continue;
      }
      const std::string& parameter = callee.value(callee.params[a]).name;
      if (argument.place.line == 0) {
        const std::string name = join_name(op.prefix, parameter);
        const auto found = ids_.find(std::string(name));
        if (found == ids_.end()) {
          in_.fail(op.source, fmt::format("{} as {} needs \"{}\": there is no value %{}; write ({} = %...)",
                                          callee.name, op.prefix, parameter, name, parameter));
        }
        op.operands.push_back(found->second);
        continue;
      }
      const bool exception = (first && !argument.first.empty()) || (last && !argument.last.empty());
      const std::string& pattern = !exception                         ? argument.value
                                   : first && !argument.first.empty() ? argument.first
                                                                      : argument.last;
      if (!number &&
          (!argument.first.empty() || !argument.last.empty() || pattern.find_first_of("#+-") != std::string::npos)) {
        in_.fail(argument.place, "#, first and last need a run of calls, as in block.0..11");
      }
      const std::optional<std::string> name = number ? pattern_name(pattern, *number) : pattern;
      if (!name)
        in_.fail(argument.place, fmt::format("%{} names no value in the call with number {}", pattern, *number));
      op.operands.push_back(find(*name, argument.place));
    }
    const int index = static_cast<int>(f().ops.size());
    for (const Return& r : callee.returns) {
      ValueInfo info = callee.value(r.value);
      info.name = join_name(op.prefix, base_name(info.name));
      info.op = index;
      info.source = op.source;
      op.results.push_back(make(std::move(info)));
    }
    append(std::move(op));
  }

  Program program_;
  absl::flat_hash_map<std::string, ValueId> ids_;  // of the function at hand; only looked up
  absl::flat_hash_map<std::string, int> functions_;                    // by name; only looked up
  absl::flat_hash_map<int, absl::flat_hash_map<std::string, int>> params_;  // of each function; only looked up
  int64_t values_ = 0, ops_ = 0, operands_ = 0;
};

}  // namespace

Program parse_program(std::string_view text, std::string_view file, const OpTable& table) {
  return Parser(text, file, table).program();
}

}  // namespace meshard
