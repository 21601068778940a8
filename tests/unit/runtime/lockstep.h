// What the tests of the executor run: a local program, written as text, in lockstep.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "meshard/collectives/lockstep.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/executor.h"

namespace meshard {

// A local program on all devices of its mesh.
struct Lockstep {
  explicit Lockstep(const std::string& text) : compiled(compile_local(parse_program(text, "test", op_table()))) {
    const Mesh& mesh = *compiled.local.mesh;
    comms = lockstep_communicators(static_cast<int>(mesh.size()));
    std::vector<Rank> ranks;
    for (auto& c : comms) {
      devices.push_back(c.get());
      ranks.push_back(c->rank());
    }
    state.emplace(compiled.local, ranks);
    state->init(0);
    executor.emplace(compiled, &*state, devices);
  }

  void set(const std::string& name, std::vector<float> values, Shape shape) {
    executor->set_input(name, View{values.data(), Dtype::f32, std::move(shape)});
  }

  Compiled compiled;
  std::vector<std::unique_ptr<Communicator>> comms;
  std::vector<Communicator*> devices;
  std::optional<State> state;
  std::optional<Executor> executor;
};

}  // namespace meshard
