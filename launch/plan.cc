#include "meshard/launch/plan.h"

#include <fmt/format.h>

#include "meshard/ir/parse.h"
#include "meshard/launch/options.h"
#include "meshard/launch/page.h"
#include "meshard/launch/report.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/table.h"
#include "meshard/sharding/diff_bills.h"
#include "meshard/sharding/expect_bill.h"

namespace meshard {
namespace {

constexpr double kMostBytes = 1e18;

// What is planned: a model's step, or a program text, which may have layouts and a mesh of its own.
struct Subject {
  Program program;
  bool text = false;
  std::string path;
  TrainOptions model;
  std::optional<Mesh> mesh;

  Compiled compiled(const std::optional<Plan>& plan, const CompileOptions& options) const {
    return plan ? compile(program, *plan, mesh, options) : compile(program, options);
  }
};

Subject read_subject(const Args& args, const Job& job) {
  Subject s;
  if (args.positional().size() > 1) throw UserError(fmt::format("plan takes one program file, not {}", args.positional().size()));
  s.text = !args.positional().empty();
  if (!s.text) {
    s.model = model_options(args, job);
    s.mesh = s.model.mesh;
    Trace trace(op_table(), s.model.dtype);
    trace_train_step(trace, s.model.model, s.model.batch, s.model.seq, s.model.optimizer, s.model.accumulate);
    s.program = trace.program();
    return s;
  }
  for (const char* flag : {"model", "batch", "seq", "accumulate", "dtype", "keep-f32", "loss-scale", "scale-steps"}) {
    if (args.has(flag)) throw UserError(fmt::format("--{} is of models; the program is read from {}", flag, args.positional()[0]));
  }
  s.path = args.positional()[0];
  std::string text = read_text(s.path, "program");
  if (args.has("mesh")) text = with_mesh(text, Mesh::parse(args.text("mesh"), "--mesh"));
  s.program = parse_program(text, s.path, op_table());
  s.mesh = s.program.mesh;
  return s;
}

void print_subject(const Subject& s, const std::string& plan, const Compiled& step) {
  if (!s.text) {
    print_plan(s.model.model, plan, step, s.model.batch, s.model.seq, train_flops_per_token(s.model.model, s.model.seq));
    return;
  }
  size_t ops = 0;
  for (const Function& f : s.program.functions) ops += f.ops.size();
  fmt::print("{}: {} ops in {} {}; mesh {}{}\n", s.path, ops, s.program.functions.size(), s.program.functions.size() == 1 ? "function" : "functions",
             step.bill.mesh.size() == 1 ? "of one device" : step.bill.mesh.str(), plan.empty() ? "" : "; plan " + plan);
  fmt::print("peak memory {} a device\n\ncommunication bill of one run:\n{}\n", bytes_text(step.bill.peak_bytes), step.bill.table(false));
}

PageHead head_of(const Subject& s, const std::optional<Plan>& plan) {
  PageHead head{s.path, "", s.path, s.text ? read_text(s.path, "program") : ""};
  if (!s.text) {
    head.title = s.model.model.name;
    head.subtitle = fmt::format("one training step of {} x {} tokens, {} parameters", s.model.batch, s.model.seq, param_count(s.model.model));
  }
  if (plan) {
    head.source_name = plan->file();
    head.source_text = plan->text();
    head.subtitle += (head.subtitle.empty() ? "plan " : "; plan ") + plan->file();
  }
  return head;
}

int run_diff(const Args& args, const Subject& s, const CompileOptions& options) {
  for (const char* flag : {"plan", "explain", "html", "max-bytes", "max-collectives"}) {
    if (args.has(flag)) throw UserError(fmt::format("--diff A B compares two plans and takes no --{}", flag));
  }
  const std::vector<std::string> names = args.words("diff");
  const Compiled a = s.compiled(load_plan(names[0]), options), b = s.compiled(load_plan(names[1]), options);
  const BillDiff diff = diff_bills(a.bill, b.bill);
  fmt::print("{}", diff.table(names[0], names[1]));
  if (args.has("json")) write_text(args.text("json"), diff.json(names[0], names[1]));
  return 0;
}

}  // namespace

std::vector<Flag> plan_flags() {
  std::vector<Flag> flags = with_optimize_flags(model_flags());
  for (Flag f : std::vector<Flag>{{Flag::boolean, "explain", "", "say for each collective why it is there"},
                                  {Flag::text, "html", "FILE", "write the program, its layouts and its bill as a page of one file"},
                                  {Flag::text, "diff", "A B", "what a change from plan A to plan B costs", 0, 0, {}, 2},
                                  {Flag::text, "mode", "MODE", "auto, explicit or budget=BYTES"},
                                  {Flag::integer, "max-bytes", "N", "status 2 if the busiest device receives more in a step", 0, kMostBytes},
                                  {Flag::integer, "max-collectives", "K", "status 2 if a step has more", 0, kMostBytes},
                                  {Flag::text, "json", "FILE", "write the bill (with --diff: the difference) as JSON"}}) {
    flags.push_back(std::move(f));
  }
  return flags;
}

int run_plan(Job& job, std::span<const std::string> words) {
  only_one_process(job, "plan");
  const Args args = Args::parse(words, plan_flags());
  const Subject s = read_subject(args, job);
  CompileOptions options;
  if (!s.text) options.mixed = s.model.compile.mixed;
  options.threads = s.text ? 1 : s.model.threads;
  options.partition = parse_mode(args.text("mode", "auto"));
  set_optimize(args, options);
  if (args.has("diff")) return run_diff(args, s, options);
  std::optional<Plan> plan;
  if (!s.text) plan = s.model.plan;
  else if (args.has("plan")) plan = load_plan(args.text("plan"));
  const bool explains = args.has("explain") || args.has("html");
  const Explained explained = explains ? explain_plan(s.program, plan, s.mesh, options) : Explained{s.compiled(plan, options), {}};
  const Compiled& step = explained.step;
  print_subject(s, plan ? plan->file() : "", step);
  print_warnings(step);
  if (args.has("explain")) fmt::print("{}", explained.why.text());
  if (args.has("html")) write_text(args.text("html"), plan_page(head_of(s, plan), explained));
  if (args.has("json")) write_text(args.text("json"), args.has("explain") ? explained.why.json() : step.bill.json());
  BillCheck check = expect_bill(step.bill);
  if (args.has("max-bytes")) check.at_most_bytes(args.integer("max-bytes", 0));
  if (args.has("max-collectives")) check.at_most_collectives(args.integer("max-collectives", 0));
  check.or_throw();
  return 0;
}

}  // namespace meshard
