#include "meshard/launch/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "meshard/backend/measure.h"
#include "meshard/base/buffer.h"
#include "meshard/collectives/lockstep.h"
#include "meshard/ir/parse.h"
#include "meshard/kernels/machine.h"
#include "meshard/launch/bench_works.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"
#include "meshard/runtime/executor.h"
#include "meshard/runtime/profile.h"

namespace meshard {
namespace {

using Json = nlohmann::ordered_json;

// "f32[4,3], i32[4]" as types.
std::vector<std::string> split_types(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find(']', at) + 1;
    out.emplace_back(text.substr(at, end - at));
    at = std::min(text.size(), end + 2);
  }
  return out;
}

std::string program_text(const Work& w) {
  std::string params, operands, results, types;
  int n = 0;
  for (const std::string& type : split_types(w.operands)) {
    params += fmt::format("{}%x{}: {}", n == 0 ? "" : ", ", n, type);
    operands += fmt::format("{}%x{}", n == 0 ? "" : ", ", n);
    ++n;
  }
  n = 0;
  for (const std::string& type : split_types(w.results)) {
    results += fmt::format("{}%y{}", n == 0 ? "" : ", ", n);
    types += fmt::format("{}{}", n == 0 ? "" : ", ", type);
    ++n;
  }
  return fmt::format("func main({}) {{\n  {} = {} {} {} : {}\n  return {}\n}}\n", params, results, w.op, operands, w.attributes, types, results);
}

// Numbers around zero whose scale keeps products of rows near one; ids; a scale, a rate and a step above zero.
void fill(const View& v, int64_t ids) {
  uint32_t state = 12345;
  for (int64_t i = 0; i < v.elements(); ++i) {
    state = state * 1664525u + 1013904223u;
    if (v.dtype == Dtype::i32) {
      v.as<int32_t>()[i] = static_cast<int32_t>((state >> 8) % static_cast<uint32_t>(ids));
    } else {
      const float number = v.shape.rank() == 0 ? 1.0f : static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
      if (v.dtype == Dtype::bf16) v.as<bfloat16>()[i] = bfloat16(number);
      else v.as<float>()[i] = number;
    }
  }
}

struct Timing {
  double seconds = 0, flops = 0, bytes = 0;
};

// The best of the runs that take `least` seconds together, all ranks beginning at once.
template <class Call>
double best_seconds(Job& job, double least, const Call& call) {
  using Clock = std::chrono::steady_clock;
  constexpr int kMost = 2000;
  call();
  job.gather("");
  double best = 1e30, sum = 0;
  for (int i = 0; i < kMost && (i < 3 || sum < least); ++i) {
    const Clock::time_point begin = Clock::now();
    call();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, seconds);
    sum += seconds;
  }
  return best;
}

Timing time_kernel(Job& job, const Work& w, const BenchOptions& o) {
  CompileOptions options;
  options.threads = o.threads;
  options.backend = o.backend;
  Program program = parse_program(program_text(w), "bench", op_table());
  program.mesh = Mesh();
  const Compiled compiled = compile(program, options);
  auto comms = lockstep_communicators(1, o.backend);
  Communicator* const comm = comms[0].get();
  Executor run(compiled, nullptr, std::span(&comm, 1), {.threads = o.threads, .backend = o.backend, .graph = true});
  const Flat& flat = run.flat();
  Timing t;
  int64_t rows = 1;  // what ids may name: the rows of a table, or the columns of scores
  for (int v : flat.params) {
    const Shape& shape = flat.values[static_cast<size_t>(v)].local;
    if (shape.rank() == 2) rows = shape[0] == 4096 ? shape[0] : shape[1];
  }
  for (int v : flat.params) {
    const FlatValue& value = flat.values[static_cast<size_t>(v)];
    const Buffer numbers(value.type.bytes());
    const View view{numbers.data(), value.type.dtype, value.type.shape};
    fill(view, rows);
    run.set_input(value.name, view);
    t.bytes += static_cast<double>(view.bytes());
  }
  for (int v : flat.results) t.bytes += static_cast<double>(flat.values[static_cast<size_t>(v)].type.bytes());
  for (size_t i = 0; i < flat.steps.size(); ++i) t.flops += run.step_info(0, static_cast<int>(i)).flops * w.share;
  if (o.backend == nullptr) {
    t.seconds = best_seconds(job, o.seconds, [&] { run.run(); });
    return t;
  }
  // So many at once that the host's way to the device and back is little beside them.
  int runs = 1;
  const auto several = [&] {
    for (int i = 0; i < runs; ++i) run.run();
    o.backend->synchronize(Backend::compute);
  };
  several();
  several();  // made the graph
  const double one = best_seconds(job, 0, several);
  runs = static_cast<int>(std::clamp(2e-3 / one, 1.0, 100.0));
  t.seconds = best_seconds(job, o.seconds, several) / runs;
  return t;
}

