// A program on a backend: memory of its own, work done later, collectives between its devices, captured steps.
#include <catch2/catch.hpp>
#include <cstring>

#include "meshard/backend/backend.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/session.h"

namespace meshard {
namespace {

// Three steps of AdamW, of which the last needs what the second makes.
constexpr const char* kStep = R"(meshard 1
mesh data=2

func main(
    %g: f32[6] [data],
    %h: f32[3] [data],
    %rate: f32[] [],
    %clip: f32[] [],
    %step: f32[] []) {
  %a, %am, %av = adamw %g, %g, %g, %g, %rate, %clip, %step {decay = 0.1} : f32[6], f32[6], f32[6]
  %b, %bm, %bv = adamw %h, %h, %h, %h, %rate, %clip, %step : f32[3], f32[3], f32[3]
  %c, %cm, %cv = adamw %b, %bm, %bv, %h, %rate, %clip, %step : f32[3], f32[3], f32[3]
  return %a, %am, %av, %b, %bm, %bv, %c, %cm, %cv
}
)";

}  // namespace

TEST_CASE("a backend does its work when it is waited for") {
  const auto device = emulated_backend();
  const Memory x(device.get(), 16), y(device.get(), 16);
  float numbers[4] = {1, 2, 3, 4}, back[4] = {};
  device->copy(x.data(), numbers, 16, Backend::compute);
  numbers[0] = 10;  // not copied yet
  device->wait_for(Backend::communication, Backend::compute);
  device->copy(y.data(), x.data(), 16, Backend::communication);
  device->copy(back, y.data(), 16, Backend::communication);
  CHECK(back[0] == 0);
  device->synchronize(Backend::compute);
  CHECK(back[0] == 0);
  device->synchronize(Backend::communication);
  CHECK(back[0] == 10);
  CHECK(back[3] == 4);

  device->begin_capture();
  const void* both[] = {x.data(), y.data()};
  device->fold(DeviceKernels::Fold::sum, Dtype::f32, x.data(), both, 4, Backend::compute);
  const auto graph = device->end_capture();
  for (int i = 0; i < 3; ++i) device->replay(*graph);
  device->copy(back, x.data(), 16, Backend::compute);
  device->synchronize(Backend::compute);
  CHECK(back[1] == 2 + 3 * 2);
}

TEST_CASE("steps of AdamW that need nothing of each other are made together") {
  const Program program = parse_program(kStep, "step.mesh", op_table());
  const Compiled compiled = compile(program);
  const auto device = emulated_backend();
  std::vector<std::vector<double>> made[2];
  for (const bool graph : {false, true}) {
    Session session(compiled, {.backend = device.get(), .graph = graph});
    session.set("g", std::vector<double>{0.5, 1, 2, 3, 4, 5});
    session.set("h", std::vector<double>{1, 2, 4});
    session.set("rate", 0.125);
    session.set("clip", 0.5);
    session.set("step", 2);
    for (int i = 0; i < 3; ++i) session.run();
    CHECK(session.executor().joined_steps(0) == 1);
    CHECK(session.executor().joined_steps(1) == 1);
    for (const char* result : {"a", "b", "c"}) made[graph].push_back(session.whole(result));
  }
  CHECK(made[0] == made[1]);
  CHECK(made[0][0][5] < 5);
}

}  // namespace meshard
