// How long planning takes, pass by pass, with cold caches, on one core:
//
//   plan_bench [--json FILE] [--repeat N] [--most OPS] [--kind layers|random|gpt] [--mesh "data=16, model=8, expert=4"] [--table yes] [--write FOLDER]
//
// --table: layers alone, every number of ops on every number of devices. --write: the programs' texts, as KIND_OPS_DEVICES.mesh, which
// `meshard plan` reads.
//
// Programs of N ops with pinned layouts that conflict: `layers` is a chain of transformer layers of different widths in
// one function, `random` a random graph of products, sums and elementwise ops. No two layers and no two layouts are
// planned by one look-up: the column "reshards" counts those that differ in shape or layouts. Each program is compiled
// --repeat times from scratch, GPTs with their plan as `meshard plan` does; the fastest run counts, the machine's other load
// being no property of the planner. "GiB" is what the plans move over all devices.
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "meshard/ir/parse.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"

using namespace meshard;

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Numbers that are the same everywhere: the standard's distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  size_t below(size_t n) { return engine_() % n; }
  bool chance(size_t percent) { return below(100) < percent; }
  template <class T>
  const T& pick(const std::vector<T>& list) {
    return list[below(list.size())];
  }

 private:
  std::mt19937_64 engine_;
};

// Layouts are given to values by id while the program is traced, and put in once there is a mesh.
using Pins = std::map<std::string, std::string>;

class Generator {
 public:
  Generator(int64_t ops, uint64_t seed) : ops_(ops), random_(seed) {}

  Program layers(const Mesh& mesh) {
    Value x = input("x", {kBatch, kTime, kWidth}, "[data, -, -]");  // [b, t, d]
    for (int layer = 0; count() < ops_; ++layer) {
      const int64_t f = 512 + 32 * static_cast<int64_t>(random_.below(256)), e = 64;
      const int64_t h = 8 + 8 * static_cast<int64_t>(random_.below(4));
      const std::string at = fmt::format("layer.{}.", layer);
      const bool by_expert = random_.chance(30);
      const std::string part = by_expert ? "expert" : random_.chance(50) ? "model" : "(model,expert)";
      Value z = rms_norm(x, param(at + "norm", {kWidth}, "[-]"));
      const auto heads = [&](const char* name) {
        return einsum("b t d, d h e -> b h t e", z,
                      param(at + name, {kWidth, h, e}, random_.chance(80) ? "[-, " + part + ", -]" : "[data, model, -]"));
      };
      Value q = heads("wq"), k = heads("wk"), v = heads("wv");
      Value o = attention(q, k, v);
      x = x + einsum("b h t e, h e d -> b t d", o, param(at + "wo", {h, e, kWidth}, "[" + part + ", -, -]"));
      if (random_.chance(40)) pins_[x.named(at + "r").name()] = "[data, " + part + ", -]";
      Value y = rms_norm(x, param(at + "norm2", {kWidth}, random_.chance(50) ? "[-]" : "[model]"));
      Value g = gelu(einsum("b t d, d f -> b t f", y, param(at + "up", {kWidth, f}, "[-, " + part + "]")));
      if (random_.chance(20)) pins_[g.named(at + "g").name()] = "[data, model, expert]";
      x = x + einsum("b t f, f d -> b t d", g,
                     param(at + "down", {f, kWidth}, random_.chance(70) ? "[" + part + ", -]" : "[data, model]"));
    }
    trace_.result(x.named("y"));
    return finish(mesh);
  }

  Program random(const Mesh& mesh) {
    const std::vector<std::string> layouts = {"[data, -]",   "[-, model]", "[model, data]", "[(data,expert), model]",
                                              "[expert, -]", "[-, -]",     "[data, expert]", "[-, (model,expert)]"};
    std::vector<int64_t> widths;
    for (int64_t w = 0; w < 48; ++w) widths.push_back(256 + 16 * w + w % 3);
    std::map<int64_t, std::vector<Value>> pool;  // by width; the newest last
    int number = 0;
    for (int64_t w : widths) {
      pool[w] = {input(fmt::format("x{}", number++), {kRows, w}, random_.pick(layouts))};
    }
    const auto recent = [&](int64_t w) {
      const std::vector<Value>& list = pool[w];
      return list[list.size() - 1 - random_.below(std::min<size_t>(list.size(), 6))];
    };
    while (count() < ops_) {
      const int64_t w = random_.pick(widths), u = random_.pick(widths);
      Value made;
      if (random_.chance(35)) {
        made = einsum("b i, i j -> b j", recent(w), param(fmt::format("w{}", number++), {w, u}, random_.pick(layouts)));
      } else if (random_.chance(60)) {
        made = recent(u) + recent(u);
      } else {
        made = random_.chance(50) ? gelu(recent(u)) : softmax(recent(u));
      }
      if (random_.chance(15)) {
        made = made.named(fmt::format("v{}", number++));
        pins_[made.name()] = random_.pick(layouts);
      }
      pool[u].push_back(made);
    }
    for (int64_t w : widths) trace_.result(pool[w].back());
    return finish(mesh);
  }

