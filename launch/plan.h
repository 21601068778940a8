// meshard plan: the communication bill of a model's training step or of a program text, on any virtual mesh; why each
// collective is there, what another plan would cost, and limits that end with status 2 where the bill is over them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "meshard/launch/args.h"
#include "meshard/launch/job.h"

namespace meshard {

std::vector<Flag> plan_flags();
int run_plan(Job& job, std::span<const std::string> words);

}  // namespace meshard
