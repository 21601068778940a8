#include "meshard/launch/reshard.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "meshard/ir/parse.h"
#include "meshard/layout/reshard.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"

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
    throw UserError(why);
  }
  const int64_t element = size_bytes(type.dtype);
  // The bill is that of a program that does nothing else.
  const std::string text = fmt::format("mesh {}\nfunc main(%x: {} {}) {{\n  %y = reshard %x : {} {}\n  return %y\n}}\n", axes.str(), type.str(),
                                       from.str(mesh), type.str(), to.str(mesh));
  const Bill bill = compile(parse_program(text, "reshard", op_table())).bill;
  const auto steps = plan_reshard(mesh, type.shape, from, to);
  for (const ReshardStep& s : steps) {
    fmt::print("{:<15} over {:<14} {:>14} bytes   {} -> {}\n", name(s.kind), mesh.atoms_text(s.over),
               busiest_received_elements(mesh, type.shape, s) * element, s.from.str(mesh), s.to.str(mesh));
  }
  // What must arrive in any case; sums that have to be made are not in it.
  const int64_t bound = lower_bound_elements(mesh, type.shape, from, to) * element;
  fmt::print("busiest device receives {} bytes, all devices {}; lower bound without reductions {}\n", bill.bytes, bill.bytes_all_devices, bound);
  if (!json.empty()) {
    auto j = nlohmann::ordered_json::parse(bill.json());
    j["type"] = type.str();
    j["from"] = from.str(mesh);
    j["to"] = to.str(mesh);
    j["lower_bound"] = bound;
    std::ofstream out(json, std::ios::trunc);
    if (!(out << j.dump(2) << "\n" << std::flush)) throw UserError(fmt::format("cannot write {}; check the folder and its permissions", json));
  }
  return 0;
}

}  // namespace meshard
