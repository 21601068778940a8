#include "meshard/launch/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace meshard {
namespace {

constexpr double kSecondsBetweenLines = 5;  // where the output is no terminal

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{}:{:02}", s / 60, s % 60);
}

// mpirun gives its ranks a terminal even where its own output is a file: there TERM=dumb says so.
bool on_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && (term == nullptr || std::string_view(term) != "dumb");
}

}  // namespace

Progress::Progress(int64_t steps, int64_t tokens_per_step, bool speak)
    : steps_(steps), tokens_(tokens_per_step), speak_(speak), terminal_(on_terminal()), begin_(Clock::now()), last_(begin_), printed_(begin_) {}

double Progress::step(int64_t step, double loss, double grad_norm, double rate) {
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  smooth_ = step == 0 ? seconds : 0.9 * smooth_ + 0.1 * seconds;
  const bool due = terminal_ || step == 0 || step + 1 == steps_ || std::chrono::duration<double>(now - printed_).count() >= kSecondsBetweenLines;
  if (!speak_ || !due) return seconds;
  printed_ = now;
  fmt::print("{}step {:>6}/{}  loss {:.4f}  grad norm {:.3f}  rate {:.2e}  {:>8.0f} tokens/s  left {}{}", terminal_ ? "\r" : "", step + 1, steps_, loss,
             grad_norm, rate, tokens_per_second(), clock_text(smooth_ * static_cast<double>(steps_ - step - 1)), terminal_ ? "  " : "\n");
  std::fflush(stdout);
  return seconds;
}

void Progress::finish() {
  if (speak_ && terminal_) fmt::print("\n");
}

double Progress::tokens_per_second() const { return smooth_ > 0 ? static_cast<double>(tokens_) / smooth_ : 0; }

}  // namespace meshard
