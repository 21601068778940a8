// Host cost of an op on DTensors: tiny tensors and no communication, so that what is left is finding the op and starting it.
//   dispatch_bench [--json FILE] [--mesh "data=2"]
//   mpirun -n 2 --oversubscribe dispatch_bench --mpi
// Without --mesh: one device, and two in lockstep, whose kernels both run here. A hit is the median of many rounds of 1,000 ops;
// "kernels alone" are the same kernels called with nothing around them, and "host" is what the op costs beyond them; a miss is
// the median over ops of shapes not met before. "cpu" is this thread's time, which other processes disturb less than the clock.
// Instructions are counted by the processor where the system allows it. The peer: torch_dispatch.py on the same shapes.
#include <fmt/format.h>
#include <linux/perf_event.h>
#include <mpi.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "meshard/collectives/mpi.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/dtensor.h"
#include "meshard/runtime/dtensor_functions.h"

using namespace meshard;

namespace {

double now() { return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double cpu() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

// Instructions of this thread in user space; -1 where they cannot be counted.
class Instructions {
 public:
  Instructions() {
    perf_event_attr a;
    std::memset(&a, 0, sizeof a);
    a.type = PERF_TYPE_HARDWARE;
    a.size = sizeof a;
    a.config = PERF_COUNT_HW_INSTRUCTIONS;
    a.exclude_kernel = 1;
    a.exclude_hv = 1;
    file_ = static_cast<int>(syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
  }
  ~Instructions() {
    if (file_ >= 0) close(file_);
  }
  int64_t read() const {
    int64_t count = -1;
    if (file_ < 0 || ::read(file_, &count, sizeof count) != sizeof count) return -1;
    return count;
  }

 private:
  int file_ = -1;
};

struct Row {
  std::string what;
  double microseconds = 0, cpu = 0, instructions = -1;
};

Row hit(const std::string& what, const std::function<void()>& op) {
  constexpr int kOps = 1000, kRounds = 51;
  static const Instructions counter;
  std::vector<double> times, busy;
  for (int i = 0; i < 200; ++i) op();
  const int64_t before = counter.read();
  for (int r = 0; r < kRounds; ++r) {
    const double begin = now(), busy_begin = cpu();
    for (int i = 0; i < kOps; ++i) op();
    busy.push_back((cpu() - busy_begin) / kOps);
    times.push_back((now() - begin) / kOps);
  }
  const int64_t after = counter.read();
  return {what, median(times), median(busy), before < 0 ? -1 : static_cast<double>(after - before) / kOps / kRounds};
}

Row miss(const std::string& what, int n, const std::function<void(int)>& prepare, const std::function<void()>& op) {
  static const Instructions counter;
  std::vector<double> times, busy;
  int64_t instructions = 0;
  for (int i = 0; i < n; ++i) {
    prepare(i);
    const int64_t before = counter.read();
    const double begin = now(), busy_begin = cpu();
    op();
    busy.push_back(cpu() - busy_begin);
    times.push_back(now() - begin);
    instructions += counter.read() - before;
  }
  return {what, median(times), median(busy), counter.read() < 0 ? -1 : static_cast<double>(instructions) / n};
}

DTensor ramp(const Eager& e, int64_t rows, int64_t columns, const char* layout) {
  std::vector<double> v(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < v.size(); ++i) v[i] = 0.01 * static_cast<double>(i % 17);
  return e.tensor(fmt::format("f32[{},{}]", rows, columns), v, layout);
}

constexpr const char* kProduct = "m k, k n -> m n";

// The kernels of an op on what the devices here hold, alone; and what `whole`, the op, costs beyond them.
void kernels(std::vector<Row>& rows, const OpDef& def, const Attributes& attributes, const DTensor& a, const DTensor& b, const DTensor& y) {
  struct One {
    Prepared kernel;
    Buffer workspace;
    void *in[2], *out[1];
  };
  std::vector<One> all;
  for (int d = 0; d < a.eager().local_devices(); ++d) {
    const std::vector<Type> operands{{a.type().dtype, a.local(d).shape}, {b.type().dtype, b.local(d).shape}};
    const BoundRule rule = bind_rule(def, attributes, operands, {}, {});
    KernelSpec spec;
    spec.attributes = &attributes;
    for (const Factor& f : rule.factors) spec.factors.push_back({f.name, f.size, f.size, 0});
    for (size_t i = 0; i < 2; ++i) spec.operands.push_back({operands[i], rule.operands[i]});
    spec.results.push_back({{y.type().dtype, y.local(d).shape}, rule.results[0]});
    Prepared p = def.cpu(spec);
    if (!p.run) p = def.reference(spec);
    Buffer workspace(p.workspace_bytes);
    all.push_back({std::move(p), std::move(workspace), {a.local(d).data, b.local(d).data}, {y.local(d).data}});
  }
  const Row op = rows.back();
  const Row alone = hit("  its kernels alone", [&] {
    for (const One& one : all) one.kernel.run({one.in, one.out, one.workspace.data()});
  });
  rows.push_back(alone);
  rows.push_back({"  host", op.microseconds - alone.microseconds, op.cpu - alone.cpu, op.instructions < 0 ? -1 : op.instructions - alone.instructions});
}

std::vector<Row> measure(const Eager& e) {
  std::vector<Row> rows;
  const DTensor x = ramp(e, 8, 8, "[data, -]"), w = ramp(e, 8, 8, "[-, -]");
  DTensor y;
  const Attributes product{{"rule", std::string(kProduct)}};
  rows.push_back(hit("add", [&] { y = x + x; }));
  kernels(rows, op_table().get("add"), {}, x, x, y);
  rows.push_back(hit("einsum", [&] { y = einsum(kProduct, x, w); }));
  kernels(rows, op_table().get("einsum"), product, x, w, y);
  rows.push_back(hit("gelu", [&] { y = gelu(x); }));
  rows.push_back(hit("einsum by name", [&] { y = e.apply("einsum", {x, w}, {{"rule", std::string(kProduct)}}); }));
  rows.push_back(hit("redistribute, nothing to do", [&] { y = x.redistribute("[data, -]"); }));
  {
    Tape tape(e);
    int64_t n = 0;
    rows.push_back(hit("add under a tape", [&] { y = x + x, ++n; }));
    if (tape.ops() != n) throw std::runtime_error("the tape missed an op");
  }
  const CompiledFunction block = e.compile([](const std::vector<DTensor>& v) {
    DTensor h = v[0];
    for (int i = 0; i < 10; ++i) h = h + v[0];
    return std::vector<DTensor>{h};
  });
  rows.push_back(hit("compiled function of 10 adds", [&] { y = block({x})[0]; }));
  DTensor a;
  rows.push_back(miss("einsum, new shape", 200, [&](int i) { a = ramp(e, 8 + i, 8, "[data, -]"); }, [&] { y = einsum(kProduct, a, w); }));
  rows.push_back(miss("add, new shape", 200, [&](int i) { a = ramp(e, 9 + i, 8, "[data, -]"); }, [&] { y = a + a; }));
  rows.push_back(miss("add, new shape, one operand sliced", 200, [&](int i) { a = ramp(e, 300 + i, 8, "[data, -]"), y = ramp(e, 300 + i, 8, "[-, -]"); },
                      [&] { a = a + y; }));
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  std::string json, mesh;
  bool mpi = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg == "--json" && i + 1 < argc) json = argv[++i];
    else if (arg == "--mesh" && i + 1 < argc) mesh = argv[++i];
    else if (arg == "--mpi") mpi = true;
  }
  nlohmann::json out = nlohmann::json::array();
  const auto show = [&](const std::string& where, const std::vector<Row>& rows) {
    fmt::print("{}\n{:<40} {:>10} {:>10} {:>14}\n", where, "op", "µs", "µs cpu", "instructions");
    for (const Row& r : rows) {
      fmt::print("{:<40} {:>10.3f} {:>10.3f} {:>14}\n", r.what, r.microseconds, r.cpu, r.instructions < 0 ? "-" : fmt::format("{:.0f}", r.instructions));
      out.push_back({{"where", where}, {"op", r.what}, {"microseconds", r.microseconds}, {"cpu_microseconds", r.cpu}, {"instructions", r.instructions}});
    }
  };
  int rank = 0;
  if (mpi) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    auto comm = mpi_communicator(nullptr);
    const std::vector<Communicator*> devices{comm.get()};
    const std::vector<Row> rows = measure(Eager(Mesh::parse(fmt::format("data={}", comm->size())), devices));
    if (rank == 0) show(fmt::format("{} ranks, rank 0", comm->size()), rows);
  } else {
    for (const std::string& m : mesh.empty() ? std::vector<std::string>{"data=1", "data=2"} : std::vector<std::string>{mesh}) {
      show(fmt::format("mesh {} in lockstep", m), measure(Eager(Mesh::parse(m))));
    }
  }
  if (!json.empty() && rank == 0) {
    std::FILE* f = std::fopen(json.c_str(), "w");
    if (f == nullptr) return 2;
    fmt::print(f, "{}\n", out.dump(1));
    std::fclose(f);
  }
  if (mpi) MPI_Finalize();
  return 0;
}
