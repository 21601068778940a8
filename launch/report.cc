#include "meshard/launch/report.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <thread>

#include "meshard/backend/measure.h"
#include "meshard/kernels/machine.h"

namespace meshard {
namespace {

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

}  // namespace

double train_flops_per_token(const ModelConfig& m, int64_t seq) {
  const auto d = static_cast<double>(m.d);
  const double attention = d * static_cast<double>(m.heads * m.d_head) * 2 + d * static_cast<double>(m.kv_heads * m.d_head) * 2;
  const double mlp = (m.family == ModelConfig::llama ? 3 : 2) * d * static_cast<double>(m.f);
  const double products = static_cast<double>(m.layers) * (attention + mlp) + static_cast<double>(m.vocab) * d;
  return 6 * products + 12 * static_cast<double>(m.layers * m.heads * m.d_head) * static_cast<double>(seq);
}

void print_plan(const ModelConfig& model, const std::string& plan, const Compiled& step, int64_t batch, int64_t seq, double flops_per_token) {
  fmt::print("{}: {} parameters, {} layers, d {}; batch {} x {} tokens; mesh {}; plan {}\n", model.name, param_count(model), model.layers, model.d,
             batch, seq, step.bill.mesh.size() == 1 ? "of one device" : step.bill.mesh.str(), plan);
  fmt::print("{:.3g} flops a token; peak memory {} a device\n\ncommunication bill of one step:\n{}\n", flops_per_token,
             bytes_text(step.bill.peak_bytes), step.bill.table(false));
  std::fflush(stdout);
}

void print_warnings(const Compiled& step) {
  for (const Diagnostic& w : step.warnings) fmt::print(stderr, "meshard: warning: {}\n", w.str());
}

std::string log_header(const ModelConfig& model, const Plan& plan, const Compiled& step, int64_t batch, int64_t seq, uint64_t seed,
                       double flops_per_token) {
  nlohmann::ordered_json j;
  j["version"] = 1;
  j["model"] = model.name;
  j["parameters"] = param_count(model);
  j["mesh"] = nlohmann::ordered_json::object();
  for (const Axis& axis : step.bill.mesh.axes()) j["mesh"][axis.name] = axis.size;
  j["plan"] = {{"name", plan.file()}, {"text", plan.text()}};
  j["batch"] = batch;
  j["seq"] = seq;
  j["seed"] = seed;
  j["flops_per_token"] = flops_per_token;
  j["bytes"] = step.bill.bytes;
  j["peak_bytes"] = step.bill.peak_bytes;
  j["machine"] = {{"processor", processor()}, {"cores", std::thread::hardware_concurrency()}, {"host", Job::host()}};
  return j.dump() + "\n";
}

bool report_communication(Job& job, std::span<Communicator* const> devices, const Bill& bill, int64_t steps, int64_t received) {
  std::vector<int64_t> seen;
  if (devices.size() > 1) {
    for (Communicator* c : devices) seen.push_back(c->received_bytes());
  } else {
    for (const std::string& s : job.gather(fmt::format("{}", received))) seen.push_back(std::stoll(s));
  }
  const HostTraffic traffic = devices[0]->host_traffic();
  int64_t crossed = 0;  // of all ranks
  if (traffic.hosts > 1) {
    for (const std::string& s : job.gather(fmt::format("{}", traffic.received))) crossed += std::stoll(s);
  }
  bool equal = true;
  for (size_t r = 0; r < seen.size(); ++r) equal &= seen[r] == bill.device_bytes[r] * steps;
  if (!job.first()) return equal;
  fmt::print("\ncommunication, bytes received in {} steps:\n", steps);
  constexpr size_t kShown = 8;
  for (size_t r = 0; r < std::min(seen.size(), kShown); ++r) {
    fmt::print("  device {:<3} ({})  seen {}  billed {}\n", r, bill.mesh.coordinate_text(Rank{static_cast<int32_t>(r)}), seen[r], bill.device_bytes[r] * steps);
  }
  if (seen.size() > kShown) fmt::print("  ... and {} more\n", seen.size() - kShown);
  if (traffic.hosts > 1) {
    fmt::print("  between {} hosts, in the whole run: {} bytes; on rank 0 {} calls in phases, {} as messages between all pairs\n", traffic.hosts, crossed,
               traffic.in_phases, traffic.flat);
  }
  fmt::print("  {}\n\n", equal ? "what was seen is what was billed" : "SEEN AND BILLED DIFFER");
  return equal;
}

void report_steps(Job& job, const Profile& profile, const Executor& run, std::span<const double> captured, int threads, double flops_per_step,
                  Backend* backend, Dtype dtype) {
  double exposed = 0;
  for (const Profile::Line& line : profile.lines()) exposed += line.collective ? line.seconds : 0;
  rusage use{};
  getrusage(RUSAGE_SELF, &use);  // before the measurement takes memory of its own
  const MachineBounds mine = backend != nullptr ? measure_backend(*backend, dtype) : measure_machine({.threads = threads});
  const double runs = static_cast<double>(std::max<int64_t>(1, profile.runs()));
  double matmul = 0, copy = 0, least = INFINITY, most = 0;
  int64_t resident = 0;
  for (const std::string& s : job.gather(fmt::format("{} {} {} {}", mine.matmul_flops, mine.copy_bytes, exposed / runs, use.ru_maxrss))) {
    std::istringstream in(s);
    double flops = 0, bytes = 0, seconds = 0;
    int64_t kib = 0;
    in >> flops >> bytes >> seconds >> kib;
    matmul += flops;
    copy += bytes;
    least = std::min(least, seconds);
    most = std::max(most, seconds);
    resident = std::max(resident, kib * 1024);
  }
  if (!job.first() || profile.runs() == 0) return;
  double step = profile.seconds() / runs;
  fmt::print("time of a step on {}, mean of {}{}: {:.2f} ms\n{}", run.devices() > 1 ? "all devices in turn" : "device 0", profile.runs(),
             backend != nullptr ? ", each op waited for" : "", 1e3 * step, profile.table());
  if (!captured.empty()) {
    step = std::accumulate(captured.begin(), captured.end(), 0.0) / static_cast<double>(captured.size());
    fmt::print("  as a graph, mean of {}: {:.2f} ms\n", captured.size(), 1e3 * step);
  }
  if (job.size() > 1) fmt::print("  exposed communication of a step: {:.2f} ms to {:.2f} ms, by rank\n", 1e3 * least, 1e3 * most);
  int64_t allocated = 0, planned = 0;
  for (int d = 0; d < run.devices(); ++d) {
    allocated = std::max(allocated, run.allocated_bytes(d));
    planned = std::max(planned, run.memory(d).peak_bytes());
  }
  fmt::print("  {:.4g} GFLOP/s over the whole step: {:.0f} % of the {:.4g} that a plain {} product reaches here; a copy moves {:.1f} GB/s\n"
             "  memory of a device: planned {}, allocated {}; the largest process has held {}\n",
             flops_per_step / step * 1e-9, 100 * flops_per_step / step / matmul, matmul * 1e-9, backend != nullptr ? name(dtype) : "matrix", copy * 1e-9, bytes_text(planned), bytes_text(allocated),
             bytes_text(resident));
}

std::string printable(const std::string& bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto c = static_cast<unsigned char>(bytes[i]);
    const bool plain = (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t';
    if (plain) {
      out.push_back(static_cast<char>(c));
    } else {
      out += fmt::format("\\x{:02x}", c);
    }
  }
  return out;
}

}  // namespace meshard