 private:
  static constexpr int64_t kBatch = 4096, kTime = 1024, kWidth = 2048, kRows = 65536;

  int64_t count() { return static_cast<int64_t>(trace_.main().function().ops.size()); }
  Value input(const std::string& name, Shape shape, const std::string& layout) {
    pins_[name] = layout;
    return trace_.scope().input(name, Dtype::f32, std::move(shape));
  }
  Value param(const std::string& name, Shape shape, const std::string& layout) {
    pins_[name + ".use"] = pins_[name] = layout;
    return trace_.scope().param(name, std::move(shape), {Init::normal, 0.02});
  }
  Program finish(const Mesh& mesh) {
    Program p = trace_.program();
    p.mesh = mesh;
    for (ValueInfo& v : p.main().values) {
      const auto pin = pins_.find(v.name);
      if (pin == pins_.end()) continue;
      v.layout = Layout::parse(pin->second, mesh, v.type.shape.rank());
      v.pinned = true;
    }
    return p;
  }

  int64_t ops_;
  Random random_;
  Trace trace_{op_table()};
  Pins pins_;
};

// Reshards that differ in shape, layouts or kind.
int64_t distinct_reshards(const Program& local) {
  std::set<std::string> seen;
  for (const Function& f : local.functions) {
    for (const Op& op : f.ops) {
      if (op.kind != Op::apply || !op.def->collective) continue;
      const ValueInfo &from = f.value(op.operands[0]), &to = f.value(op.results[0]);
      seen.insert(fmt::format("{} {} {} {}", op.def->name, to.type.str(), from.layout->str(*local.mesh),
                              to.layout->str(*local.mesh)));
    }
  }
  return static_cast<int64_t>(seen.size());
}

struct Row {
  std::string kind, mesh;
  int64_t ops = 0, devices = 0, reshards = 0, local_ops = 0;
  int64_t bytes = 0;            // received over all devices: what a faster choice must not raise
  std::vector<PassTime> times;  // in seconds, the fastest of the runs
  double total = 0;
};

void lower_time(std::vector<PassTime>& times, const std::string& name, double seconds) {
  for (PassTime& t : times) {
    if (t.name != name) continue;
    t.seconds = std::min(t.seconds, seconds);
    return;
  }
  times.push_back({name, seconds});
}

std::string write_to;

Row measure(const std::string& kind, int64_t ops, const std::string& mesh_text, int repeat) {
  Row row{kind, mesh_text};
  const Mesh mesh = Mesh::parse(mesh_text);
  row.devices = mesh.size();
  for (int i = 0; i < repeat; ++i) {
    double begin = now();
    Generator generator(ops, 1);
    Program program = kind == "layers" ? generator.layers(mesh) : generator.random(mesh);
    lower_time(row.times, "trace", now() - begin);
    begin = now();
    const std::string text = print(program);
    lower_time(row.times, "print", now() - begin);
    if (!write_to.empty()) std::ofstream(fmt::format("{}/{}_{}_{}.mesh", write_to, kind, ops, row.devices)) << text;
    begin = now();
    program = parse_program(text, "bench.mesh", op_table());
    lower_time(row.times, "parse", now() - begin);
    program.signatures = make_signatures();  // nothing is known yet
    begin = now();
    const Compiled compiled = compile(program);
    const double total = now() - begin;
    row.total = i == 0 ? total : std::min(row.total, total);
    for (const PassTime& t : compiled.times) lower_time(row.times, t.name, t.seconds);
    row.ops = static_cast<int64_t>(program.main().ops.size());
    row.local_ops = static_cast<int64_t>(compiled.local.main().ops.size());
    row.reshards = distinct_reshards(compiled.local);
    row.bytes = compiled.bill.bytes_all_devices;
  }
  return row;
}

