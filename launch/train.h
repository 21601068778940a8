// train: the training loop behind `meshard train`, on this process's devices.
#pragma once

#include <optional>
#include <string>

#include "meshard/launch/job.h"
#include "meshard/layout/plan.h"
#include "meshard/models/model.h"
#include "meshard/models/optimizer.h"
#include "meshard/runtime/compile.h"

namespace meshard {

struct TrainOptions {
  ModelConfig model;
  Plan plan;
  std::optional<Mesh> mesh;   // overrides the plan's
  std::string text;           // file or folder
  int64_t batch = 8;          // sequences a step, over all devices
  int64_t seq = 128;          // tokens of a sequence
  int64_t steps = 100;
  int64_t accumulate = 1;     // micro-batches a step
  uint64_t seed = 0;
  Dtype dtype = Dtype::f32;   // of parameters; activations may be narrower: compile.mixed
  bool lockstep = false;
  int threads = 1;            // of each kernel
  CompileOptions compile;     // the rewrites of the local program; threads as above; the backend that runs it
  bool graph = true;          // on a backend: see ExecutorOptions
  bool tf32 = false;          // on a backend: see allow_tf32; set before train() is called
  std::string log;            // JSON lines; "" for none
  std::string trace;          // of a few steps, for chrome://tracing; "" for none
  int64_t trace_steps = 3;
  int64_t sample = 0;         // bytes to generate at the end
  int64_t compare = 0;        // losses of a run on one device to set beside this one's at the end
  int64_t validate = 8;       // held-out batches at the end
  AdamWConfig optimizer;
  ScheduleConfig schedule;
};

// 0, or 1 if a check failed (losses differ, or bytes from the bill).
int train(Job& job, const TrainOptions& options);

}  // namespace meshard
