#include "meshard/sharding/bill.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "meshard/ir/halo.h"
#include "meshard/ir/signature.h"
#include "meshard/layout/reshard.h"

namespace meshard {
namespace {

// Whether a device runs an op that is guarded by coordinates.
bool runs(const Mesh& mesh, const Op& op, Rank rank) {
  const std::vector<int64_t> at = mesh.coordinate(rank);
  return std::all_of(op.guard.begin(), op.guard.end(),
                     [&](const auto& g) { return at[static_cast<size_t>(g.first)] == g.second; });
}

std::string names(const Function& f, const std::vector<ValueId>& values) {
  constexpr size_t kShown = 3;
  std::string out;
  for (size_t i = 0; i < std::min(values.size(), kShown); ++i) out += fmt::format("{}%{}", i ? ", " : "", f.value(values[i]).name);
  return values.size() > kShown ? fmt::format("{} and {} more", out, values.size() - kShown) : out;
}

// Flops of the busiest device, from the rule's points with every factor at its largest block.
int64_t op_flops(const Program& program, const Function& f, const Op& op) {
  const Mesh& mesh = *program.mesh;
  std::vector<Layout> operand_layouts, result_layouts;
  for (ValueId v : op.operands) operand_layouts.push_back(*f.value(v).layout);
  for (ValueId v : op.results) result_layouts.push_back(*f.value(v).layout);
  const BoundRule& rule = bound_rule(program, f, op);
  const auto split = find_split(mesh, *op.def, rule, operand_layouts, result_layouts, nullptr);
  double points = op.def->flops_per_point;
  for (size_t k = 0; k < rule.factors.size(); ++k) {
    const int64_t parts = split ? mesh.parts(split->atoms[k]) : 1;
    points *= static_cast<double>((rule.factors[k].size + parts - 1) / parts);
  }
  return static_cast<int64_t>(std::min(points, 4e18));
}

std::string exact(int64_t bytes) {
  std::string digits = fmt::format("{}", bytes);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

}  // namespace

std::string bytes_text(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

Bill make_bill(const Program& local) {
  Bill bill;
  bill.mesh = *local.mesh;
  const Mesh& mesh = bill.mesh;
  const std::vector<int64_t> counts = run_counts(local);
  bill.device_bytes = DeviceSum(mesh);
  ReceivedCache received(mesh);
  double flops = 0, bytes_all = 0;
  for (size_t fi = 0; fi < local.functions.size(); ++fi) {
    const Function& f = local.functions[fi];
    const bool is_main = fi + 1 == local.functions.size();
    for (size_t oi = 0; oi < f.ops.size(); ++oi) {
      const Op& op = f.ops[oi];
      if (op.kind != Op::apply) continue;
      // Adds what a line's devices receive, elements[i] of `element` bytes where the digits along `along` count to i.
      const auto add = [&](BillLine& line, AtomSet along, const std::vector<int64_t>& elements, int64_t element) {
        const int64_t alike = mesh.size() / mesh.parts(along);  // devices that receive equally much
        double sum = 0;
        for (int64_t n : elements) sum += static_cast<double>(n) * static_cast<double>(alike);
        bytes_all += sum * static_cast<double>(element) * static_cast<double>(line.count);
        if (bytes_all > 0x1p62) {
          const std::string what = line.kind == Collective::exchange && op.def->reach != nullptr ? line.value : "%" + f.value(op.results[0]).name;
          throw UserError(op.source, fmt::format("with {} the step's communication passes 2^62 bytes over all devices", what));
        }
        const int64_t bytes = element * line.count;  // of an element, in all runs
        bill.device_bytes.add(along, elements, bytes);
        for (int64_t n : elements) {
          line.bytes = std::max(line.bytes, n * bytes);
          line.bytes_all += n * bytes * alike;
        }
        bill.bytes_all_devices += line.bytes_all;
      };
      const auto new_line = [&](Collective kind, AtomSet over, const std::string& value) {
        BillLine line;
        line.kind = kind;
        line.over = over;
        line.group = mesh.parts(over);
        line.count = counts[fi];
        line.value = (is_main ? "" : f.name + ": ") + value;
        line.source = op.source;
        return line;
      };
      if (op.def->reach != nullptr) {
        const PlacedOp placed(mesh, f, op);
        for (size_t i = 0; i < op.operands.size(); ++i) {
          const HaloFetch fetch = placed.fetch(static_cast<int>(i));
          if (!fetch.moves()) continue;
          const Dtype dtype = f.value(op.operands[i]).type.dtype;
          BillLine line = new_line(Collective::exchange, fetch.over(), names(f, {op.operands[i]}));
          line.function = static_cast<int>(fi);
          line.op = static_cast<int>(oi);
          line.values.push_back(fmt::format("{}%{}", is_main ? "" : f.name + ": ", base_name(f.value(op.operands[i]).name)));
          line.cause = fmt::format("{} reads the edges of %{} that other devices hold", op.def->name, f.value(op.operands[i]).name);
          AtomSet along = fetch.along();
          for (const auto& [axis, at] : op.guard) along = along | AtomSet::of(mesh.axes()[static_cast<size_t>(axis)].atoms);
          std::vector<int64_t> elements(static_cast<size_t>(mesh.parts(along)));
          for (Rank r : ranks_along(mesh, along)) {
            if (runs(mesh, op, r)) elements[static_cast<size_t>(mesh.position(r, along.list()))] = fetch.received_elements(r);
          }
          add(line, along, elements, size_bytes(dtype));
          line.lower_bound = line.bytes;
          bill.lines.push_back(std::move(line));
        }
      }
      if (!op.def->collective) {
        if (!op.def->identity) flops += static_cast<double>(op_flops(local, f, op)) * static_cast<double>(counts[fi]);
        continue;
      }
      if (*op.def->collective == Collective::slice) continue;
      const ValueInfo& value = f.value(op.results[0]);
      std::vector<ReshardStep> steps;
      std::vector<Shape> shapes;
      for (size_t i = 0; i < op.operands.size(); ++i) {
        shapes.push_back(f.value(op.operands[i]).type.shape);
        steps.push_back(step_of(*op.def->collective, op.over, *f.value(op.operands[i]).layout, *f.value(op.results[i]).layout));
      }
      const ReshardStep& step = steps[0];
      BillLine line = new_line(step.kind, op.over, names(f, op.results));
      line.cause = op.cause;
      line.asked = op.asked;
      line.function = static_cast<int>(fi);
      line.op = static_cast<int>(oi);
      for (ValueId v : op.results) line.values.push_back(fmt::format("{}%{}", is_main ? "" : f.name + ": ", base_name(f.value(v).name)));
      const Received& step_received = received.get(shapes, steps, op.guard);
      add(line, step_received.along, step_received.elements, size_bytes(value.type.dtype));
      line.lower_bound = step_received.lower_bound * size_bytes(value.type.dtype) * line.count;
      bill.lines.push_back(std::move(line));
    }
  }
  const DeviceSum::Largest busiest = bill.device_bytes.largest();
  bill.bytes = busiest.value;
  bill.busiest_device = busiest.rank;
  bill.flops = static_cast<int64_t>(std::min(flops, 9e18));
  return bill;
}

int64_t Bill::collectives() const {
  int64_t sum = 0;
  for (const BillLine& line : lines) sum += line.count;
  return sum;
}

std::string Bill::table(bool causes) const {
  struct Row {
    std::string what, over, value, cause;
    int64_t group = 1, count = 0, bytes = 0;
  };
  std::vector<Row> rows;
  std::map<std::string, size_t> merged;
  for (const BillLine& line : lines) {
    Row row{std::string(name(line.kind)), mesh.atoms_text(line.over), line.value, line.cause, line.group, line.count, line.bytes};
    if (!causes) {
      const auto [it, fresh] = merged.try_emplace(row.what + " " + row.over, rows.size());
      if (!fresh) {
        Row& sum = rows[it->second];
        sum.count += row.count;
        sum.bytes += row.bytes;
        sum.value = "";
        continue;
      }
    }
    rows.push_back(std::move(row));
  }
  std::string out = fmt::format("{:<15} {:<14} {:>5} {:>7} {:>15}  {}\n", "collective", "over", "group", "count", "bytes", causes ? "value" : "");
  for (const Row& r : rows) {
    out += fmt::format("{:<15} {:<14} {:>5} {:>7} {:>15}  {}\n", r.what, r.over, r.group, r.count, exact(r.bytes), causes ? r.value : "");
    if (causes && !r.cause.empty()) out += fmt::format("    {}\n", r.cause);
  }
  if (rows.empty()) out = "no communication\n";
  while (out.find(" \n") != std::string::npos) out.replace(out.find(" \n"), 2, "\n");
  out += fmt::format("busiest device receives {} bytes a step ({}), all devices together {}\n", exact(bytes), bytes_text(bytes),
                     bytes_text(bytes_all_devices));
  return out;
}

std::string Bill::json() const {
  nlohmann::ordered_json j;
  j["version"] = 1;
  j["mesh"] = nlohmann::ordered_json::object();
  for (const Axis& axis : mesh.axes()) j["mesh"][axis.name] = axis.size;
  j["bytes"] = bytes;
  j["bytes_all_devices"] = bytes_all_devices;
  j["busiest_device"] = busiest_device;
  j["peak_bytes"] = peak_bytes;
  j["flops"] = flops;
  j["collectives"] = nlohmann::ordered_json::array();
  for (const BillLine& line : lines) {
    nlohmann::ordered_json c;
    c["op"] = std::string(name(line.kind));
    c["axes"] = nlohmann::ordered_json::array();
    std::string axis;
    for (const Axis& a : mesh.axes()) {
      const AtomSet part = AtomSet::of(a.atoms) & line.over;
      if (!part.empty()) c["axes"].push_back(mesh.atoms_text(part));
    }
    c["group"] = line.group;
    c["count"] = line.count;
    c["bytes"] = line.bytes;
    c["bytes_all_devices"] = line.bytes_all;
    c["lower_bound"] = line.lower_bound;
    c["value"] = line.value;
    c["cause"] = line.cause;
    j["collectives"].push_back(std::move(c));
  }
  return j.dump(2) + "\n";
}

}  // namespace meshard
