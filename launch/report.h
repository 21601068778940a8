// What the meshard command says: the plan before the run, the log's header, the communication seen against the bill.
#pragma once

#include <span>
#include <string>

#include "meshard/launch/job.h"
#include "meshard/layout/plan.h"
#include "meshard/models/model.h"
#include "meshard/runtime/compile.h"
#include "meshard/runtime/profile.h"

namespace meshard {

// 6 P + 12 L d t: P the weights of matrix products (the embedding's as output too), attention not halved for causality.
double train_flops_per_token(const ModelConfig& model, int64_t seq);

void print_plan(const ModelConfig& model, const std::string& plan, const Compiled& step, int64_t batch, int64_t seq, double flops_per_token);
// To standard error, a line each: "meshard: warning: ...".
void print_warnings(const Compiled& step);
std::string log_header(const ModelConfig& model, const Plan& plan, const Compiled& step, int64_t batch, int64_t seq, uint64_t seed,
                       double flops_per_token);

// Prints a table of each rank's bytes against the bill; true if they are equal on all devices. Collective over the job.
bool report_communication(Job& job, std::span<Communicator* const> devices, const Bill& bill, int64_t steps, int64_t received);

// Where the time and the memory of the steps went, against what this machine can do, measured here by all processes at the
// same time. Rank 0 prints its own times and everybody's communication. Collective over the job. On a `backend` (else null)
// its bounds are those of products of `dtype` there, and `captured` has the seconds of steps that ran as graphs; the
// profile's are longer, since each op was waited for.
void report_steps(Job& job, const Profile& profile, const Executor& run, std::span<const double> captured, int threads, double flops_per_step,
                  Backend* backend, Dtype dtype);

// Control bytes and broken UTF-8 shown as "\x1b": a sample must not drive a terminal.
std::string printable(const std::string& bytes);

}  // namespace meshard
