// A program on a backend: memory of its own, work done later, collectives between its devices, captured steps.
#include <catch2/catch.hpp>
#include <cstring>

#include "meshard/backend/backend.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/session.h"

namespace meshard {
namespace {

constexpr const char* kStep = R"(mesh data=2, model=2

main(input %x: f32[6,4] [data, -], param %w: f32[4,8] [-, model] {init = "normal", scale = 0.5}, input %rate: f32[] []) -> %loss, %w2 -> %w {
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

}  // namespace meshard
