#include "meshard/launch/reshard.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "meshard/ir/parse.h"
#include "meshard/layout/cost.h"
#include "meshard/layout/shortest.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"

namespace meshard {
namespace {

constexpr int64_t kFewDevices = 4096;  // up to here each device is counted

std::string time_text(int64_t ns) {
  if (ns < 10'000) return fmt::format("{} ns", ns);
  return ns < 10'000'000 ? fmt::format("{:.1f} us", static_cast<double>(ns) * 1e-3) : fmt::format("{:.1f} ms", static_cast<double>(ns) * 1e-6);
}

// A way from one layout to the other, with what it costs.
struct Printed {
  Printed(const Mesh& mesh, const Type& type, std::vector<ReshardStep> chosen, const CostModel& model) : steps(std::move(chosen)) {
    const int64_t element = size_bytes(type.dtype);
    all = all_received_elements(mesh, type.shape, steps) * element;
    nanoseconds = steps_nanoseconds(model, mesh, type.shape, steps, element);
    for (const ReshardStep& s : steps) {
      messages += step_messages(mesh, type.shape, s);
      busiest += busiest_received_elements(mesh, type.shape, s) * element;
      text += fmt::format("{}{}", text.empty() ? "" : ", ", name(s.kind));
    }
    // Not every step has the same busiest device.
    const auto talk = std::count_if(steps.begin(), steps.end(), [](const auto& s) { return s.kind != Collective::slice; });
    exact = talk < 2 || mesh.size() <= kFewDevices;
    if (talk < 2 || !exact) return;
    busiest = 0;
    for (int32_t r = 0; r < mesh.size(); ++r) {
      int64_t sum = 0;
      for (const ReshardStep& s : steps) sum += received_elements(mesh, type.shape, s, Rank{r}) * element;
      busiest = std::max(busiest, sum);
    }
  }

  void print(const char* what) const {
    fmt::print("{}: {}: busiest device {} bytes{}, all devices {}, {} messages, about {}\n", what, text, busiest, exact ? "" : " at most", all,
               messages, time_text(nanoseconds));
  }

  std::vector<ReshardStep> steps;
  std::string text;
  int64_t all = 0, busiest = 0, messages = 0, nanoseconds = 0;
  bool exact = true;
};

}  // namespace

int print_reshard(const std::string& type_text, const std::string& from_text, const std::string& to_text, const std::string& mesh_text,
                  const std::string& json, int64_t ranks_per_host) {
  const Type type = Type::parse(type_text);
  const Mesh axes = Mesh::parse(mesh_text, "--mesh");
  std::vector<AxisCut> cuts = find_cuts(from_text, "FROM", axes);
  for (AxisCut& cut : find_cuts(to_text, "TO", axes)) cuts.push_back(std::move(cut));
  const Mesh mesh = axes.with_cuts(cuts);
  const Layout from = Layout::parse(from_text, mesh, type.shape.rank(), "FROM").closed();
  const Layout to = Layout::parse(to_text, mesh, type.shape.rank(), "TO").closed();
  if (const std::string why = reshard_obstacle(mesh, from, to); !why.empty()) {
    throw UserError(why);
  }
  const int64_t element = size_bytes(type.dtype);
  const CostModel model{.ranks_per_host = ranks_per_host};
  const Printed by_bytes{mesh, type, plan_reshard(mesh, type.shape, from, to), model};
  const Printed by_time{mesh, type, plan_reshard(mesh, type.shape, from, to, {.model = &model, .element_bytes = element}), model};
  const Printed plain{mesh, type, plan_reshard(mesh, type.shape, from, to, {.exchange = false}), model};
  for (const ReshardStep& s : by_bytes.steps) {
    fmt::print("{:<15} over {:<14} {:>14} bytes {:>6} messages {:>12}   {} -> {}\n", name(s.kind), mesh.atoms_text(s.over),
               busiest_received_elements(mesh, type.shape, s) * element, step_messages(mesh, type.shape, s),
               time_text(step_nanoseconds(model, mesh, type.shape, s, element)), s.from.str(mesh), s.to.str(mesh));
  }
  // What must arrive in any case; sums that have to be made are not in it.
  const int64_t bound = lower_bound_elements(mesh, type.shape, from, to) * element;
  const int64_t least = least_elements(mesh, type.shape, from, to) * element;
  fmt::print("busiest device receives {} bytes{}, all devices {}; lower bound without reductions {}, of all devices {}\n",
             by_bytes.busiest, by_bytes.exact ? "" : " at most", by_bytes.all, bound, least);
  fmt::print("{} messages, about {}\n", by_bytes.messages, time_text(by_bytes.nanoseconds));
  if (by_bytes.steps != plain.steps) plain.print("without an exchange");
  if (by_bytes.steps != by_time.steps && by_time.steps != plain.steps) by_time.print("in the least time");
  fmt::print("chosen for the fewest bytes over all devices; by time {}\n",
             by_time.steps == by_bytes.steps ? "it is the same"
             : by_time.steps == plain.steps  ? "the steps without an exchange"
                                             : "fewer messages");
  if (!json.empty()) {
    // The bill is that of a program that does nothing else.
    const std::string text = fmt::format("mesh {}\nfunc main(%x: {} {}) {{\n  %y = reshard %x : {} {}\n  return %y\n}}\n", axes.str(),
                                         type.str(), from.str(mesh), type.str(), to.str(mesh));
    auto j = nlohmann::ordered_json::parse(compile(parse_program(text, "reshard", op_table())).bill.json());
    j["type"] = type.str();
    j["from"] = from.str(mesh);
    j["to"] = to.str(mesh);
    j["lower_bound"] = bound;
    j["lower_bound_all_devices"] = least;
    j["messages"] = by_bytes.messages;
    j["nanoseconds"] = by_bytes.nanoseconds;
    std::ofstream out(json, std::ios::trunc);
    if (!(out << j.dump(2) << "\n" << std::flush)) throw UserError(fmt::format("cannot write {}; check the folder and its permissions", json));
  }
  return 0;
}

}  // namespace meshard
