// Training runs of small models on any plan and mesh, in lockstep, for tests: what a run gives, and what it has to be
// equal to.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/shape.h"
#include "meshard/models/optimizer.h"
#include "meshard/runtime/compile.h"

namespace meshard {

struct Job {
  std::string model = "gpt-tiny";  // preset and overrides
  std::string plan;                // of models/plans; "": one device, no plan
  std::string mesh;                // "data=3"; unused without a plan
  Dtype dtype = Dtype::f64;
  int64_t batch = 5, seq = 16, steps = 5;
  int64_t accumulate = 1;
  Backend* backend = nullptr;  // null: the host
  bool graph = true;
  bool mixed = false;       // `narrow` beside f32
  Dtype narrow = Dtype::bf16;
  std::vector<std::string> keep_f32;
  std::optional<LossScaleConfig> loss_scale;
  int64_t begin = 0;  // the first step; those before it were made by another run, ...
  const std::map<std::string, std::vector<double>>* start_from = nullptr;  // ... which left these: Outcome::last
  std::string name() const;
};

struct Outcome {
  std::vector<double> losses, grad_norms;            // of each step
  std::vector<double> scales;                        // of the loss, after each step; empty without one
  std::map<std::string, std::vector<double>> first;  // parameters and states before the first step, whole
  std::map<std::string, std::vector<double>> last;   // after the last
  std::vector<int64_t> received;                     // bytes of each device, all steps
  std::vector<int64_t> allocated, planned;           // bytes of each device
  Bill bill;
};

Compiled compile_job(const Job& job);
// Trains at learning rate 1e-3 on made-up text, the same for equal model, batch, seq and step.
Outcome train_job(const Job& job);

// The largest relative difference of a step's loss; infinite where one is no number.
double largest_difference(const std::vector<double>& losses, const std::vector<double>& expected);
// What is not as it must be, empty if all is: first values bit for bit those of `one`, bytes received those of the bill
// on every device, memory allocated that of the plan.
std::string disagreement(const Job& job, const Outcome& run, const Outcome& one);

// Axis sizes that a plan can run on with so many devices: "data=2, model=3" and "data=3, model=2" for data_tensor
// and 6.
std::vector<std::string> meshes(std::string_view plan, int64_t devices);

}  // namespace meshard
