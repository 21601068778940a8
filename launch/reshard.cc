#include "meshard/launch/reshard.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "meshard/layout/reshard.h"

namespace meshard {

int print_reshard(const std::string& type_text, const std::string& from_text, const std::string& to_text, const std::string& mesh_text,
                  const std::string& json) {
  const Type type = Type::parse(type_text);
  const Mesh axes = Mesh::parse(mesh_text, "--mesh");
  std::vector<AxisCut> cuts = find_cuts(from_text, "FROM", axes);
  for (AxisCut& cut : find_cuts(to_text, "TO", axes)) cuts.push_back(std::move(cut));
  const Mesh mesh = axes.with_cuts(cuts);
  const Layout from = Layout::parse(from_text, mesh, type.shape.rank(), "FROM").closed();
  const Layout to = Layout::parse(to_text, mesh, type.shape.rank(), "TO").closed();
  if (const std::string why = reshard_obstacle(mesh, from, to); !why.empty()) {
    throw UserError(fmt::format("{} cannot become {}: {}", from.str(mesh), to.str(mesh), why));
  }
  const int64_t element = size_bytes(type.dtype);
  const auto steps = plan_reshard(mesh, type.shape, from, to);
  std::vector<int64_t> device_bytes(static_cast<size_t>(mesh.size()));
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ReshardStep& s : steps) {
    const int64_t bytes = busiest_received_elements(mesh, type.shape, s) * element;
    fmt::print("{:<15} over {:<14} {:>14} bytes   {} -> {}\n", name(s.kind), mesh.atoms_text(s.over), bytes, s.from.str(mesh), s.to.str(mesh));
    list.push_back({{"op", std::string(name(s.kind))}, {"axes", mesh.atoms_text(s.over)}, {"group", mesh.parts(s.over)}, {"bytes", bytes},
                    {"from", s.from.str(mesh)}, {"to", s.to.str(mesh)}});
    for (size_t r = 0; r < device_bytes.size(); ++r) {
      device_bytes[r] += received_elements(mesh, type.shape, s, Rank{static_cast<int32_t>(r)}) * element;
    }
  }
  int64_t busiest = 0, all = 0;
  for (int64_t b : device_bytes) {
    busiest = std::max(busiest, b);
    all += b;
  }
  // What must arrive in any case; sums that have to be made are not in it.
  const int64_t bound = lower_bound_elements(mesh, type.shape, from, to) * element;
  fmt::print("busiest device receives {} bytes, all devices {}; lower bound without reductions {}\n", busiest, all, bound);
  if (!json.empty()) {
    const nlohmann::ordered_json j{{"version", 1}, {"type", type.str()}, {"bytes", busiest}, {"bytes_all_devices", all}, {"lower_bound", bound}, {"steps", list}};
    std::ofstream out(json, std::ios::trunc);
    if (!(out << j.dump(2) << "\n" << std::flush)) throw UserError(fmt::format("cannot write {}; check the folder and its permissions", json));
  }
  return 0;
}

}  // namespace meshard
