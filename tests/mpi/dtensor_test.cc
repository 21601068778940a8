// DTensors with one process a device: the same numbers as on one device, on every rank.
#include "meshard/runtime/dtensor.h"

#include <catch2/catch.hpp>
#include <memory>

#include "meshard/collectives/mpi.h"
#include "meshard/runtime/dtensor_functions.h"

namespace meshard {
namespace {

DTensor make(const Eager& e, const char* type, const char* layout) {
  std::vector<double> v;
  for (int64_t i = 0; i < Type::parse(type).shape.elements(); ++i) v.push_back(0.125 * static_cast<double>(i * 7 % 11 - 4));
  return e.tensor(type, v, layout);
}

std::vector<double> run(const Eager& e, const char* rows, const char* columns) {
  DTensor w = make(e, "f32[6,4]", rows);
  const DTensor x = make(e, "f32[5,6]", columns);
  std::vector<double> all;
  for (int step = 0; step < 3; ++step) {
    Tape tape(e);
    const DTensor y = einsum("b d, d f -> b f", x, w);
    const DTensor loss = mean(square(gelu(y) + 0.1));
    w = w - 0.5 * tape.gradients(loss, {w})[0];
    all.push_back(loss.item());
    for (double v : softmax(y).values()) all.push_back(v);
    if (step == 0) CHECK(y.redistribute(rows).values() == y.values());
  }
  const CompiledFunction f = e.compile([](const std::vector<DTensor>& v) { return std::vector<DTensor>{v[0] + sum(v[0])}; });
  for (double v : f({w})[0].values()) all.push_back(v);
  return all;
}

TEST_CASE("DTensors over ranks have the numbers of one device") {
  const auto comm = mpi_communicator(nullptr);
  const std::vector<Communicator*> devices{comm.get()};
  const Eager e(Mesh::parse("data=" + std::to_string(comm->size())), devices);
  const std::vector<double> want = run(Eager(Mesh()), "[-, -]", "[-, -]");
  for (const auto& [rows, columns] : {std::pair{"[data, -]", "[-, data]"}, std::pair{"[-, -]", "[data, -]"}, std::pair{"[-, data]", "[-, -]"}}) {
    INFO(rows << " " << columns);
    const std::vector<double> have = run(e, rows, columns);
    REQUIRE(have.size() == want.size());
    for (size_t i = 0; i < have.size(); ++i) CHECK(have[i] == Approx(want[i]).margin(1e-5));
  }
  CHECK_THROWS_WITH(Eager(Mesh::parse("data=5"), devices), Catch::StartsWith("the mesh data=5 has 5 devices, but "));
}

}  // namespace
}  // namespace meshard
