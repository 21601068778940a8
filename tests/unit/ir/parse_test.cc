#include "meshard/ir/parse.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "fmt/format.h"
#include "meshard/ir/runs.h"
#include "meshard/ir/verify.h"
#include "op_table.h"

namespace meshard {
namespace {

Program parse(std::string_view text) { return parse_program(text, "p.mesh", test::op_table()); }

std::string error_of(std::string_view text) {
  try {
    parse(text);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

// One function around `body`, from line 3.
std::string in_main(std::string_view body) {
  return fmt::format("mesh data=2, model=4\nfunc main(%x: f32[2,3] [data, -], %w: f32[3,4] [-, model]) {{\n{}\n}}\n",
                     body);
}

int64_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

void check_round_trip(const Program& program) {
  const std::string text = print(program);
  INFO(text);
  const Program again = parse(text);
  std::string why;
  CHECK(equal(program, again, &why));
  CHECK(why == "");
  CHECK(print(again) == text);
}

// Every feature of the text, in the printer's own form.
constexpr std::string_view kAll = R"(meshard 1
mesh data=2, model=4

func block(
    %x: f32[3,5,7] [data, -, -],
    %norm: f32[7] [-],
    %up: f32[7,8] [-, model],
    %down: f32[8,7] [model, -]) {
  %a, %a.rstd = rms_norm %x, %norm {eps = 1e-05} : f32[3,5,7] [data, -, -], f32[3,5] [data, -]
  %h = einsum %a, %up {rule = "b t d, d f -> b t f"} : f32[3,5,8] [data, -, model]
  %g = gelu %h : f32[3,5,8] [data, -, model]
  %m = einsum %g, %down {rule = "b t f, f d -> b t d"} : f32[3,5,7] [data, -, -] + sum(model)
  %m@1 = start all_reduce %m {over = model} : f32[3,5,7] [data, -, -]
  %s = scale %x {exact = true, factor = 2.0} at model=1, data=0 : f32[3,5,7] [data, -, -]
  wait %m@1
  %y = add %s, %m@1 : f32[3,5,7] [data, -, -]
  return %y, %a
}

func micro(
    %i: i32[] [],
    %sum: f32[7] [-],
    %part: f32[7] [-]) {
  %sum.new = add %sum, %part : f32[7] [-]
  return %sum.new -> %sum
}

func step(%w: f32[7] [-], %w.m: f32[7] [-]) {
  %w.m.new = scale %w.m {factor = 0.5} : f32[7] [-]
  %w.new = add %w, %w.m.new : f32[7] [-]
  return %w.new -> %w, %w.m.new -> %w.m
}

func main(
    %tokens: i32[3,5] [data, -] below=13,
    %embedding: f32[13,7] [model:2, model:(2)2] param init=normal(0.02),
    %block.0..2.norm: f32[7] [-] param init=ones,
    %block.0..2.norm.m: f32[7] [-] state of %block.0..2.norm,
    %block.0..2.up: f32[7,8] [-, model] param init=uniform(0.1),
    %block.0..2.down: f32[8,7] [model, -] param) {
  %embedding.use = reshard %embedding : f32[13,7] [-, -]
  %x = embedding %tokens, %embedding.use : f32[3,5,7] [data, -, -]
  call block as block.0..2 (x = %block.#-1.y first %x)
  %z = fill {value = 0.0} : f32[7] [-]
  repeat 3 call micro as micro (i = index, sum = %z, part = %block.0.norm)
  call step as block.2..0 (w = %block.#.norm, w.m = %block.#.norm.m) at data=1
  %last = add %block.2.y, %block.2.a : f32[3,5,7] [data, -, -]
  return %last, %micro.sum.new, %block.0..2.w.new -> %block.0..2.norm, %block.0..2.w.m.new -> %block.0..2.norm.m
}
)";

TEST_CASE("the text of every feature prints as it was read") {
  const Program p = parse(kAll);
  verify(p, Level::traced);
  CHECK(print(p) == kAll);
  check_round_trip(p);

  const Function& main = p.main();
  CHECK(main.name == "main");
  CHECK(main.params.size() == 2 + 3 * 4);
  CHECK(main.value(main.params[0]).below == 13);
  CHECK(main.value(main.params[0]).pinned);
  CHECK(main.param_info[1].init == Init{Init::normal, 0.02});
  // Index by index: all of block.0 first.
  CHECK(main.value(main.params[5]).name == "block.0.down");
  CHECK(main.value(main.params[6]).name == "block.1.norm");
  CHECK(main.param_info[7].kind == ParamInfo::state);
  CHECK(main.value(main.param_info[7].of).name == "block.1.norm");
  CHECK(main.ops.size() == 2 + 3 + 2 + 3 + 1);
  CHECK(main.ops[4].prefix == "block.2");
  CHECK(main.value(main.ops[4].operands[0]).name == "block.1.y");
  CHECK(main.value(main.ops[2].operands[0]).name == "x");
  const Op& repeat = main.ops[6];
  CHECK(repeat.kind == Op::repeat);
  CHECK(repeat.count == 3);
  CHECK(repeat.index_operand == 0);
  CHECK(repeat.operands[0] == ValueId::none);
  CHECK(main.ops[7].prefix == "block.2");
  CHECK(main.ops[9].prefix == "block.0");
  CHECK(main.ops[7].guard == std::vector<std::pair<int, int64_t>>{{0, 1}});
  CHECK(main.returns.size() == 2 + 6);
  CHECK(main.value(main.returns[3].in_place).name == "block.0.norm.m");
  const Function& block = p.functions[0];
  CHECK(block.ops[4].start);
  CHECK(block.ops[4].over == AtomSet::of(p.mesh->find("model")->atoms));
  CHECK(block.ops[0].source == Place{"p.mesh", 9, 3});
  CHECK(block.value(block.find("a.rstd")).op == 0);
}

TEST_CASE("a text may be short: no version, no mesh, no layouts") {
  const Program p = parse("func f(%x: f32[2]) { %y = gelu %x : f32[2] return %y }  # a comment");
  CHECK(p.main().name == "f");
  CHECK(!p.mesh);
  check_round_trip(p);
  const Program none = parse("func f() { %y = fill {value = 1.0} : f32[] }");
  CHECK(none.main().returns.empty());
  check_round_trip(none);
}

TEST_CASE("marks of pinned layouts") {
  // No mark: all are pinned.
  const Program all = parse("mesh data=2\nfunc f(%x: f32[2] [data]) { %y = gelu %x : f32[2] [data] return %y }");
  CHECK(all.main().values[0].pinned);
  CHECK(all.main().values[1].pinned);
  CHECK(print(all).find('!') == std::string::npos);
  // A mark: only those are.
  const Program one = parse("mesh data=2\nfunc f(%x: f32[2] [data]!) { %y = gelu %x : f32[2] [data] return %y }");
  CHECK(one.main().values[0].pinned);
  CHECK(!one.main().values[1].pinned);
  CHECK(print(one).find("[data]!") != std::string::npos);
  check_round_trip(one);
}

TEST_CASE("an axis of size 1 has no atoms, and a collective over it none") {
  const Program p =
      parse("mesh data=1\nfunc f(%x: f32[2] [data]) { %y = all_gather %x {over = data} : f32[2] [-] return %y }");
  CHECK(p.main().ops[0].over.empty());
  check_round_trip(p);
  verify(p, Level::local);
}

// A model of `layers` blocks, every name spelled out.
std::string spelled_out(int layers) {
  std::string text =
      "func block(%x: f32[2], %w: f32[2]) {\n %y = add %x, %w : f32[2]\n return %y }\n"
      "func block_vjp(%y.d: f32[2], %x: f32[2], %w: f32[2]) {\n %x.d = add %y.d, %x : f32[2]\n"
      " %w.new = add %w, %y.d : f32[2]\n return %x.d, %w.new -> %w }\n"
      "func main(%x: f32[2], %v: f32[2] param";
  for (int i = 0; i < layers; ++i)
    text += fmt::format(
        ", %block.{0}.w: f32[2] param, %block.{0}.experts.0.u: f32[3] param, "
        "%block.{0}.experts.1.u: f32[3] param",
        i);
  for (int i = 0; i < layers; ++i) text += fmt::format(", %block.{0}.m: f32[2] state of %block.{0}.w", i);
  text += ") {\n";
  for (int i = 0; i < layers; ++i)
    text += fmt::format("call block as block.{} (x = {})\n", i, i ? fmt::format("%block.{}.y", i - 1) : "%x");
  text += fmt::format("%h.d = gelu %block.{}.y : f32[2]\n", layers - 1);
  for (int i = layers - 1; i >= 0; --i) {
    text += fmt::format("call block_vjp as block.{} (y.d = {}, x = {})\n", i,
                        i + 1 < layers ? fmt::format("%block.{}.x.d", i + 1) : "%h.d",
                        i ? fmt::format("%block.{}.y", i - 1) : "%x");
  }
  text += "return %h.d";
  for (int i = 0; i < layers; ++i) text += fmt::format(", %block.{0}.w.new -> %block.{0}.w", i);
  return text + "\n}\n";
}

TEST_CASE("12 layers and 100 layers have the same number of lines") {
  const Program p12 = parse(spelled_out(12)), p100 = parse(spelled_out(100));
  verify(p12, Level::traced);
  const std::string text = print(p12);
  INFO(text);
  CHECK(lines(text) == lines(print(p100)));
  CHECK(text.substr(text.find("func main")) == R"(func main(
    %x: f32[2],
    %v: f32[2] param,
    %block.0..11.w: f32[2] param,
    %block.0..11.experts.0..1.u: f32[3] param;
    %block.0..11.m: f32[2] state of %block.0..11.w) {
  call block as block.0..11 (x = %block.#-1.y first %x)
  %h.d = gelu %block.11.y : f32[2]
  call block_vjp as block.11..0 (y.d = %block.#+1.x.d first %h.d, x = %block.#-1.y last %x)
  return %h.d, %block.0..11.w.new -> %block.0..11.w
}
)");
  check_round_trip(p12);
  check_round_trip(p100);
  for (int layers : {1, 2, 3, 4}) check_round_trip(parse(spelled_out(layers)));
}

TEST_CASE("only what repeats exactly is a run") {
  const auto header = [](std::string_view entries) {
    const std::string text =
        print(parse(fmt::format("func main({}) {{ %r = fill {{value = 0.0}} : f32[] return %r }}", entries)));
    check_round_trip(parse(text));
    return text.substr(text.find('(') + 1, text.find(") {") - text.find('(') - 1);
  };
  CHECK(header("%a.0: f32[2], %a.1: f32[2]") == "%a.0..1: f32[2]");
  CHECK(header("%a.0: f32[2], %a.1: f32[3]") == "%a.0: f32[2], %a.1: f32[3]");
  CHECK(header("%a.0: f32[2], %a.2: f32[2]") == "%a.0: f32[2], %a.2: f32[2]");
  CHECK(header("%a.1: f32[2], %a.0: f32[2]") == "%a.1: f32[2], %a.0: f32[2]");
  CHECK(header("%a.00: f32[2], %a.01: f32[2]") == "%a.00: f32[2], %a.01: f32[2]");
  // Two runs side by side are kept apart; unlike prefixes need no mark.
  CHECK(header("%a.0.x: f32[2], %a.1.x: f32[2], %a.0.y: f32[2], %a.1.y: f32[2]") ==
        "%a.0..1.x: f32[2]; %a.0..1.y: f32[2]");
  CHECK(header("%a.0.x: f32[2], %a.1.x: f32[2], %b.0.x: f32[2], %b.1.x: f32[2]") ==
        "%a.0..1.x: f32[2], %b.0..1.x: f32[2]");
  CHECK(header("%a.0.x: f32[2], %a.0.y: f32[3], %a.1.x: f32[2], %a.1.y: f32[3]") ==
        "%a.0..1.x: f32[2], %a.0..1.y: f32[3]");
  // A link that stays, and one that counts along.
  CHECK(header("%w: f32[2] param, %m.0: f32[2] state of %w, %m.1: f32[2] state of %w") ==
        "%w: f32[2] param, %m.0..1: f32[2] state of %w");
  CHECK(header("%m.0: f32[2] param, %m.1: f32[2] param, %m.0.s: f32[2] state of %m.0, %m.1.s: f32[2] state of %m.1") ==
        "%m.0..1: f32[2] param; %m.0..1.s: f32[2] state of %m.0..1");
  // State of the run, and first values that are written down.
  CHECK(header("%w: f32[2] param init=constant(-0.5), %s: f32[] state init=constant(65536)") ==
        "%w: f32[2] param init=constant(-0.5), %s: f32[] state init=constant(65536)");
  CHECK(header("%w: f32[2] param, %t: f32[] state") == "%w: f32[2] param, %t: f32[] state");
}

TEST_CASE("what the calls of a run pass") {
  const auto calls = [](std::string_view body) {
    const std::string text =
        print(parse(fmt::format("func f(%x: f32[]) {{ %y = gelu %x : f32[] return %y }}\nfunc main(%c: f32[], %d: "
                                "f32[], %e: f32[], %b.0..9.x: f32[]) {{\n{}\n}}",
                                body)));
    check_round_trip(parse(text));
    const size_t begin = text.find("  call");
    return text.substr(begin, text.rfind('}') - begin);
  };
  CHECK(calls("call f as b.0 call f as b.1 call f as b.2") == "  call f as b.0..2\n");
  CHECK(calls("call f as b.2 call f as b.1 call f as b.0") == "  call f as b.2..0\n");
  CHECK(calls("call f as b.0 (x = %c) call f as b.1 (x = %c)") == "  call f as b.0..1 (x = %c)\n");
  CHECK(calls("call f as b.0 (x = %c) call f as b.1 (x = %d)") == "  call f as b.0..1 (x = %d first %c)\n");
  CHECK(calls("call f as b.0 (x = %c) call f as b.1 call f as b.2 (x = %d)") ==
        "  call f as b.0..2 (x = %b.#.x first %c last %d)\n");
  CHECK(calls("call f as b.0 (x = %b.5.x) call f as b.1 (x = %b.6.x) call f as b.2 (x = %b.7.x)") ==
        "  call f as b.0..2 (x = %b.#+5.x)\n");
  CHECK(calls("call f as q.3 (x = %b.5.x) call f as q.4 (x = %b.6.x)") == "  call f as q.3..4 (x = %b.#+2.x)\n");
  // The longest beginning that can be said, and then the rest.
  CHECK(calls("call f as b.0 (x = %c) call f as b.1 call f as b.2 call f as b.3 (x = %d) call f as b.4 (x = %e)") ==
        "  call f as b.0..3 (x = %b.#.x first %c last %d)\n  call f as b.4 (x = %e)\n");
  CHECK(calls("call f as b.0 call f as b.2") == "  call f as b.0\n  call f as b.2\n");
}

TEST_CASE("parts of names") {
  CHECK(split_name("block.0..11.wq") == NameParts{"block", "0..11", "wq"});
  CHECK(split_name("x@1") == NameParts{"x@1"});
  for (const char* bad : {"", ".", "a.", ".a", "a..b", "0..", "0...1", "a.0..b", "..0"}) CHECK(split_name(bad).empty());
  CHECK(part_number("12") == 12);
  for (const char* bad : {"", "012", "-1", "1x", "1234567890"}) CHECK(!part_number(bad));
  CHECK(pattern_name("block.#-1.y", 3) == "block.2.y");
  CHECK(pattern_name("#.#+2", 3) == "3.5");
  CHECK(!pattern_name("block.#-1.y", 0));
  for (const char* bad : {"a#", "#1", "#+", "#-x", "+1", "#--1"}) CHECK(!pattern_name(bad, 5));
}

TEST_CASE("errors show the place, the line and a caret") {
  CHECK(error_of(in_main("  %h = gellu %x : f32[2,3] [data, -]")) ==
        "p.mesh:3:8: no op \"gellu\"; did you mean \"gelu\"?\n"
        "    %h = gellu %x : f32[2,3] [data, -]\n"
        "         ^");
}

TEST_CASE("the first line of each error") {
  const auto message = [](std::string_view text) {
    const std::string all = error_of(text);
    return all.substr(0, all.find('\n'));
  };
  const auto main = [&](std::string_view body) { return message(in_main(body)); };
  CHECK(main("%h = gelu %g : f32[2,3]\n%g = gelu %x : f32[2,3]") == "p.mesh:3:11: %g is read before it is made");
  CHECK(main("%h = gelu %xx : f32[2,3]") == "p.mesh:3:11: no value %xx in func main");
  CHECK(main("%hidden = gelu %x : f32[2,3]\n%h = gelu %hiden : f32[2,3]") ==
        "p.mesh:4:11: no value %hiden in func main; did you mean \"hidden\"?");
  CHECK(main("%h = gelu %h : f32[2,3]") == "p.mesh:3:11: %h is read before it is made");
  CHECK(main("%w = gelu %x : f32[2,3]") == "p.mesh:3:1: %w is made twice, first in line 2");
  CHECK(main("%h = gelu %x : f32[2,4]") == "p.mesh:3:16: gelu gives f32[2,3], the text says f32[2,4]");
  CHECK(main("%a, %b = rms_norm %x, %n : f32[2,3]") == "p.mesh:3:23: no value %n in func main");
  CHECK(main("%a = rms_norm %x, %x : f32[2,3]") == "p.mesh:3:6: rms_norm has 2 results, the text names 1");
  CHECK(main("%a = gelu %x : f32[2,3], f32[2]") == "p.mesh:3:26: gelu has 1 result, the text has 2 types");
  CHECK(main("%a = start gelu %x : f32[2,3]") == "p.mesh:3:12: only a collective can be started, gelu is none");
  CHECK(main("%a = all_gather %x {axis = 1} : f32[2,3]") ==
        "p.mesh:3:21: expected \"over\": all_gather takes {over = axes}");
  CHECK(main("%a = all_gather %x {over = dota} : f32[2,3]") ==
        "p.mesh:3:28: no axis \"dota\" in mesh data=2, model=4; did you mean \"data\"?");
  CHECK(main("%a = gelu %x at model=4 : f32[2,3]") == "p.mesh:3:17: model=4 is outside of mesh data=2, model=4");
  CHECK(main("%a = gelu %x at model=1, model=2 : f32[2,3]") == "p.mesh:3:26: the guard names axis model twice");
  CHECK(main("%a = gelu %x at modle=1 : f32[2,3]") ==
        "p.mesh:3:17: no axis \"modle\" in mesh data=2, model=4; did you mean \"model\"?");
  CHECK(main("%a = gelu %x : f32[2,3] below=4") == "p.mesh:3:31: below is a bound of integers; the type is f32[2,3]");
  CHECK(main("%a = gelu %x : f32[2,3] [data]") ==
        "p.mesh:3:25: layout [data] has 1 entry, but the tensor has 2 dimensions");
  CHECK(main("call blok as b") == "p.mesh:3:6: no function \"blok\" above func main");
  CHECK(main("call main as b") == "p.mesh:3:6: func main calls itself");
  CHECK(main("gelu %x") == "p.mesh:3:1: expected a statement: %x = op ..., call, repeat, wait, return or \"}\"");
  CHECK(main("return %x -> %y") == "p.mesh:3:8: no value %y in func main");
  CHECK(main("%y = gelu %x : f32[2,3] return %x -> %y") ==
        "p.mesh:3:32: %y is no parameter of func main: only a parameter's memory is taken over");
  CHECK(main("%a..b = gelu %x : f32[2,3]") == "p.mesh:3:1: \"%a..b\" is no name of one value");
  CHECK(message("meshard 2\n") == "p.mesh:1:9: text version 2; this program reads up to 1");
  CHECK(message("meshard 0\n") == "p.mesh:1:9: text version 0; versions count from 1");
  CHECK(message("mesh data=2\n") ==
        "p.mesh:2:1: the text has no function; a program needs at least one, and the last is main");
  CHECK(message("function f() {}") == "p.mesh:1:1: expected \"func\"; a text is a mesh line and functions");
  CHECK(message("func f(%x: f32[2] [data]) {}") ==
        "p.mesh:1:19: a layout needs a mesh; write a line such as \"mesh data=2, model=4\" before the first function");
  CHECK(message("func f() {}\nfunc f() {}") == "p.mesh:2:6: there are two functions f");
  CHECK(message("func main() {}\nfunc f() {}") == "p.mesh:2:6: func f stands after func main; main must be the last");
  CHECK(message("# 1\n\nfunc main(%x: f32[2]) {\n  %y = gelu %x : f32") ==
        "p.mesh:4:21: the text ends inside func main, begun at line 3");
  CHECK(message("func f(%x: f32[2]) { return %x") == "p.mesh:1:31: the text ends inside func f, begun at line 1");
  CHECK(message("func f(%x: f32[2] param init=norml(1)) {}") ==
        "p.mesh:1:30: no init \"norml\"; there are zeros, ones, constant(x), normal(s) and uniform(s); did you mean \"normal\"?");
  CHECK(message("func f(%x: f32[2] param init=constant(inf)) {}") == "p.mesh:1:39: a constant is a finite number");
  CHECK(message("func f(%x: f32[2] state of %y) {}") == "p.mesh:1:8: no value %y in func f");
  CHECK(message("func f(%x.2..1: f32[2]) {}") == "p.mesh:1:8: %x.2..1: the range 2..1 must count up");
  CHECK(message("func f(%x.0..999999999: f32[2]) {}") == "p.mesh:1:8: the runs expand to more than 1048576 entries");
  CHECK(message("func f(%x: f32[2] state of %y.0..1) {}") == "p.mesh:1:8: %y.0..1 has a range that %x has not");
}

TEST_CASE("errors of calls") {
  const auto message = [](std::string_view body) {
    const std::string all =
        error_of(fmt::format("func block(%x: f32[], %w: f32[]) {{ %y = gelu %x : f32[] return %y }}\n"
                             "func main(%x: f32[], %b.0..1.w: f32[]) {{\n{}\n}}",
                             body));
    return all.substr(0, all.find('\n'));
  };
  CHECK(message("call block as b.0") ==
        "p.mesh:3:1: block as b.0 needs \"x\": there is no value %b.0.x; write (x = %...)");
  CHECK(message("call blok as b.0") == "p.mesh:3:6: no function \"blok\" above func main; did you mean \"block\"?");
  CHECK(message("call block as b.0 (z = %x)") == "p.mesh:3:20: func block has no parameter \"z\"");
  CHECK(message("call block as b.0 (x = %x, x = %x)") == "p.mesh:3:28: \"x\" is given twice");
  CHECK(message("call block as b.0 (x = %x first %x)") ==
        "p.mesh:3:24: #, first and last need a run of calls, as in block.0..11");
  CHECK(message("call block as b.0 (x = %b.#.w)") ==
        "p.mesh:3:24: #, first and last need a run of calls, as in block.0..11");
  CHECK(message("call block as b.0..1 (x = %b.#-1.y)") ==
        "p.mesh:3:27: %b.#-1.y names no value in the call with number 0");
  CHECK(message("call block as b.0..1 (x = %b.#-1.z first %x)") ==
        "p.mesh:3:27: no value %b.0.z in func main; did you mean \"b.0.w\"?");
  CHECK(message("call block as b.1..1 (x = %x)") == "p.mesh:3:1: a run of calls needs two numbers that differ");
  CHECK(message("call block as b.0 (x = %x)\ncall block as b.0 (x = %x)") ==
        "p.mesh:4:1: %b.0.y is made twice, first in line 3");
  CHECK(message("repeat 0 call block as b.0 (x = %x)") == "p.mesh:3:8: repeat 0: a call is repeated once or more");
  CHECK(message("repeat 2 call block as b.0..1 (x = %x)") == "p.mesh:3:1: a repeated call has one prefix, not a range");
  CHECK(message("repeat 2 call block as b.0 (x = index, w = index)") ==
        "p.mesh:3:44: only one parameter can get the index");
}

TEST_CASE("equal says where two programs differ") {
  const std::string text(kAll);
  const auto why = [&](std::string_view from, std::string_view to) {
    std::string changed = text, out;
    changed.replace(changed.find(from), from.size(), to);
    CHECK(!equal(parse(text), parse(changed), &out));
    return out;
  };
  CHECK(why("normal(0.02)", "normal(0.5)").find("func main: %embedding") == 0);
  CHECK(why("repeat 3", "repeat 4").find("x3") != std::string::npos);
  CHECK(why("eps = 1e-05", "eps = 1e-06").find("eps = 1e-05") != std::string::npos);
  CHECK(why("at data=1", "at data=0").find("at 0=1") != std::string::npos);
  CHECK(why("(x = %block.#-1.y first %x)", "(x = %x)").find("%block.0.y") != std::string::npos);
  CHECK(why("data=2, model=4", "data=3, model=4") == "mesh data=2, model=4 | mesh data=3, model=4");
}

// Whatever the bytes: a program, or a UserError.
void check_survives(const std::string& text) {
  try {
    const Program p = parse(text);
    verify(p, Level::traced);
    verify(p, Level::local);
  } catch (const UserError&) {
  } catch (const std::exception& error) {
    FAIL(error.what() << "\n" << text);
  }
}

TEST_CASE("any bytes are a program or an error") {
  const std::string text(kAll);
  for (size_t cut = 0; cut <= text.size(); ++cut) check_survives(text.substr(0, cut));
  uint32_t seed = 12345;
  const auto random = [&](size_t below) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
  };
  const std::string marks = "%.,:;{}[]()=-+#@!\"\n 0129ax\\\xff";
  for (int round = 0; round < 4000; ++round) {
    std::string changed = text;
    const size_t changes = 1 + random(3);
    for (size_t c = 0; c < changes; ++c) {
      const size_t at = random(changed.size());
      switch (random(4)) {
        case 0:
          changed[at] = static_cast<char>(changed[at] ^ (1 << random(8)));
          break;
        case 1:
          changed[at] = marks[random(marks.size())];
          break;
        case 2:
          changed.erase(at, 1 + random(20));
          break;
        case 3:
          changed.insert(at, changed.substr(random(changed.size()), 1 + random(20)));
          break;
      }
    }
    check_survives(changed);
  }
}

TEST_CASE("texts made to exhaust the reader") {
  std::string ranges = "func f(%a";
  for (int i = 0; i < 64; ++i) ranges += ".0..9";
  CHECK(error_of(ranges + ": f32[]) {}").find("p.mesh:1:8: a name may have 4 ranges, this has 64") == 0);
  CHECK(error_of("func g(%x: f32[]) { return %x }\nfunc f(%x: f32[]) { call g as a.0..999999999 (x = %x) }")
            .find("the text makes more than 1048576 values") != std::string::npos);
  check_survives(std::string(100000, '('));
  check_survives("func f(%x: f32[" + std::string(100000, '9') + "]) {}");
  check_survives("func f(" + std::string(1000, '%'));
}

}  // namespace
}  // namespace meshard
