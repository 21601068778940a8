#include "meshard/ir/parse.h"

#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "fmt/format.h"
#include "meshard/base/text.h"
#include "meshard/ir/runs.h"

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

class Parser {
 public:
  Parser(std::string_view text, std::string_view file, const OpTable& table)
      : in_(text, file), text_(text), file_(file) {
    program_.table = &table;
  }

  Program program() {
    if (in_.accept_word("meshard")) version();
    if (in_.accept_word("mesh")) {
      program_.mesh = Mesh::parse(in_);
      program_.mesh = program_.mesh->with_cuts(find_cuts(text_, file_, *program_.mesh));
    }
    while (!in_.at_end()) function();
    if (program_.functions.empty()) in_.fail("the text has no function; a program needs at least one, and the last is main");
    if (!any_marked_) pin_all();
    return std::move(program_);
  }

 private:
  // A type with what may follow it.
  struct Typed {
    Type type;
    Place place;
    std::optional<Layout> layout;
    bool marked = false;
    int64_t below = 0;
  };
  struct Argument {
    std::string value, first, last;  // "" where not written; may have "#"
    bool index = false;
    Place place;
  };

  Function& f() { return program_.functions.back(); }

  void version() {
    const Place place = in_.place();
    const int64_t version = in_.integer("the version of the text");
    if (version > kTextVersion) {
      in_.fail(place, fmt::format("text version {}; this program reads up to {}", version, kTextVersion));
    }
    if (version < 1) in_.fail(place, fmt::format("text version {}; versions count from 1", version));
  }

  void pin_all() {
    for (Function& function : program_.functions) {
      for (ValueInfo& v : function.values) v.pinned = v.layout.has_value();
    }
  }

  // Runs what throws UserErrors that know the place but not the line, and shows the line.
  template <class Body>
  auto show_line(const Place& place, Body body) {
    try {
      return body();
    } catch (const UserError& error) {
      if (!error.diagnostic().notes.empty()) throw;
      in_.fail(place, error.diagnostic().text);
    }
  }

  // --- names

  std::string function_name(std::string_view what) {
    const Place place = in_.place();
    std::string name = in_.word_of(".", what);
    if (split_name(name).empty()) in_.fail(place, fmt::format("\"{}\" is no name of a function", name));
    return name;
  }

  // A name that begins with "%", without it.
  std::string value_name(std::string_view also = "") {
    const Place place = in_.place();
    if (in_.peek() != '%') in_.expect("%");
    const std::string name = in_.word_of(fmt::format("%.@{}", also), "a value").substr(1);
    if (name.empty() || name.find('%') != std::string::npos) in_.fail(place, fmt::format("\"%{}\" is no name of a value", name));
    return name;
  }

  // One without ranges.
  std::string plain_name() {
    const Place place = in_.place();
    std::string name = value_name();
    const NameParts parts = split_name(name);
    if (parts.empty() || find_range(parts)) in_.fail(place, fmt::format("\"%{}\" is no name of one value", name));
    return name;
  }

  NameParts run_name() {
    const Place place = in_.place();
    const std::string name = value_name();
    NameParts parts = split_name(name);
    if (parts.empty()) in_.fail(place, fmt::format("\"%{}\" is no name of a value; a range is two numbers, as in 0..11", name));
    return parts;
  }

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

  Typed typed() {
    Typed out;
    out.place = in_.place();
    out.type = Type::parse(in_);
    if (in_.peek() == '[') {
      if (!program_.mesh) in_.fail("a layout needs a mesh; write a line such as \"mesh data=2, model=4\" before the first function");
      const Place place = in_.place();
      out.layout = show_line(place, [&] { return Layout::parse(in_, *program_.mesh, out.type.shape.rank()); });
      out.marked = in_.accept("!");
      any_marked_ = any_marked_ || out.marked;
    }
    if (in_.accept_word("below")) {
      in_.expect("=");
      const Place place = in_.place();
      out.below = in_.integer("a bound");
      if (out.below < 1) in_.fail(place, fmt::format("below={}: a bound is 1 or more", out.below));
      if (is_float(out.type.dtype)) in_.fail(place, fmt::format("below is a bound of integers; the type is {}", out.type.str()));
    }
    return out;
  }

