#include "meshard/launch/generate.h"

#include <fmt/format.h>

#include <algorithm>

#include "meshard/base/error.h"
#include "meshard/ops/table.h"

namespace meshard {
namespace {

Program trace_tokens(const ModelConfig& model, const GeneratorOptions& o, int64_t width) {
  Trace trace(op_table(), o.dtype);
  const Scope s = trace.scope();
  const Value tokens = s.input("tokens", Dtype::i32, {o.batch, width}, model.vocab);
  const Value start = s.input("start", Dtype::i32, {}, o.length);
  const Value at = s.input("at", Dtype::i32, {}, width);
  trace.result(cached_logits(s, model, tokens, start, at, o.length));
  Program program = trace.program();
  // Whole on every device, whatever the plan and the mesh: each draws the same next token.
  program.mesh = Mesh();
  ValueInfo& next = program.main().value(program.main().find("next"));
  next.layout = Layout(2);
  next.pinned = true;
  return program;
}

}  // namespace

GeneratorPrograms compile_generator(const ModelConfig& model, const Plan& plan, const std::optional<Mesh>& mesh, GeneratorOptions options) {
  options.chunk = std::min(options.chunk, options.length);
  const Plan lenient = plan.all_optional();
  const auto make = [&](int64_t width) { return compile(trace_tokens(model, options, width), lenient, mesh, options.compile); };
  return {options, make(options.chunk), make(1)};
}

Generator::Generator(const GeneratorPrograms& programs, State& state, std::span<Communicator* const> devices, const ExecutorOptions& options)
    : options_(programs.options), many_(programs.many, &state, devices, options), one_(programs.one, &state, devices, options) {}

void Generator::run(Executor& e, int64_t width, std::span<const int32_t> tokens, int64_t stride, int64_t first, int64_t count) {
  // What is behind the last token is seen by none before it, and is written over later.
  std::vector<int32_t> block(static_cast<size_t>(options_.batch * width), 0);
  for (int64_t b = 0; b < options_.batch; ++b) std::copy_n(tokens.begin() + b * stride + first, count, block.begin() + b * width);
  int32_t start = static_cast<int32_t>(position_), at = static_cast<int32_t>(count - 1);
  e.set_input("tokens", View{block.data(), Dtype::i32, {options_.batch, width}});
  e.set_input("start", View{&start, Dtype::i32, {}});
  e.set_input("at", View{&at, Dtype::i32, {}});
  e.run();
  position_ += count;
}

std::vector<double> Generator::feed(std::span<const int32_t> tokens) {
  const auto all = static_cast<int64_t>(tokens.size());
  const int64_t n = all / options_.batch;
  if (n < 1 || n * options_.batch != all || n > room()) {
    throw UserError(fmt::format("{} tokens for {} sequences of which {} positions are free; give as many of each, from 1 to that number", all,
                                options_.batch, room()));
  }
  Executor* last = &one_;
  for (int64_t done = 0; done < n;) {
    const int64_t count = std::min(options_.chunk, n - done);
    last = count == 1 ? &one_ : &many_;
    run(*last, count == 1 ? 1 : options_.chunk, tokens, n, done, count);
    done += count;
  }
  const View next = last->result("next");
  std::vector<double> scores(static_cast<size_t>(next.elements()));
  read_doubles(next, scores.data());
  return scores;
}

}  // namespace meshard
