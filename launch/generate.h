// Generator: continues sequences of tokens. Keys and values of what it has seen are kept, so that a further token costs one
// pass over the weights and not one over the sequence.
//
//   GeneratorPrograms programs = compile_generator(model, plan, mesh, {.length = 1024});
//   State state(programs.one.local, ranks);            // or state.add(programs.one.local) beside a training step
//   Generator g(programs, state, devices);
//   std::vector<double> scores = g.feed(prompt);       // of what comes next: [batch, vocab]
//   scores = g.feed(chosen);                           // one token for each sequence
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "meshard/models/model.h"
#include "meshard/runtime/executor.h"

namespace meshard {

struct GeneratorOptions {
  int64_t batch = 1;
  int64_t length = 1024;  // positions kept; of a GPT at most its context
  int64_t chunk = 64;     // tokens of a prompt taken at a time
  Dtype dtype = Dtype::f32;
  CompileOptions compile;
};

// Two programs over one State: many tokens at a time, and one.
struct GeneratorPrograms {
  GeneratorOptions options;
  Compiled many, one;
};

// Lines of the plan that match nothing are passed over: it may be one for training. Scores are whole on every device. Errors
// as of compile and cached_logits.
GeneratorPrograms compile_generator(const ModelConfig& model, const Plan& plan, const std::optional<Mesh>& mesh, GeneratorOptions options);

class Generator {
 public:
  // The State has the programs' parameters; both outlive the generator.
  Generator(const GeneratorPrograms& programs, State& state, std::span<Communicator* const> devices, const ExecutorOptions& options = {});

  // tokens [batch, n], n from 1 to room(): the scores behind the last of each sequence, [batch, vocab], the same on all ranks.
  // UserError: another number of tokens, no room.
  std::vector<double> feed(std::span<const int32_t> tokens);
  int64_t position() const { return position_; }  // tokens seen
  int64_t room() const { return options_.length - position_; }
  void reset() { position_ = 0; }  // forgets what it has seen

 private:
  void run(Executor& e, int64_t width, std::span<const int32_t> tokens, int64_t stride, int64_t first, int64_t count);

  GeneratorOptions options_;
  Executor many_, one_;
  int64_t position_ = 0;
};

}  // namespace meshard
