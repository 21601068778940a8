#include "meshard/ir/verify.h"

#include <catch2/catch.hpp>

#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "op_table.h"

namespace meshard {
namespace {

Program parse(std::string_view text) { return parse_program(text, "p.mesh", test::op_table()); }

// The whole message of verify, "" if there is none.
std::string error_of(std::string_view text, Level level) {
  const Program program = parse(text);
  try {
    verify(program, level);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// In a function with a mesh of uneven use: 3 over 2, 5 over 4.
std::string local(std::string_view body) {
  return first_line(error_of(
      fmt::format("mesh data=2, model=4\nfunc main(%x: f32[3,5] [data, -], %w: f32[5,7] [-, model]) {{\n{}\n}}\n",
                  body),
      Level::local));
}

std::string traced(std::string_view body) {
  return first_line(
      error_of(fmt::format("mesh pipe=2\nfunc main(%x: f32[2], %w: f32[2] param) {{\n{}\n}}\n", body), Level::traced));
}

TEST_CASE("a local program that is right") {
  CHECK(local("%h = einsum %x, %w {rule = \"m k, k n -> m n\"} : f32[3,7] [data, model]\n"
              "%h@1 = all_gather %h {over = model} : f32[3,7] [data, -]\n"
              "%u = use %h@1 : f32[3,7] [data, -]\n"
              "%x@1 = slice %x {over = model} : f32[3,5] [data, model]\n"
              "%w@1 = all_gather %w {over = model} : f32[5,7] [-, -]\n"
              "%w@2 = slice %w@1 {over = model} : f32[5,7] [model, -]\n"
              "%p = einsum %x@1, %w@2 {rule = \"m k, k n -> m n\"} : f32[3,7] [data, -] + sum(model)\n"
              "%q = add %p, %p : f32[3,7] [data, -] + sum(model)\n"
              "%q@1 = start reduce_scatter %q {over = model} : f32[3,7] [data, model]\n"
              "wait %q@1\n"
              "%q@2 = all_reduce %p {over = model} : f32[3,7] [data, -]\n"
              "return %q@1, %u") == "");
}

TEST_CASE("levels ask for layouts") {
  const std::string text = "mesh data=2\nfunc main(%x: f32[2] [data]) {\n  %y = gelu %x : f32[2]\n  return %y\n}\n";
  CHECK(error_of(text, Level::traced) == "");
  CHECK(error_of(text, Level::closed) == "p.mesh:3:3: %y f32[2] has no layout");
  const std::string open = "mesh data=2\nfunc main(%x: f32[2] [?]) {\n return %x\n}\n";
  CHECK(error_of(open, Level::traced) == "");
  CHECK(error_of(open, Level::closed) == "p.mesh:2:11: the layout of %x f32[2] is open: [?]");
  CHECK(error_of("func main(%x: f32[2]) { return %x }", Level::closed) ==
        "the program has no mesh line; layouts need one");
  // Closed, but a copy is missing: only the local level minds.
  const std::string unlike =
      "mesh data=2\nfunc main(%x: f32[2] [data]) {\n  %y = gelu %x : f32[2] [-]\n  return %y\n}\n";
  CHECK(error_of(unlike, Level::closed) == "");
  CHECK(first_line(error_of(unlike, Level::local)).find("p.mesh:3:3: gelu: ") == 0);
}

TEST_CASE("layouts against rules and collectives") {
  CHECK(local("%y = all_gather %x {over = model} : f32[3,5] [-, -]") ==
        "p.mesh:3:1: all_gather over model does not turn [data, -] into [-, -]");
  CHECK(local("%y = all_gather %x : f32[3,5] [-, -]") ==
        "p.mesh:3:1: all_gather over nothing does not turn [data, -] into [-, -]");
  CHECK(local("%y = all_reduce %x {over = data} : f32[3,5] [-, -]") ==
        "p.mesh:3:1: all_reduce over data does not turn [data, -] into [-, -]");
  CHECK(local("%y = slice %x {over = model} : f32[3,5] [(data,model), -]") == "");
  CHECK(local("%y = use %x : f32[3,5] [-, -]") ==
        "p.mesh:3:1: use changes the layout [data, -] to [-, -]: that takes a collective");
  CHECK(local("%y = reshard %x : f32[3,5] [data, -]") == "");
  CHECK(local("%y = gelu %x : f32[3,5] [data, -] + sum(model)").find("p.mesh:3:1: gelu: ") == 0);
}

TEST_CASE("started collectives") {
  const std::string begin =
      "%h = einsum %x, %w {rule = \"m k, k n -> m n\"} : f32[3,7] [data, model]\n"
      "%g = start all_gather %h {over = model} : f32[3,7] [data, -]\n";
  CHECK(local(begin + "wait %g\nreturn %g") == "");
  CHECK(local(begin + "return %h") == "p.mesh:4:1: %g is started, but nobody waits for it");
  CHECK(local(begin + "return %g") == "p.mesh:4:1: %g is returned before the wait for it");
  CHECK(local(begin + "%y = gelu %g : f32[3,7] [data, -]\nwait %g") == "p.mesh:5:1: %g is read before the wait for it");
  CHECK(local(begin + "wait %g\nwait %g") == "p.mesh:6:1: %g is waited for twice");
  const std::string two = "%a, %b = start all_gather %x, %w {over = data} : f32[3,5] [-, -], f32[5,7] [-, model]\n";
  CHECK(local(two + "wait %a") == "p.mesh:3:1: all_gather over data does not turn [-, model] into [-, model]");
  const std::string both = "%a, %b = start all_reduce %x, %x : f32[3,5] [data, -], f32[3,5] [data, -]\n";
  CHECK(local(both + "wait %a") == "");
  CHECK(local(both + "wait %b") == "p.mesh:4:1: %b comes with %a: wait for that one, the first of the message");
  CHECK(local(both + "%y = gelu %b : f32[3,5] [data, -]\nwait %a") == "p.mesh:4:1: %b is read before the wait for it");
  CHECK(local("%a, %b = slice %x, %x : f32[3,5] [data, -], f32[3,5] [data, -]") ==
        "p.mesh:3:1: slice moves nothing and takes one value");
  CHECK(local("wait %x") == "p.mesh:3:1: %x is not started: there is nothing to wait for");
  CHECK(local("%x@1 = start all_gather %x {over = data} : f32[3,5] [-, -]\n%y = gelu %w : f32[5,7] [-, model]\n"
              "%n = fill {value = 0.0} : f32[3,5] [data, -]\nwait %x@1\nreturn %n -> %x") ==
        "p.mesh:3:1: %n takes over the memory of %x before the wait for %x@1");
  CHECK(local("%x@1 = start all_gather %x {over = data} : f32[3,5] [-, -]\nwait %x@1\n"
              "%n = fill {value = 0.0} : f32[3,5] [data, -]\nreturn %n -> %x") == "");
}

TEST_CASE("returns in place") {
  CHECK(traced("%w2 = add %w, %x : f32[2]\nreturn %w2 -> %w") == "");
  CHECK(traced("%w2 = add %w, %x : f32[2]\n%y = gelu %w : f32[2]\nreturn %w2 -> %w") ==
        "p.mesh:4:1: %w is read after %w2 took over its memory");
  CHECK(traced("%w2 = fill {value = 0.0} : f32[3]\nreturn %w2 -> %w") ==
        "p.mesh:3:1: %w2 is returned in place of %w, but is f32[3] and not f32[2]");
  CHECK(traced("return %x -> %w") ==
        "p.mesh:2:11: %x is returned in place of %w, but is a parameter: it has memory of its own");
  CHECK(traced("return %w -> %w") == "");
  CHECK(traced("%a = gelu %w : f32[2]\n%b = gelu %x : f32[2]\nreturn %a -> %w, %b -> %w") ==
        "p.mesh:4:1: two values are returned in place of %w");
  CHECK(traced("%a = gelu %w : f32[2]\nreturn %a -> %w, %a -> %x") ==
        "p.mesh:3:1: %a is returned in place of two parameters");
  CHECK(traced("%a = gelu %w : f32[2]\nreturn %a -> %w, %w") ==
        "p.mesh:2:23: %w is returned, but its memory was taken over");
  const std::string layouts = "%y = all_gather %x {over = data} : f32[3,5] [-, -]\nreturn %y -> %x";
  CHECK(local(layouts) == "p.mesh:3:1: %y is returned in place of %x, but is [-, -] and not [data, -]");
}

TEST_CASE("calls") {
  const auto message = [](std::string_view body) {
    return error_of(
        fmt::format(
            "mesh data=2\n"
            "func step(%w: f32[4] [data], %g: f32[4] [data]) {{ %new = add %w, %g : f32[4] [data] return %new -> %w "
            "}}\n"
            "func round(%i: i32[] [], %g: f32[4] [data]) {{ return %g }}\n"
            "func main(%w: f32[4] [data] param, %v: f32[4] [data], %x: f32[4] [-], %s: f32[3] [data]) {{\n{}\n}}\n",
            body),
        Level::local);
  };
  CHECK(message("call step as a (w = %w, g = %v)\nreturn %a.new -> %w") == "");
  CHECK(message("call step as a (w = %w, g = %s)\nreturn %a.new -> %w") ==
        "p.mesh:5:1: %g of func step is f32[4], but %s is f32[3]\n  call step as a (w = %w, g = %s)");
  CHECK(first_line(message("call step as a (w = %w, g = %x)\nreturn %a.new -> %w")) ==
        "p.mesh:5:1: %g of func step is [data], but %x is [-]");
  CHECK(first_line(message("call step as a (w = %w, g = %v)")) ==
        "p.mesh:5:1: %a.new takes over the memory of %w, a parameter that func main does not return in place");
  CHECK(first_line(message("call step as a (w = %w, g = %w)\nreturn %a.new -> %w")) ==
        "p.mesh:5:1: %w is passed twice, and %a.new takes over its memory");
  CHECK(first_line(message("call step as a (w = %w, g = %v)\n%y = gelu %w : f32[4] [data]\nreturn %a.new -> %w")) ==
        "p.mesh:6:1: %w is read after %a.new took over its memory");
  // A value of the function's own may be overwritten; a chain of calls stays in one memory.
  CHECK(message("%z = fill {value = 0.0} : f32[4] [data]\ncall step as a (w = %z, g = %v)\nreturn %a.new") == "");
  CHECK(message("call step as a (w = %w, g = %v)\ncall step as b (w = %a.new, g = %v)\nreturn %b.new -> %w") == "");
  CHECK(first_line(
            message("call step as a (w = %w, g = %v)\ncall step as b (w = %a.new, g = %v)\nreturn %a.new -> %w")) ==
        "p.mesh:5:1: %a.new is returned, but its memory was taken over");
  CHECK(first_line(message("call step as a (w = %w, g = %v)\n%b = gelu %a.new : f32[4] [data]\n%c = gelu %a.new : "
                           "f32[4] [data]\nreturn %b -> %w")) ==
        "p.mesh:7:1: %a.new is read after %b took over its memory");
  CHECK(first_line(
            message("call step as a (w = %w, g = %v)\n%b = gelu %v : f32[4] [data]\nreturn %a.new -> %v, %b -> %w")) ==
        "p.mesh:5:1: %a.new is returned in place of %v, but lies in the memory of %w");
  CHECK(message("repeat 3 call round as r (i = index, g = %v)\nreturn %r.g") == "");
  CHECK(first_line(message("repeat 3 call round as r (i = %v, g = index)")) ==
        "p.mesh:5:1: %i of func round is i32[], but %v is f32[4]");
  CHECK(first_line(message("repeat 3 call step as r (w = %w, g = index)\nreturn %r.new -> %w")) ==
        "p.mesh:5:1: %g of func step gets the number of the round and must be i32[], but is f32[4]");
}

TEST_CASE("states belong to params") {
  CHECK(error_of("func main(%x: f32[2], %m: f32[2] state of %x) { return %x }", Level::traced) ==
        "p.mesh:1:23: %m is the state of %x, which is no param");
}

TEST_CASE("what no text can have wrong is an internal error") {
  const Program good = parse(
      "mesh data=2\nfunc f(%x: f32[2]) { %y = gelu %x : f32[2] return %y }\nfunc main(%x: f32[2]) { call f as f.0 (x = "
      "%x) return %f.0.y }");
  verify(good, Level::traced);
  const auto breaks = [&](auto change, const std::string& what) {
    Program p = good;
    change(p);
    try {
      verify(p, Level::traced);
      FAIL("nothing thrown: " << what);
    } catch (const InternalError& error) {
      CHECK_THAT(error.what(), Catch::Contains(what));
    }
  };
  breaks([](Program& p) { p.main().ops[0].operands[0] = ValueId{7}; }, "an id is out of range");
  breaks([](Program& p) { p.main().ops[0].callee = 1; }, "calls no function above it");
  breaks([](Program& p) { p.main().values[1].name = "other"; }, "result %y is called %other");
  breaks([](Program& p) { p.main().values[1].type = Type{Dtype::f32, {3}}; }, "has another type than %y");
  breaks([](Program& p) { p.main().values[1].op = 3; }, "is made by op 0, but says 3");
  breaks([](Program& p) { p.main().values[0].name = "a b"; }, "is no name of a value");
  breaks([](Program& p) { p.functions[0].values[1].name = "x"; }, "two values are called %x");
  breaks([](Program& p) { p.functions[0].ops[0].operands[0] = ValueId{1}; }, "is read before it is made");
  breaks([](Program& p) { p.functions[0].name = "main"; }, "two functions are called main");
  breaks([](Program& p) { p.functions[0].ops[0].start = true; }, "gelu is no collective");
}

TEST_CASE("types and attributes are checked again") {
  Program p = parse("func main(%x: f32[2]) {\n  %y = scale %x {factor = 2.0} : f32[2]\n  return %y\n}");
  p.main().values[1].type = Type{Dtype::f32, {3}};
  CHECK_THROWS_WITH(
      verify(p, Level::traced),
      "p.mesh:2:3: scale gives f32[2] as result 0, but %y is f32[3]\n  %y = scale %x {factor = 2.0} : f32[3]");
  p.main().values[1].type = Type{Dtype::f32, {2}};
  p.main().ops[0].attributes.set("factr", 1.0);
  CHECK_THROWS_AS(verify(p, Level::traced), UserError);
}

}  // namespace
}  // namespace meshard