// What `meshard plan` does for a GPT, tracing and differentiating included.
Row measure_gpt(int64_t layers, const std::string& plan, const std::string& mesh_text, int repeat) {
  Row row{"gpt " + plan, mesh_text};
  const Mesh mesh = Mesh::parse(mesh_text);
  row.devices = mesh.size();
  for (int i = 0; i < repeat; ++i) {
    const double begin = now();
    Trace trace(op_table());
    const ModelConfig model = model_config(fmt::format("gpt-124m:layers={},d=16384,heads=128", layers));
    trace_train_step(trace, model, 1024, 4096, {}, 1);
    const Program program = trace.program();
    lower_time(row.times, "trace", now() - begin);
    const Compiled compiled = compile(program, Plan::parse(*builtin_plan(plan), plan + ".plan"), mesh);
    const double total = now() - begin;
    row.total = i == 0 ? total : std::min(row.total, total);
    for (const PassTime& t : compiled.times) lower_time(row.times, t.name, t.seconds);
    row.ops = layers;
    row.local_ops = static_cast<int64_t>(compiled.local.main().ops.size());
    row.reshards = distinct_reshards(compiled.local);
    row.bytes = compiled.bill.bytes_all_devices;
  }
  return row;
}

void print_rows(const std::vector<Row>& rows) {
  if (rows.empty()) return;
  std::string head = fmt::format("{:<16} {:>7} {:>8} {:>9} {:>9} {:>12}", "kind", "ops", "devices", "reshards", "local ops", "GiB");
  for (const PassTime& t : rows.back().times) head += fmt::format(" {:>10}", t.name);
  fmt::print("{} {:>10}   milliseconds\n", head, "compile");
  for (const Row& r : rows) {
    fmt::print("{:<16} {:>7} {:>8} {:>9} {:>9} {:>12.3f}", r.kind, r.ops, r.devices, r.reshards, r.local_ops,
               static_cast<double>(r.bytes) / (1 << 30));
    for (const PassTime& t : r.times) fmt::print(" {:>10.2f}", t.seconds * 1e3);
    fmt::print(" {:>10.2f}\n", r.total * 1e3);
  }
}

void write_json(const std::string& path, const std::vector<Row>& rows) {
  auto list = nlohmann::ordered_json::array();
  for (const Row& r : rows) {
    nlohmann::ordered_json j = {{"kind", r.kind},         {"ops", r.ops},           {"mesh", r.mesh},
                                {"devices", r.devices},   {"reshards", r.reshards}, {"local_ops", r.local_ops},
                                {"bytes_all_devices", r.bytes},
                                {"compile_seconds", r.total}};
    for (const PassTime& t : r.times) j["seconds"][t.name] = t.seconds;
    list.push_back(std::move(j));
  }
  std::ofstream(path) << list.dump(2) << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  std::string json, mesh, kind;
  int repeat = 3;
  int64_t most = 100000;
  bool table = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--json") json = value;
    if (flag == "--mesh") mesh = value;
    if (flag == "--kind") kind = value;
    if (flag == "--repeat") repeat = std::stoi(value);
    if (flag == "--most") most = std::stoll(value);
    if (flag == "--table") table = value == "yes";
    if (flag == "--write") write_to = value;
  }
  const std::string usual = "data=16, model=8, expert=4";
  std::vector<Row> rows;
  try {
    for (int64_t ops : {100, 1000, 10000, 100000}) {
      if (!table || ops > most) continue;
      for (const char* m : {"data=2, model=2, expert=2", "data=16, model=8, expert=4", "data=32, model=16, expert=8", "data=64, model=32, expert=32"}) {
        rows.push_back(measure("layers", ops, m, repeat));
        print_rows({rows.back()});
      }
    }
    if (table) return 0;
    for (const std::string k : {"layers", "random"}) {
      if (!kind.empty() && kind != k) continue;
      for (int64_t ops : {100, 1000, 10000, 100000}) {
        if (ops <= most) rows.push_back(measure(k, ops, mesh.empty() ? usual : mesh, repeat));
      }
      if (!mesh.empty()) continue;
      for (const char* m : {"data=2, model=2, expert=2", "data=32, model=16, expert=8", "data=64, model=32, expert=32"}) {
        rows.push_back(measure(k, std::min<int64_t>(most, 10000), m, repeat));
      }
    }
    print_rows(rows);
    std::vector<Row> models;
    for (const std::string plan : {"data_tensor", "tensor_zero3"}) {
      if (!kind.empty() && kind != "gpt") continue;
      for (int64_t layers : {12, 126, 1000}) models.push_back(measure_gpt(layers, plan, "data=128, model=128", repeat));
      models.push_back(measure_gpt(126, plan, "data=4, model=2", repeat));
    }
    fmt::print("\nops: layers; compile: with tracing\n");
    print_rows(models);
    rows.insert(rows.end(), models.begin(), models.end());
    if (!json.empty()) write_json(json, rows);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
