#include "meshard/launch/not_finite.h"

#include <fmt/format.h>

#include <array>
#include <climits>
#include <cmath>
#include <cstdio>

#include "meshard/base/error.h"
#include "meshard/runtime/finite.h"

namespace meshard {
namespace {

std::string number(double x) { return std::isnan(x) ? "nan" : fmt::format("{:.6g}", x); }

// Runs the step again with its inputs.
std::string find_begin(Job& job, Executor& e) {
  const auto found = first_not_finite(e);
  int first = INT_MAX;
  std::string where = "run again, the step gives finite numbers alone";
  for (const std::string& s : job.gather(found ? fmt::format("{} {}", found->step, found->text) : "")) {
    if (s.empty() || std::stoi(s) >= first) continue;
    first = std::stoi(s);
    where = "it begins where " + s.substr(s.find(' ') + 1);
  }
  return where;
}

constexpr std::array<std::string_view, 3> kStates = {"loss_scale", "loss_scale.good", "loss_scale.skipped"};

void set_number(State& state, std::string_view name, double value) {
  const StateEntry* entry = state.find(name);
  Buffer bytes(size_bytes(entry->type.dtype));
  write_doubles(&value, View{bytes.data(), entry->type.dtype, {}});
  for (size_t d = 0; d < state.devices().size(); ++d) state.write(name, static_cast<int>(d), bytes.data());
}

}  // namespace

double state_number(const State& state, std::string_view name) {
  Buffer copy;
  double value = 0;
  read_doubles(state.read(name, 0, copy), &value);
  return value;
}

void end_not_finite(Job& job, Executor& e, int64_t step, double loss, double grad_norm) {
  e.set_profile(nullptr);
  throw UserError(fmt::format("step {}: the loss is {}, the gradient's norm {}: {}; try a lower --rate or a longer --warmup", step + 1, number(loss),
                              number(grad_norm), find_begin(job, e)));
}

void report_skipped(Job& job, Executor& e, State& state, int64_t step, double loss, double grad_norm) {
  std::array<double, kStates.size()> after{};
  for (size_t i = 0; i < kStates.size(); ++i) after[i] = state_number(state, kStates[i]);
  const double before = 2 * after[0];
  set_number(state, kStates[0], before);
  const std::string where = find_begin(job, e);
  for (size_t i = 0; i < kStates.size(); ++i) set_number(state, kStates[i], after[i]);
  const std::string text = fmt::format("step {}: the loss is {}, the gradient's norm {}: {}", step + 1, number(loss), number(grad_norm), where);
  if (after[0] < 1) {
    throw UserError(fmt::format("{}; with a loss scale of {} that is no overflow of f16 by the scale: try --dtype bf16, a lower --rate or a longer --warmup",
                                text, number(before)));
  }
  if (!job.first()) return;
  fmt::print("\nskipped {}; the loss scale goes from {} to {}\n", text, number(before), number(after[0]));
  std::fflush(stdout);
}

}  // namespace meshard
