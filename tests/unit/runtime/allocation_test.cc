// A step allocates nothing: every operator new of this program is counted while one runs. Left out is what is not the executor's:
// oneDNN's products make their list of arguments anew, and lockstep's hub stands in for a network.
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "meshard/collectives/lockstep.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/executor.h"

namespace {
std::atomic<int64_t> allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes == 0 ? 1 : bytes)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace meshard {
namespace {

TEST_CASE("a step allocates nothing") {
  const Compiled c = compile(parse_program(R"(mesh data=2, model=2
func layer(%x: f32[6,5,8] [data, -, -], %up: f32[8,9] [-, model], %down: f32[9,8] [model, -]) {
  %h = einsum %x, %up {rule = "b t i, i j -> b t j"} : f32[6,5,9]
  %g = gelu %h : f32[6,5,9]
  %p = einsum %g, %down {rule = "b t j, j i -> b t i"} : f32[6,5,8]
  %y = add %x, %p : f32[6,5,8]
  return %y
}
func main(%x: f32[6,5,8] [data, -, -], %a.up: f32[8,9] [-, model] param init=ones, %a.down: f32[9,8] [model, -] param init=ones) {
  call layer as a (x = %x)
  %s = softmax %a.y : f32[6,5,8]
  %t = reshard %s : f32[6,5,8] [-, data, model]
  %m = mean %t {rule = "b t i -> "} : f32[]
  return %m, %t
}
)", "test", op_table()));
  auto comms = lockstep_communicators(4);
  std::vector<Communicator*> devices;
  std::vector<Rank> ranks;
  for (auto& comm : comms) {
    devices.push_back(comm.get());
    ranks.push_back(comm->rank());
  }
  State state(c.local, ranks);
  state.init(1);
  Executor e(c, &state, devices);
  // How many were made in each step's round over the devices.
  std::vector<int64_t> counts(1000, 0);
  int64_t before = 0;
  e.set_observer([&](int, const Flat&, int step) {
    counts[static_cast<size_t>(step)] += allocations - before;
    before = allocations;
  });
  before = allocations;
  e.run();
  std::fill(counts.begin(), counts.end(), 0);
  before = allocations;
  e.run();
  const Flat flat = flatten(c.local, Rank{0});
  int checked = 0;
  for (size_t i = 0; i < flat.steps.size(); ++i) {
    const Op* op = flat.steps[i].op;
    const bool talks = op != nullptr && op->def->collective && *op->def->collective != Collective::slice;
    if (talks || flat.steps[i].place.find("einsum") != std::string::npos) continue;
    INFO(flat.steps[i].place);
    CHECK(counts[i] == 0);
    ++checked;
  }
  CHECK(checked >= 5);
}

}  // namespace
}  // namespace meshard
