// Progress: one line a step, rewritten in place on a terminal and thinned out elsewhere.
#pragma once

#include <chrono>
#include <cstdint>

namespace meshard {

class Progress {
 public:
  // Prints nothing where `speak` is false.
  Progress(int64_t steps, int64_t tokens_per_step, bool speak);
  // After step `step` (from 0). Returns the step's seconds.
  double step(int64_t step, double loss, double grad_norm, double rate);
  void finish();  // ends the line
  double tokens_per_second() const;  // over the last steps

 private:
  using Clock = std::chrono::steady_clock;
  int64_t steps_, tokens_;
  bool speak_, terminal_;
  Clock::time_point begin_, last_, printed_;
  double smooth_ = 0;  // seconds a step
};

}  // namespace meshard
