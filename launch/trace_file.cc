#include "meshard/launch/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace meshard {
namespace {

using Json = nlohmann::ordered_json;

const char* phase_name(Profile::Phase phase) {
  return phase == Profile::start ? "start" : phase == Profile::wait ? "wait" : "";
}

// Microseconds, to the nanosecond.
double micros(int64_t nanoseconds) { return static_cast<double>(nanoseconds) * 1e-3; }

Json event(const Profile& profile, const Profile::Event& e, int64_t rank, int64_t zero) {
  const StepInfo& info = profile.info(e.device, e.step);
  const std::string phase = phase_name(e.phase);
  Json args{{"run", e.run}, {"at", info.place}, {"gives", info.result}};
  if (info.collective) args["bytes"] = info.bytes;
  if (info.flops > 0) args["flops"] = info.flops;
  return Json{{"name", phase.empty() ? info.name : fmt::format("{} {}", info.name, phase)},
              {"cat", info.collective ? "communication" : "compute"},
              {"ph", "X"},
              {"ts", micros(e.begin - zero)},
              {"dur", micros(e.end - e.begin)},
              {"pid", rank},
              {"tid", info.collective ? 1 : 0},
              {"args", std::move(args)}};
}

Json label(const char* what, int64_t rank, int thread, const std::string& name) {
  return Json{{"name", what}, {"ph", "M"}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

}  // namespace

void write_trace(Job& job, const Profile& profile, std::span<Communicator* const> devices, const std::string& mesh, std::ofstream& out) {
  job.gather("");
  const int64_t here = Profile::now();
  int64_t first = INT64_MAX;
  for (const Profile::Event& e : profile.events()) first = std::min(first, e.begin);
  if (profile.events().empty()) first = here;
  // Processes of one host share a clock; others are told apart by when they left the barrier.
  const std::vector<std::string> clocks = job.gather(fmt::format("{} {} {}", Job::host(), here, here - first));
  std::string host;
  int64_t now = 0, earliest = 0;
  for (size_t r = 0; r < clocks.size(); ++r) {
    const size_t second = clocks[r].rfind(' '), space = clocks[r].rfind(' ', second - 1);
    if (r == 0) {
      host = clocks[r].substr(0, space);
      now = std::stoll(clocks[r].substr(space + 1));
    }
    earliest = std::max(earliest, static_cast<int64_t>(std::stoll(clocks[r].substr(second + 1))));
  }
  const int64_t zero = (Job::host() == host ? now : here) - earliest;
  std::string mine;
  for (size_t d = 0; d < devices.size(); ++d) {
    const int64_t rank = index(devices[d]->rank());
    if (rank >= kTracedDevices) continue;
    mine += label("process_name", rank, 0, fmt::format("device {}", rank)).dump() + ",\n" + label("thread_name", rank, 0, "compute").dump() + ",\n" +
            label("thread_name", rank, 1, "communication").dump() + ",\n";
  }
  for (const Profile::Event& e : profile.events()) {
    const int64_t rank = index(devices[static_cast<size_t>(e.device)]->rank());
    if (rank < kTracedDevices) mine += event(profile, e, rank, zero).dump() + ",\n";
  }
  const std::vector<std::string> all = job.gather(mine);
  if (!job.first()) return;
  out << "{\"otherData\": " << Json{{"format", "meshard trace"}, {"version", 1}, {"mesh", mesh}}.dump() << ",\n\"traceEvents\": [\n";
  for (const std::string& part : all) out << part;
  out << label("process_sort_index", 0, 0, "0").dump() << "\n]}\n" << std::flush;
}

}  // namespace meshard
