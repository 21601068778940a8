#include "meshard/runtime/session.h"

#include <catch2/catch.hpp>

#include "meshard/collectives/lockstep.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"

namespace meshard {
namespace {

// w [5] grows by row i of x [3, 5], times step; `all` is the sum of the new w.
Compiled counter(std::string_view plan) {
  Trace trace(op_table());
  Scope s = trace.scope();
  Value x = s.input("x", Dtype::f32, {3, 5});
  Value i = s.input("i", Dtype::i32, {}, 3);
  Value step = s.input("step", Dtype::f32, {});
  Value w = s.param("w", {5}, {Init::ones});
  Value next = (w + take(x, i) * step).named("next");
  trace.result(sum(next).named("all"));
  trace.result(next, trace.params()[0]);
  return compile(trace.program(), Plan::parse(plan));
}

const std::vector<double> kX{1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500};

TEST_CASE("a session runs on all devices of the mesh, keeps the state, and counts bytes") {
  for (const char* plan : {"mesh data=1", "mesh data=2\nx [data, -]", "mesh data=2, model=2\nx [data, model]\nw [model]"}) {
    INFO(plan);
    const Compiled program = counter(plan);
    Session session(program);
    session.set("x", kX);
    session.set("i", 2);
    session.set("step", 2);
    session.run();
    CHECK(session.scalar("all") == 5 + 2 * 1500);
    CHECK(session.state().gather("w") == std::vector<double>{201, 401, 601, 801, 1001});
    session.set("i", 1);
    session.run();
    CHECK(session.scalar("all") == 5 + 2 * 1500 + 2 * 150);
    for (int d = 0; d < program.local.mesh->size(); ++d) {
      CHECK(session.received_bytes(d) == 2 * program.bill.device_bytes[static_cast<size_t>(d)]);
    }
  }
}

TEST_CASE("a session runs on the caller's devices") {
  const Compiled program = counter("mesh data=2\nx [data, -]");
  auto owned = lockstep_communicators(2);
  std::vector<Communicator*> devices{owned[0].get(), owned[1].get()};
  Session session(program, devices);
  session.set("x", kX);
  session.set("i", 0);
  session.set("step", 1);
  session.run();
  CHECK(session.scalar("all") == 5 + 15);
  CHECK(owned[0]->received_bytes() == program.bill.device_bytes[0]);
}

TEST_CASE("what a session is given has to fit") {
  Session session(counter("mesh data=2\nx [data, -]"));
  CHECK_THROWS_WITH(session.set("x", std::vector<double>(14)), "input x is f32[3,5] with 15 elements; 14 were given");
  CHECK_THROWS_WITH(session.set("step", std::vector<double>{}), "input step is f32[] with 1 element; 0 were given");
  CHECK_THROWS_WITH(session.set("i", 0.5), "input i is i32[], element 0 is 0.5");
  CHECK_THROWS_WITH(session.set("i", 3e9), "input i is i32[], element 0 is 3000000000");
  CHECK_THROWS_WITH(session.set("i", 3), "i[] is 3, not in 0 .. 2");
  CHECK_THROWS_WITH(session.set("stp", 1), "the program has no input \"stp\"; did you mean \"step\"?");
}

}  // namespace
}  // namespace meshard