// The processor has one product's rate, a device one for each of two dtypes.
struct Bounds {
  MachineBounds wide, narrow;
  const MachineBounds& of(const Work& w) const { return std::string_view(w.operands).starts_with("bf16") ? narrow : wide; }
};

std::string size_text(int64_t bytes) {
  return bytes < 1024 ? fmt::format("{} B", bytes) : bytes < (1 << 20) ? fmt::format("{} KiB", bytes >> 10) : fmt::format("{} MiB", bytes >> 20);
}

std::string rate_text(double per_second, const char* unit) { return fmt::format("{:.1f} G{}/s", per_second * 1e-9, unit); }

// The mean over the ranks, on every rank.
double over_ranks(Job& job, double mine) {
  double sum = 0;
  for (const std::string& s : job.gather(fmt::format("{}", mine))) sum += std::stod(s);
  return sum / job.size();
}

std::span<const Work> works_of(const BenchOptions& o) { return o.large ? std::span<const Work>(kLargeWorks) : std::span<const Work>(kWorks); }

bool asked_for(const BenchOptions& o, const Work& w) { return std::string_view(w.op).find(o.match) != std::string_view::npos; }

void bench_kernels(Job& job, const BenchOptions& o, const Bounds& bounds, Json& json) {
  if (job.first()) fmt::print("\n{:<26}{:<20}{:>12}{:>18}{:>12}{:>10}\n", "kernel", "op", "us", "flops", "bytes", "of bound");
  for (const Work& w : works_of(o)) {
    if (!asked_for(o, w)) continue;
    const MachineBounds& machine = bounds.of(w);
    Timing t = time_kernel(job, w, o);
    t.seconds = over_ranks(job, t.seconds);
    const double bound = std::max(t.flops / machine.matmul_flops, t.bytes / machine.copy_bytes);
    json["kernels"].push_back({{"what", w.what}, {"op", w.op}, {"operands", w.operands}, {"seconds", t.seconds}, {"flops", t.flops}, {"bytes", t.bytes},
                               {"bound_seconds", bound}});
    if (!job.first()) continue;
    fmt::print("{:<26}{:<20}{:>12.1f}{:>18}{:>12}{:>8.0f} %\n", w.what, w.op, t.seconds * 1e6, rate_text(t.flops / t.seconds, "FLOP"),
               rate_text(t.bytes / t.seconds, "B"), 100 * bound / t.seconds);
    std::fflush(stdout);
  }
}

// Bytes that one of p ranks reads and writes for a value of n bytes, at least.
double touched(Collective kind, double n, double p) {
  switch (kind) {
    case Collective::all_reduce: return (n + n / p) + ((p - 1) / p * n + n);  // its blocks of all are added, then gathered
    case Collective::reduce_scatter: return n + n / p;
    default: return 2 * n;
  }
}

// A call over all ranks, its arrays and counts; blocks are even.
struct Call {
  Call(Collective kind, int64_t bytes, const Group& group, Backend* backend = nullptr)
      : block(std::max<int64_t>(1, bytes / 4 / group.size())), n(block * group.size()), from(backend, n * 4), to(backend, n * 4),
        counts(static_cast<size_t>(group.size()), block) {
    if (backend == nullptr) std::fill_n(reinterpret_cast<float*>(from.data()), n, 1.0f);
    call = {.kind = kind, .group = &group, .send = from.data(), .receive = to.data(), .send_elements = kind == Collective::all_reduce ? n : 0,
            .counts = counts, .send_counts = counts, .label = "bench"};
  }
  int64_t block, n;  // elements
  Memory from, to;
  std::vector<int64_t> counts;
  CollectiveCall call;
};

