// Profile: where the time of a program's runs goes, on the devices of this process.
//
//   Profile profile(run, {.events_from = 2, .events_until = 5});
//   run.set_profile(&profile);
//   for (...) run.run();
//   fmt::print("{}", profile.table());
//
// Each step of the program is timed by the process's own clock, which all processes of a host share. A collective has two
// spans: its start, in which it packs and sends, and its wait, in which it receives and unpacks. Both hold up the device:
// that time is exposed. What passes between them is hidden behind other work.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "meshard/runtime/executor.h"

namespace meshard {

// What a step of a program is, for people: see Executor::step_info.
struct StepInfo {
  std::string name;    // the op's or the collective's; "copy"; "" for steps that only steer
  std::string place;   // "block.3: %h = einsum"
  std::string result;  // "%h: f32[32, 1024] [data, -]"
  bool collective = false;
  double flops = 0;    // on this device
  int64_t bytes = 0;   // received, of collectives
};

struct ProfileOptions {
  int64_t events_from = 0, events_until = 0;  // runs, counted from 0, of which single spans are kept
  int64_t sums_from = 0;                      // the first run that counts in the sums
};

class Profile {
 public:
  enum Phase : uint8_t { work, start, wait };
  struct Event {
    int64_t begin = 0, end = 0;  // nanoseconds of the process's clock
    int32_t device = 0, step = 0;
    int64_t run = 0;
    Phase phase = work;
  };
  // Of all steps with one name, over this process's devices and the runs that count.
  struct Line {
    std::string name;
    bool collective = false;
    int64_t calls = 0;
    double seconds = 0;  // exposed, of collectives
    double hidden = 0;   // of collectives: between start and wait
    double flops = 0, bytes = 0;
  };

  explicit Profile(const Executor& run, const ProfileOptions& options = {});

  static int64_t now();  // nanoseconds

  // By the executor.
  void begin_run() { run_begin_ = now(); }
  void add(int device, int step, Phase phase, int64_t begin, int64_t end);
  void end_run();

  int64_t runs() const { return counted_; }
  double seconds() const { return static_cast<double>(run_ns_) * 1e-9; }  // of the runs that count
  std::vector<Line> lines() const;                                        // by time, longest first
  // A mean run: each op's share, seconds, and what it reaches in flops or bytes a second. Ops of less than one percent
  // are put together.
  std::string table() const;

  const std::vector<Event>& events() const { return events_; }
  const StepInfo& info(int device, int step) const { return info_[static_cast<size_t>(device)][static_cast<size_t>(step)]; }

 private:
  struct Sum {
    int64_t calls = 0, busy = 0, hidden = 0, started = 0;
  };
  ProfileOptions options_;
  std::vector<std::vector<StepInfo>> info_;  // of each device's steps
  std::vector<std::vector<Sum>> sums_;
  std::vector<std::vector<int>> starts_;     // of a wait: the step that began it
  std::vector<Event> events_;
  int64_t run_ = 0, counted_ = 0, run_begin_ = 0, run_ns_ = 0;
};

}  // namespace meshard
