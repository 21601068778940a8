// Runs the files of tests/golden and tests/errors. A golden file is
//
//   // run: partition             what is done: parse, propagate, partition, optimize (partition and all rewrites), collectives
//                                 (partition, only those lines shown), explain (why each collective is there), or a mode:
//                                 explicit, budget=BYTES (partition under it)
//   // only: share, bucket         of optimize: these rewrites alone; overlap and ring are done only where they stand here
//   // bucket: 4096               and the most bytes of a message
//   // memory: 4096               of a device
//   // mixed: logits, block.*.y   bf16 beside f32 (ir/mixed.h); what stays f32
//   // narrow: f16                instead of bf16
//   // trace: gpt-tiny:layers=2, batch 5, seq 6, plan tensor, mesh "model=3"     instead of a program: a model's training step
//   // Why this file is there.
//   <program>
//   ----
//   <result>
//
// and an error file has, behind the dashes, the exact message. Every golden program is also run, whole and in lockstep.
// `cmake --build build --target update-golden` writes the results anew, for review.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "meshard/backend/backend.h"
#include "meshard/ir/mixed.h"
#include "meshard/ir/parse.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/explained.h"
#include "meshard/runtime/simulate.h"
#include "meshard/sharding/pin.h"
#include "meshard/sharding/propagate.h"

