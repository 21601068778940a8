// Generator: continues sequences of tokens. Keys and values of what it has seen are kept, so that a further token costs one
// pass over the weights and not one over the sequence.
//
//   GeneratorPrograms programs = compile_generator(model, plan, mesh, {.length = 1024});
//   State state(programs.local(), ranks);              // or state.add(programs.local()) beside a training step
//   Generator g(programs, state, devices);
//   std::vector<double> scores = g.feed(prompt);       // of what comes next: [batch, vocab]
//   scores = g.feed(chosen);                           // one token for each sequence
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "meshard/models/model.h"
#include "meshard/runtime/executor.h"

namespace meshard {

struct GeneratorOptions {
  int64_t batch = 1;
  int64_t length = 1024;  // positions kept; of a GPT at most its context
  std::vector<int64_t> widths = {1, 16, 64};  // tokens taken at a time: a program for each, the first 1
  Dtype dtype = Dtype::f32;
  CompileOptions compile;
};

// Programs over one State, of rising width.
struct GeneratorPrograms {
  GeneratorOptions options;
  std::vector<Compiled> programs;
  const Program& local() const { return programs.front().local; }
};

// Lines of the plan that match nothing are passed over: it may be one for training. Scores are whole on every device. Widths
// above the length are left out. Errors as of compile and cached_logits, and widths that do not rise from 1.
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
  GeneratorOptions options_;
  std::vector<std::unique_ptr<Executor>> executors_;  // of each width
  int64_t position_ = 0;
};

}  // namespace meshard
