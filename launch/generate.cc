#include "meshard/launch/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

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
  std::vector<int64_t>& widths = options.widths;
  if (widths.empty() || widths[0] != 1 || std::adjacent_find(widths.begin(), widths.end(), std::greater_equal<>()) != widths.end())
    throw UserError("a generator's widths rise from 1: a program for one token, and others for several");
  while (widths.size() > 1 && widths.back() > options.length) widths.pop_back();
  const Plan lenient = plan.all_optional();
  GeneratorPrograms out{options, {}};
  for (const int64_t width : widths) out.programs.push_back(compile(trace_tokens(model, options, width), lenient, mesh, options.compile));
  return out;
}

Generator::Generator(const GeneratorPrograms& programs, State& state, std::span<Communicator* const> devices, const ExecutorOptions& options)
    : options_(programs.options) {
  for (const Compiled& program : programs.programs) executors_.push_back(std::make_unique<Executor>(program, &state, devices, options));
}

std::vector<double> Generator::feed(std::span<const int32_t> tokens) {
  const auto all = static_cast<int64_t>(tokens.size());
  const int64_t n = all / options_.batch;
  if (n < 1 || n * options_.batch != all || n > room()) {
    throw UserError(fmt::format("{} tokens for {} sequences of which {} positions are free; give as many of each, from 1 to that number", all,
                                options_.batch, room()));
  }
  size_t w = 0;
  for (int64_t done = 0, count = 0; done < n; done += count) {
    // The narrowest program that takes what is left, or the widest.
    for (w = 0; w + 1 < executors_.size() && options_.widths[w] < n - done;) ++w;
    const int64_t width = options_.widths[w];
    count = std::min(width, n - done);
    // What is behind the last token is seen by none before it, and is written over later.
    std::vector<int32_t> block(static_cast<size_t>(options_.batch * width), 0);
    for (int64_t b = 0; b < options_.batch; ++b) std::copy_n(tokens.begin() + b * n + done, count, block.begin() + b * width);
    int32_t start = static_cast<int32_t>(position_), at = static_cast<int32_t>(count - 1);
    Executor& e = *executors_[w];
    e.set_input("tokens", View{block.data(), Dtype::i32, {options_.batch, width}});
    e.set_input("start", View{&start, Dtype::i32, {}});
    e.set_input("at", View{&at, Dtype::i32, {}});
    e.run();
    position_ += count;
  }
  const View next = executors_[w]->result("next");
  std::vector<double> scores(static_cast<size_t>(next.elements()));
  read_doubles(next, scores.data());
  return scores;
}

}  // namespace meshard
