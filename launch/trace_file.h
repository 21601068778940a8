// A trace of some steps, for chrome://tracing and ui.perfetto.dev: what each device computed and sent, on one clock.
#pragma once

#include <fstream>
#include <span>
#include <string>

#include "meshard/launch/job.h"
#include "meshard/runtime/profile.h"

namespace meshard {

constexpr int kTracedDevices = 16;  // of a larger mesh the first ones: a trace is for people

// Writes the spans that the profiles of all processes kept; rank 0 writes. Each host's clock is set against rank 0's by a
// barrier, to some ten microseconds. Collective over the job. `out` is rank 0's open file.
void write_trace(Job& job, const Profile& profile, std::span<Communicator* const> devices, const std::string& mesh, std::ofstream& out);

}  // namespace meshard
