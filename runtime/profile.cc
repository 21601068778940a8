#include "meshard/runtime/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>

namespace meshard {

Profile::Profile(const Executor& run, const ProfileOptions& options) : options_(options) {
  for (int d = 0; d < run.devices(); ++d) {
    const Flat& flat = run.flat(d);
    info_.emplace_back();
    starts_.emplace_back();
    for (size_t i = 0; i < flat.steps.size(); ++i) {
      info_.back().push_back(run.step_info(d, static_cast<int>(i)));
      starts_.back().push_back(flat.steps[i].kind == FlatStep::wait ? flat.steps[i].partner : static_cast<int>(i));
    }
    sums_.emplace_back(flat.steps.size());
  }
}

int64_t Profile::now() {
  const auto t = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(t).count();
}

void Profile::add(int device, int step, Phase phase, int64_t begin, int64_t end) {
  const auto d = static_cast<size_t>(device);
  if (run_ >= options_.sums_from) {
    Sum& sum = sums_[d][static_cast<size_t>(starts_[d][static_cast<size_t>(step)])];
    sum.busy += end - begin;
    if (phase != wait) ++sum.calls;
    if (phase == start) sum.started = end;
    if (phase == wait) sum.hidden += begin - sum.started;
  }
  if (run_ >= options_.events_from && run_ < options_.events_until) events_.push_back({begin, end, device, step, run_, phase});
}

void Profile::end_run() {
  if (run_ >= options_.sums_from) {
    run_ns_ += now() - run_begin_;
    ++counted_;
  }
  ++run_;
}

std::vector<Profile::Line> Profile::lines() const {
  std::map<std::string, Line> by_name;
  for (size_t d = 0; d < sums_.size(); ++d) {
    for (size_t i = 0; i < sums_[d].size(); ++i) {
      const Sum& sum = sums_[d][i];
      if (sum.calls == 0) continue;
      const StepInfo& info = info_[d][i];
      Line& line = by_name[info.name];
      line.name = info.name;
      line.collective = info.collective;
      line.calls += sum.calls;
      line.seconds += static_cast<double>(sum.busy) * 1e-9;
      line.hidden += static_cast<double>(sum.hidden) * 1e-9;
      line.flops += info.flops * static_cast<double>(sum.calls);
      line.bytes += static_cast<double>(info.bytes) * static_cast<double>(sum.calls);
    }
  }
  std::vector<Line> out;
  for (auto& [name, line] : by_name) out.push_back(std::move(line));
  std::stable_sort(out.begin(), out.end(), [](const Line& a, const Line& b) { return a.seconds > b.seconds; });
  return out;
}

std::string Profile::table() const {
  if (counted_ == 0) return "no run was timed\n";
  constexpr double kLeast = 0.01;
  const double runs = static_cast<double>(counted_), total = seconds();
  std::string out = fmt::format("  {:<28}{:>8}{:>12}{:>8}   {}\n", "op", "share", "ms", "calls", "reaches");
  const auto add = [&](const std::string& name, double s, int64_t calls, const std::string& reaches) {
    const std::string count = calls > 0 ? fmt::format("{:.0f}", static_cast<double>(calls) / runs) : "";
    std::string line = fmt::format("  {:<28}{:>6.1f} %{:>12.3f}{:>8}   {}", name, 100 * s / total, 1e3 * s / runs, count, reaches);
    line.resize(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  double rest = total, small = 0;
  int64_t small_calls = 0;
  int small_names = 0;
  for (const Line& line : lines()) {
    rest -= line.seconds;
    if (line.seconds < kLeast * total && !line.collective) {
      small += line.seconds;
      small_calls += line.calls;
      ++small_names;
      continue;
    }
    std::string reaches;
    if (line.collective) {
      reaches = line.bytes > 0 ? fmt::format("{:.2f} GB/s; {:.3f} ms between start and wait", line.bytes / line.seconds * 1e-9, 1e3 * line.hidden / runs) : "";
    } else if (line.flops > 0) {
      reaches = fmt::format("{:.1f} GFLOP/s", line.flops / line.seconds * 1e-9);
    }
    add(line.name, line.seconds, line.calls, reaches);
  }
  if (small_names > 0) add(fmt::format("{} other op{}", small_names, small_names == 1 ? "" : "s"), small, small_calls, "");
  add("between the ops", std::max(0.0, rest), 0, "");
  return out;
}

}  // namespace meshard
