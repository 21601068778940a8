// The executor on local programs written as text: halves of collectives, loops, guards, results in place, inputs, memory.
#include "meshard/runtime/executor.h"

#include <catch2/catch.hpp>

#include "lockstep.h"

namespace meshard {
namespace {

using Doubles = std::vector<double>;

TEST_CASE("a started collective may be read after its wait, and its operand lives until then") {
  Lockstep w(R"(mesh model=2
func main(%x: f32[5] [model]) {
  %y = start all_gather %x {over = model} : f32[5] [-]
  %a = square %x : f32[5] [model]
  %b = square %a : f32[5] [model]
  wait %y
  %z = add %y, %y : f32[5] [-]
  return %z, %b
}
)");
  w.set("x", {1, 2, 3, 4, 5}, {5});
  w.executor->run();
  CHECK(w.executor->whole("z") == Doubles{2, 4, 6, 8, 10});
  CHECK(w.executor->whole("b") == Doubles{1, 16, 81, 256, 625});
  CHECK(w.devices[0]->received_bytes() == 2 * 4);  // device 0 holds 3 of 5
  CHECK(w.devices[1]->received_bytes() == 3 * 4);
}

TEST_CASE("a repeat carries what is returned in place and counts its rounds") {
  Lockstep w(R"(mesh data=2
func round(%i: i32[] [], %rows: f32[4,3] [-, data], %sum: f32[3] [data]) {
  %row = take %rows, %i : f32[3] [data]
  %sum.new = add %sum, %row : f32[3] [data]
  return %sum.new -> %sum
}
func main(%rows: f32[4,3] [-, data]) {
  %start = fill {value = 0.5} : f32[3] [data]
  repeat 4 call round as r (i = index, rows = %rows, sum = %start)
  return %r.sum.new
}
)");
  w.set("rows", {1, 2, 3, 10, 20, 30, 100, 200, 300, 1000, 2000, 3000}, {4, 3});
  for (int again = 0; again < 2; ++again) {
    w.executor->run();
    CHECK(w.executor->whole("r.sum.new") == Doubles{1111.5, 2222.5, 3333.5});
  }
}

TEST_CASE("a role that a function returns is copied only where its caller overwrites the argument") {
  const auto copies = [](std::string_view overwrites) {
    const Program program = parse_program(std::string(R"(mesh data=1
func named(%g: f32[3] [-]) {
  %n = neg %g : f32[3] [-]
  %t = total %g : f32[3] [-]
  return %n, %t
}
func twice(%p: f32[3] [-]) {
  %d = add %p, %p : f32[3] [-]
  return %d -> %p
}
func main(%x: f32[3] [-]) {
  %y = square %x : f32[3] [-]
  call named as a (g = %y)
)") + std::string(overwrites) + "  %z = sub %a.t, %a.n : f32[3] [-]\n  return %z\n}\n", "test", op_table());
    const Flat flat = flatten(program, Rank{0});
    return std::count_if(flat.steps.begin(), flat.steps.end(), [](const FlatStep& s) { return s.kind == FlatStep::copy; });
  };
  CHECK(copies("") == 0);
  CHECK(copies("  call twice as b (p = %y)\n") == 1);
}

TEST_CASE("a guarded op runs where its coordinate is") {
  Lockstep w(R"(mesh pipe=2
func main(%x: f32[2] [-]) {
  %y = square %x at pipe=1 : f32[2] [-]
  return %y
}
)");
  w.set("x", {3, 3}, {2});
  w.executor->run();
  CHECK(w.executor->result("y", 1).as<float>()[0] == 9);
  CHECK(w.executor->result("y", 0).as<float>()[0] == 0);  // never written
}

TEST_CASE("a whole value is taken as a sum by one device") {
  Lockstep w(R"(mesh model=3
func main(%x: f32[2] [-]) {
  %x@1 = slice %x {over = model} : f32[2] [-] + sum(model)
  %y = all_reduce %x@1 {over = model} : f32[2] [-]
  return %y
}
)");
  w.set("x", {3, 4}, {2});
  w.executor->run();
  CHECK(w.executor->whole("y") == Doubles{3, 4});
}

TEST_CASE("parameters are updated in place, and the peak is what is allocated") {
  Lockstep w(R"(mesh data=2
func main(%x: f32[5] [data], %w: f32[5] [data] param init=ones) {
  %g = square %x : f32[5] [data]
  %w.new = add %w, %g : f32[5] [data]
  return %w.new -> %w
}
)");
  w.set("x", {1, 2, 3, 4, 5}, {5});
  w.executor->run();
  w.executor->run();
  CHECK(w.state->gather("w") == Doubles{3, 9, 19, 33, 51});
  for (int d = 0; d < 2; ++d) CHECK(w.executor->allocated_bytes(d) == w.executor->memory(d).peak_bytes());
  CHECK(w.compiled.bill.peak_bytes == w.executor->allocated_bytes(0));
  CHECK(w.executor->memory(0).arena_bytes >= w.executor->memory(0).live_bytes);
}

TEST_CASE("inputs are checked") {
  Lockstep w(R"(mesh data=2
func main(%tokens: i32[2,3] [data, -] below=5, %x: f32[5] [data]) {
  %y = square %x : f32[5] [data]
  return %y
}
)");
  std::vector<int32_t> ids{0, 1, 2, 3, 5, 4};
  CHECK_THROWS_WITH(w.executor->set_input("tokens", View{ids.data(), Dtype::i32, {2, 3}}), "tokens[1,1] is 5, not in 0 .. 4");
  CHECK_THROWS_WITH(w.executor->set_input("token", View{ids.data(), Dtype::i32, {2, 3}}),
                    "the program has no input \"token\"; did you mean \"tokens\"?");
  CHECK_THROWS_WITH(w.executor->set_input("tokens", View{ids.data(), Dtype::i32, {3, 2}}), "input tokens is i32[3,2], the program takes i32[2,3]");
  CHECK_THROWS_WITH(w.executor->scalar("z"), "the program returns no \"z\"");
}

TEST_CASE("one message carries several values, uneven and empty ones too") {
  Lockstep w(R"(mesh model=3
func main(%x: f32[5] [model], %y: f32[2,4] [-, model], %z: f32[2,3] [model, -]) {
  %x.all, %y.all, %z.all = all_gather %x, %y, %z {over = model} : f32[5] [-], f32[2,4] [-, -], f32[2,3] [-, -]
  %y.t, %z.t = start all_to_all %y, %z {over = model} : f32[2,4] [model, -], f32[2,3] [-, model]
  %p = slice %x.all {over = model} : f32[5] [-] + sum(model)
  wait %y.t
  %q = slice %y.all {over = model} : f32[2,4] [-, -] + sum(model)
  %r = slice %z.all {over = model} : f32[2,3] [-, -] + sum(model)
  %p.new, %q.new, %r.new = reduce_scatter %p, %q, %r {over = model} : f32[5] [model], f32[2,4] [model, -], f32[2,3] [-, model]
  %p.one, %q.one = start all_reduce %p, %q {over = model} : f32[5] [-], f32[2,4] [-, -]
  wait %p.one
  return %x.all, %y.all, %z.all, %y.t, %z.t, %p.new, %q.new, %r.new, %p.one, %q.one
}
)");
  const Doubles x{1, 2, 3, 4, 5}, y{1, 2, 3, 4, 5, 6, 7, 8}, z{1, 2, 3, 4, 5, 6};
  w.set("x", {1, 2, 3, 4, 5}, {5});
  w.set("y", {1, 2, 3, 4, 5, 6, 7, 8}, {2, 4});
  w.set("z", {1, 2, 3, 4, 5, 6}, {2, 3});
  for (int again = 0; again < 2; ++again) w.executor->run();
  for (const std::string name : {"x.all", "p.new", "p.one"}) CHECK(w.executor->whole(name) == x);
  for (const std::string name : {"y.all", "y.t", "q.new", "q.one"}) CHECK(w.executor->whole(name) == y);
  for (const std::string name : {"z.all", "z.t", "r.new"}) CHECK(w.executor->whole(name) == z);
  REQUIRE(w.compiled.bill.lines.size() == 4);
  CHECK(w.compiled.bill.lines[0].value == "%x.all, %y.all, %z.all");
  for (int d = 0; d < 3; ++d) {
    CHECK(w.devices[static_cast<size_t>(d)]->received_bytes() == 2 * w.compiled.bill.device_bytes[static_cast<size_t>(d)]);
    CHECK(w.executor->allocated_bytes(d) == w.executor->memory(d).peak_bytes());
    CHECK(w.devices[static_cast<size_t>(d)]->log().calls() == 2 * 4);
  }
}

TEST_CASE("a mesh needs as many devices as it has") {
  const Compiled c = compile_local(parse_program("mesh data=3\nfunc main(%x: f32[5] [data]) {\n  return %x\n}\n", "test", op_table()));
  auto comms = lockstep_communicators(2);
  std::vector<Communicator*> devices{comms[0].get(), comms[1].get()};
  CHECK_THROWS_WITH(Executor(c, nullptr, devices), Catch::Contains("mesh data=3 has 3 devices, but 2 ranks are running"));
}

}  // namespace
}  // namespace meshard