// Seconds of a call, the best of three turns, the mean over the ranks. As many calls on all ranks: each waits for the
// others. About 1 GB/s is expected.
double collective_seconds(Job& job, Communicator& comm, const CollectiveCall& call, int64_t bytes, double least, Backend* backend = nullptr) {
  const double expected = 3 * (static_cast<double>(bytes) * 1e-9 + 1e-5);
  const int calls = static_cast<int>(std::clamp(least / expected, 1.0, 2000.0));
  const auto repeat = [&] {
    for (int i = 0; i < calls; ++i) comm.run(call);
    if (backend != nullptr) backend->synchronize(Backend::compute);
  };
  repeat();
  double seconds = 1e30;
  for (int turn = 0; turn < 3; ++turn) {
    job.gather("");
    const int64_t begin = Profile::now();
    repeat();
    seconds = std::min(seconds, over_ranks(job, static_cast<double>(Profile::now() - begin) * 1e-9 / calls));
  }
  return seconds;
}

constexpr Collective kCollectives[] = {Collective::all_reduce, Collective::all_gather, Collective::reduce_scatter, Collective::all_to_all};

void bench_collectives(Job& job, Communicator& comm, const BenchOptions& o, const MachineBounds& machine, Json& json) {
  const int p = job.size();
  const Mesh mesh = Mesh::parse(fmt::format("ranks={}", p));
  const Group group(mesh, mesh.all(), comm.rank());
  comm.prepare(group);
  if (job.first()) fmt::print("\n{:<26}{:<20}{:>12}{:>18}{:>12}{:>10}\n", fmt::format("collective, {} ranks", p), "bytes of the value", "us", "received", "", "of bound");
  for (const Collective kind : kCollectives) {
    for (const int64_t bytes : {int64_t{1} << 10, int64_t{64} << 10, int64_t{1} << 20, int64_t{16} << 20, int64_t{64} << 20}) {
      if (bytes > o.largest) continue;
      const Call c(kind, bytes, group, o.backend);
      const double seconds = collective_seconds(job, comm, c.call, bytes, o.seconds, o.backend);
      const double bound = touched(kind, static_cast<double>(c.n) * 4, p) / machine.copy_bytes;
      const auto received = static_cast<double>(received_bytes(c.call));
      json["collectives"].push_back({{"kind", name(kind)}, {"bytes", c.n * 4}, {"seconds", seconds}, {"received_bytes", received}, {"bound_seconds", bound}});
      if (!job.first()) continue;
      fmt::print("{:<26}{:<20}{:>12.1f}{:>18}{:>12}{:>8.0f} %\n", name(kind), size_text(c.n * 4), seconds * 1e6, rate_text(received / seconds, "B"), "",
                 100 * bound / seconds);
      std::fflush(stdout);
    }
  }
}

// What phases across hosts save: the bytes that cross, counted on arrival and summed over the ranks, and the time.
void bench_hosts(Job& job, Communicator& comm, const BenchOptions& o, Json& json) {
  if (!comm.set_phases(true)) return;
  const Mesh mesh = Mesh::parse(fmt::format("ranks={}", job.size()));
  const Group group(mesh, mesh.all(), comm.rank());
  if (job.first()) {
    fmt::print("\n{:<26}{:<20}{:>12}{:>12}{:>16}{:>16}\n", fmt::format("across {} hosts", comm.host_traffic().hosts), "bytes of the value", "us, phases", "us, flat",
               "cross, phases", "cross, flat");
  }
  bool phases = false;
  for (const Collective kind : kCollectives) {
    for (const int64_t bytes : {int64_t{64} << 10, int64_t{1} << 20, int64_t{16} << 20}) {
      if (bytes > o.largest) continue;
      const Call c(kind, bytes, group);
      double seconds[2] = {};
      int64_t cross[2] = {};
      for (const bool flat : {false, true}) {
        comm.set_phases(!flat);
        const HostTraffic before = comm.host_traffic();
        comm.run(c.call);
        const HostTraffic after = comm.host_traffic();
        phases = phases || (kind == Collective::all_reduce && after.in_phases > before.in_phases);
        for (const std::string& s : job.gather(fmt::format("{}", after.received - before.received))) cross[flat] += std::stoll(s);
        seconds[flat] = collective_seconds(job, comm, c.call, bytes, o.seconds);
      }
      comm.set_phases(true);
      json["across_hosts"].push_back({{"kind", name(kind)}, {"bytes", c.n * 4}, {"phases_seconds", seconds[0]}, {"flat_seconds", seconds[1]},
                                      {"phases_bytes", cross[0]}, {"flat_bytes", cross[1]}});
      if (!job.first()) continue;
      fmt::print("{:<26}{:<20}{:>12.1f}{:>12.1f}{:>16}{:>16}\n", name(kind), size_text(c.n * 4), seconds[0] * 1e6, seconds[1] * 1e6, size_text(cross[0]),
                 size_text(cross[1]));
      std::fflush(stdout);
    }
  }
  if (job.first() && !phases) fmt::print("the hosts have different numbers of ranks: what is put together or gathered goes as messages between all pairs\n");
}

}  // namespace