  static ValueInfo value_info(std::string name, const Typed& typed, int op, Place source) {
    return {std::move(name), typed.type, typed.layout, typed.marked, typed.below, op, std::move(source)};
  }

  // --- functions

  void function() {
    const Place begun = in_.place();
    if (!in_.accept_word("func")) in_.fail(fmt::format("expected \"func\"; a text is a mesh line and functions"));
    const Place place = in_.place();
    try {
      const std::string name = function_name("the name of the function");
      const int before = program_.find(name);
      if (before >= 0) in_.fail(place, fmt::format("there are two functions {}", name));
      if (program_.find("main") >= 0) in_.fail(place, fmt::format("func {} stands after func main; main must be the last", name));
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
        if (!in_.accept_word("of")) in_.fail("expected \"of\": state of %w");
        entry.info.kind = ParamInfo::state;
        item.link = run_name();
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
    return expand_runs(items, kMostValues - values_, [&](const Place& place, std::string text) { in_.fail(place, std::move(text)); });
  }

  Init init() {
    in_.expect("=");
    const Place place = in_.place();
    const std::string kind = in_.word("zeros, ones, normal(s) or uniform(s)");
    if (kind == "zeros") return {};
    if (kind == "ones") return {Init::ones};
    if (kind != "normal" && kind != "uniform") {
      const std::string known[] = {"zeros", "ones", "normal", "uniform"};
      in_.fail(place, fmt::format("no init \"{}\"; there are zeros, ones, normal(s) and uniform(s){}", kind, did_you_mean(kind, known)));
    }
    in_.expect("(");
    const Place number = in_.place();
    const double scale = in_.number("a scale");
    if (!std::isfinite(scale) || scale < 0) in_.fail(number, "a scale is a finite number, 0 or more");
    in_.expect(")");
    return {kind == "normal" ? Init::normal : Init::uniform, scale};
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
        in_.fail(item.place, fmt::format("%{} is no parameter of func {}: only a parameter's memory is taken over", join_parts(item.link), f().name));
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
      guard(op);
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

  void guard(Op& op) {
    if (!in_.accept_word("at")) return;
    do {
      const Place place = in_.place();
      const std::string name = in_.word("an axis of the mesh");
      if (!program_.mesh) in_.fail(place, "a guard needs a mesh; write a line such as \"mesh pipe=4\" before the first function");
      const Axis& axis = show_line(place, [&]() -> const Axis& { return program_.mesh->axis(name, place); });
      const auto index = static_cast<int>(&axis - program_.mesh->axes().data());
      in_.expect("=");
      const int64_t coordinate = in_.integer("a coordinate");
      if (coordinate < 0 || coordinate >= axis.size) {
        in_.fail(place, fmt::format("{}={} is outside of mesh {}", name, coordinate, program_.mesh->str()));
      }
      for (const auto& [other, at] : op.guard) {
        if (other == index) in_.fail(place, fmt::format("the guard names axis {} twice", name));
      }
      op.guard.emplace_back(index, coordinate);
    } while (in_.accept(","));
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
    if (op.def == nullptr) in_.fail(place, fmt::format("no op \"{}\"{}", name, did_you_mean(name, program_.table->names())));
    if (static_cast<int>(results.size()) != op.def->results) {
      in_.fail(place, fmt::format("{} has {}, the text names {}", name, results_text(op.def->results), results.size()));
    }
    if (op.start && !op.def->collective) in_.fail(place, fmt::format("only a collective can be started, {} is none", name));
    if (in_.peek() == '%') {
      do {
        const Place operand = in_.place();
        op.operands.push_back(find(plain_name(), operand));
      } while (in_.accept(","));
    }
    const Place attributes = in_.place();
    if (op.def->collective && in_.peek() == '{') {
      over(op);
    } else if (in_.peek() == '{') {
      op.attributes = Attributes::parse(in_);
    }
    show_line(attributes, [&] { check_attributes(*op.def, op.attributes, attributes); });
    guard(op);
    in_.expect(":");
    std::vector<Typed> types{typed()};
    while (in_.accept(",")) types.push_back(typed());
    if (types.size() != results.size()) {
      in_.fail(types.back().place, fmt::format("{} has {}, the text has {} types", name, results_text(op.def->results), types.size()));
    }
    check_types(op, types, place);
    for (size_t r = 0; r < results.size(); ++r) {
      op.results.push_back(make(value_info(results[r].first, types[r], static_cast<int>(f().ops.size()), results[r].second)));
    }
    append(std::move(op));
  }

  static std::string results_text(int results) { return fmt::format("{} result{}", results, results == 1 ? "" : "s"); }

  // "{over = (data,model)}": the only thing that a collective says of itself.
  void over(Op& op) {
    in_.expect("{");
    if (!in_.accept_word("over")) in_.fail(fmt::format("expected \"over\": {} takes {{over = axes}}", op.def->name));
    in_.expect("=");
    const Place place = in_.place();
    if (!program_.mesh) in_.fail(place, "a collective needs a mesh; write a line such as \"mesh data=2\" before the first function");
    op.over = AtomSet::of(show_line(place, [&] { return program_.mesh->parse_atoms(in_); }));
    in_.expect("}");
  }

  void check_types(const Op& op, const std::vector<Typed>& written, const Place& place) {
    std::vector<Type> operands, results;
    for (ValueId v : op.operands) operands.push_back(f().value(v).type);
    for (const Typed& t : written) results.push_back(t.type);
    const std::vector<Type> types = show_line(place, [&] { return infer_types(*op.def, op.attributes, operands, results, place); });
    for (size_t r = 0; r < types.size(); ++r) {
      if (types[r] == written[r].type) continue;
      const std::string which = types.size() > 1 ? fmt::format(" as result {}", r) : "";
      in_.fail(written[r].place, fmt::format("{} gives {}{}, the text says {}", op.def->name, types[r].str(), which, written[r].type.str()));
    }
  }

  // --- calls

  void call(Op op) {
    const Place place = in_.place();
    const std::string name = function_name("the name of a function");
    op.callee = program_.find(name);
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
    guard(op);
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

  // What the text passes for each parameter of the callee.
  std::vector<Argument> arguments(Op& op) {
    const Function& callee = program_.functions[static_cast<size_t>(op.callee)];
    std::vector<Argument> out(callee.params.size());
    if (!in_.accept("(")) return out;
    do {
      const Place place = in_.place();
      const std::string name = in_.word_of(".@", "a parameter of the function");
      const int index = callee.param_index(callee.find(name));
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
  void call_once(Op op, std::string prefix, const std::vector<Argument>& arguments, std::optional<int64_t> number, bool first, bool last) {
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
          in_.fail(op.source, fmt::format("{} as {} needs \"{}\": there is no value %{}; write ({} = %...)", callee.name,
                                          op.prefix, parameter, name, parameter));
        }
        op.operands.push_back(found->second);
        continue;
      }
      const bool exception = (first && !argument.first.empty()) || (last && !argument.last.empty());
      const std::string& pattern = !exception ? argument.value : first && !argument.first.empty() ? argument.first : argument.last;
      if (!number && (!argument.first.empty() || !argument.last.empty() || pattern.find_first_of("#+-") != std::string::npos)) {
        in_.fail(argument.place, "#, first and last need a run of calls, as in block.0..11");
      }
      const std::optional<std::string> name = number ? pattern_name(pattern, *number) : pattern;
      if (!name) in_.fail(argument.place, fmt::format("%{} names no value in the call with number {}", pattern, *number));
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

  Scanner in_;
  std::string_view text_;
  std::string file_;
  Program program_;
  absl::flat_hash_map<std::string, ValueId> ids_;  // of the function at hand; only looked up
  int64_t values_ = 0, ops_ = 0, operands_ = 0;
  bool any_marked_ = false;
};

}  // namespace

Program parse_program(std::string_view text, std::string_view file, const OpTable& table) {
  return Parser(text, file, table).program();
}

}  // namespace meshard