namespace meshard {
namespace {

namespace fs = std::filesystem;

struct File {
  fs::path path;
  std::string head, program, expected;  // head: the comment lines
  std::string directive(const std::string& name) const {
    std::smatch m;
    return std::regex_search(head, m, std::regex("// " + name + ": ([^\n]*)")) ? m[1].str() : "";
  }
};

std::string read(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::vector<File> files(const std::string& folder) {
  std::vector<File> list;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(MESHARD_TESTS) / folder)) {
    if (entry.path().extension() != ".mesh" || entry.path().parent_path().filename() == "patterns") continue;  // patterns_test.cc
    const std::string text = read(entry.path());
    File f{entry.path(), "", "", ""};
    std::istringstream lines(text);
    bool heading = true, after = false;
    for (std::string line; std::getline(lines, line);) {
      heading = heading && line.starts_with("//");
      if (line == "----") {
        after = true;
        continue;
      }
      (heading ? f.head : after ? f.expected : f.program) += line + "\n";
    }
    list.push_back(std::move(f));
  }
  std::sort(list.begin(), list.end(), [](const File& a, const File& b) { return a.path < b.path; });
  REQUIRE(!list.empty());
  return list;
}

// The program of a file, and the plan and mesh if it names a model.
struct Source {
  Program program;
  std::optional<Plan> plan;
  std::optional<Mesh> mesh;
  CompileOptions options;
  CompileOptions unoptimized() const {
    CompileOptions o = options;
    o.optimize.on = false;
    o.memory_bytes = 0;
    return o;
  }
  Compiled compiled(bool optimized) const {
    const CompileOptions o = optimized ? options : unoptimized();
    return plan ? compile(program, *plan, mesh, o) : compile(program, o);
  }
};

CompileOptions options(const File& f) {
  CompileOptions o;
  const std::string only = f.directive("only"), bytes = f.directive("bucket");
  if (!bytes.empty()) o.optimize.bucket_bytes = std::stoll(bytes);
  if (const std::string memory = f.directive("memory"); !memory.empty()) o.memory_bytes = std::stoll(memory);
  if (only.empty()) return o;
  o.optimize.overlap = true;
  o.optimize.ring.use = RingOptions::always;
  for (const std::string& name : optimize_names()) {
    if (!std::regex_search(only, std::regex("\\b" + name + "\\b"))) o.passes.skip.push_back(name);
  }
  return o;
}

bool is_mixed(const File& f) { return f.head.find("// mixed:") != std::string::npos; }

Program as_asked(const File& f, const Program& program) {
  if (!is_mixed(f)) return program;
  MixedOptions mixing;
  const std::regex name("[^ ,]+");
  if (f.directive("narrow") == "f16") mixing.narrow = Dtype::f16;
  const std::string list = f.directive("mixed");
  for (std::sregex_iterator it(list.begin(), list.end(), name), end; it != end; ++it) mixing.keep_f32.push_back(it->str());
  return mixed(program, mixing);
}

// Of what lockstep may differ by: values are rounded once they are made, and sums of parts before they are added.
double tolerance(const File& f) { return is_mixed(f) ? 2e-2 : 2e-4; }

Source source(const File& f) {
  const std::string trace = f.directive("trace");
  if (trace.empty()) return {as_asked(f, parse_program(f.program, f.path.filename().string(), op_table())), {}, {}, options(f)};
  std::smatch m;
  REQUIRE(std::regex_match(trace, m, std::regex("(.*), batch ([0-9]+), seq ([0-9]+), plan ([a-z0-9_]+), mesh \"(.*)\"")));
  Trace t(op_table());
  const ModelConfig config = model_config(m[1].str());
  trace_train_step(t, config, std::stoi(m[2].str()), std::stoi(m[3].str()), AdamWConfig{}, 1);
  return {as_asked(f, t.program()), Plan::parse(*builtin_plan(m[4].str()), m[4].str() + ".plan"), Mesh::parse(m[5].str()), options(f)};
}

// The collectives of a program, under the names of their functions.
std::string collectives(const Program& p) {
  std::string out;
  for (const Function& f : p.functions) {
    out += f.name + "\n";
    for (const Op& op : f.ops) {
      if (op.kind == Op::apply && op.def->collective) out += "  " + print_op(p, f, op) + "\n";
    }
  }
  return out;
}

std::string result(const File& f, const Source& s) {
  const std::string run = f.directive("run");
  if (run == "parse") return print(s.program);
  if (run == "propagate") return print(propagate(s.program));
  if (run == "partition") return print(s.compiled(false).local);
  if (run == "optimize") return print(s.compiled(true).local);
  if (run == "collectives") return collectives(s.compiled(false).local);
  if (run == "explain") return explain_plan(s.program, s.plan, s.mesh, s.options).why.text();
  if (run == "explicit" || run.starts_with("budget=")) {
    CompileOptions options = s.options;
    options.partition = parse_mode(run);
    return print((s.plan ? compile(s.program, *s.plan, s.mesh, options) : compile(s.program, options)).local);
  }
  throw std::runtime_error(f.path.string() + ": unknown directive run: " + run);
}

void update(const File& f, const std::string& result) {
  std::ofstream(f.path) << f.head << f.program << "----\n" << result;
}

std::string trimmed(std::string s) {
  while (!s.empty() && s.back() == '\n') s.pop_back();
  return s;
}

// Where in models/ a line stands is not what an explanation is about: "layers.cc:98" is any line of layers.cc.
std::string without_lines(const std::string& s) { return std::regex_replace(s, std::regex("([a-z_]+\\.cc):[0-9]+"), "$1"); }

TEST_CASE("golden programs") {
  for (const File& f : files("golden")) {
    DYNAMIC_SECTION(f.path.filename().string()) {
      const Source s = source(f);
      const std::string made = result(f, s);
      if (std::getenv("MESHARD_UPDATE_GOLDEN") != nullptr) update(f, made);
      else CHECK(without_lines(trimmed(made)) == without_lines(trimmed(f.expected)));
      const std::string text = print(s.program);
      CHECK(print(parse_program(text, "again", op_table())) == text);
      if (f.directive("run") == "parse" && !s.program.mesh) continue;
      const int64_t partitioned = s.compiled(false).bill.bytes_all_devices;
      for (const bool optimized : {false, true}) {
        INFO((optimized ? "optimized" : "partitioned"));
        const Compiled compiled = s.compiled(optimized);
        CHECK(compiled.bill.bytes_all_devices <= partitioned);
        const std::string local = print(compiled.local);
        CHECK(print(parse_program(local, "local", op_table())) == local);
        const CheckResult check = check_partition(s.program, compiled, 7);
        INFO(check.text());
        CHECK(check.good(tolerance(f)));
      }
    }
  }
}

TEST_CASE("golden programs on an emulated device") {
  const auto device = emulated_backend();
  for (const File& f : files("golden")) {
    DYNAMIC_SECTION(f.path.filename().string()) {
      const Source s = source(f);
      if (f.directive("run") == "parse" && !s.program.mesh) continue;
      CompileOptions options;
      options.backend = device.get();
      const Compiled compiled = s.plan ? compile(s.program, *s.plan, s.mesh, options) : compile(s.program, options);
      const CheckResult check = check_partition(s.program, compiled, 7, 1, device.get());
      INFO(check.text());
      CHECK(check.good(tolerance(f)));
    }
  }
}

TEST_CASE("bad programs") {
  for (const File& f : files("errors")) {
    DYNAMIC_SECTION(f.path.filename().string()) {
      std::string message = "no error";
      try {
        const Source s = source(f);
        result(f, s);
      } catch (const UserError& e) {
        message = e.what();
      }
      if (std::getenv("MESHARD_UPDATE_GOLDEN") != nullptr) update(f, message + "\n");
      else CHECK(trimmed(message) == trimmed(f.expected));
    }
  }
}

}  // namespace
}  // namespace meshard