int bench(Job& job, const BenchOptions& o) {
  std::string error;
  if (!o.only.empty() && o.only != "kernels" && job.size() == 1) {
    error = fmt::format("--only {}: one process has nobody to talk to; start more, as with {}", o.only, job.starter() == "mpirun" ? "mpirun -n 2 meshard bench" : "meshard launch --ranks 2 -- bench");
  }
  if (o.only == "hosts" && o.backend != nullptr) error = "--only hosts counts what the ranks' own communicator sends between hosts; leave out --device";
  const std::span<const Work> works = works_of(o);
  if (std::none_of(works.begin(), works.end(), [&](const Work& w) { return asked_for(o, w); })) {
    std::vector<std::string_view> ops;
    for (const Work& w : works) ops.push_back(w.op);
    std::sort(ops.begin(), ops.end());
    ops.erase(std::unique(ops.begin(), ops.end()), ops.end());
    error = fmt::format("--match {}: no kernel's op has that in its name; there are {}", o.match, fmt::join(ops, ", "));
  }
  std::ofstream out;
  if (!o.json.empty() && job.first()) {
    out.open(o.json, std::ios::trunc);
    if (!out) error = fmt::format("cannot write {}; check the folder and its permissions", o.json);
  }
  job.agree(error);
  job.gather("");
  const auto measured = [&](Dtype dtype) {
    const MachineBounds mine = o.backend != nullptr ? measure_backend(*o.backend, dtype) : measure_machine({.threads = o.threads});
    return MachineBounds{over_ranks(job, mine.matmul_flops), over_ranks(job, mine.copy_bytes)};
  };
  const bool bounded = o.only != "hosts";  // whose table has no bounds
  Bounds bounds;
  if (bounded) bounds.wide = bounds.narrow = measured(Dtype::f32);
  if (bounded && o.backend != nullptr) bounds.narrow = measured(Dtype::bf16);
  const MachineBounds& machine = bounds.wide;
  Json json{{"format", "meshard bench"}, {"version", 1}, {"host", Job::host()}, {"ranks", job.size()}, {"threads", o.threads},
            {"matmul_flops", machine.matmul_flops}, {"copy_bytes", machine.copy_bytes}};
  if (o.backend != nullptr) {
    json["device"] = o.backend->text();
    json["bf16_matmul_flops"] = bounds.narrow.matmul_flops;
  }
  if (job.first() && bounded && o.backend != nullptr) {
    fmt::print("{} process{} on {}. Each reaches, all at the same time: {} in a square product of f32, {} of bf16, {} in a copy\n", job.size(),
               job.size() == 1 ? "" : "es", o.backend->text(), rate_text(machine.matmul_flops, "FLOP"), rate_text(bounds.narrow.matmul_flops, "FLOP"),
               rate_text(machine.copy_bytes, "B"));
  } else if (job.first() && bounded) {
    fmt::print("{} process{} of {} thread{}. Each reaches, all at the same time: {} in a product of 2048 x 2048 x 2048, {} in a copy\n", job.size(),
               job.size() == 1 ? "" : "es", o.threads, o.threads == 1 ? "" : "s", rate_text(machine.matmul_flops, "FLOP"), rate_text(machine.copy_bytes, "B"));
  }
  const auto wanted = [&](const char* table) { return o.only.empty() || o.only == table; };
  if (wanted("kernels")) bench_kernels(job, o, bounds, json);
  if (o.only != "kernels" && job.size() > 1) {
    const auto devices = job.devices(job.size(), false, "", o.backend);
    if (wanted("collectives")) bench_collectives(job, *devices[0], o, machine, json);
    if (wanted("hosts") && o.backend == nullptr) bench_hosts(job, *devices[0], o, json);
  }
  if (out.is_open()) out << json.dump(1) << "\n" << std::flush;
  return 0;
}

}  // namespace meshard
