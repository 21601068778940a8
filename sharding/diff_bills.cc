#include "meshard/sharding/diff_bills.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace meshard {
namespace {

struct Side {
  std::vector<std::string> what;  // each kind and axes once, in program order
  int64_t bytes = 0, count = 0;
  std::string text() const { return fmt::format("{}", fmt::join(what, ", ")); }
};

void add(Side& side, const Mesh& mesh, const BillLine& line) {
  std::string what = fmt::format("{} over {}", name(line.kind), mesh.atoms_text(line.over));
  if (std::find(side.what.begin(), side.what.end(), what) == side.what.end()) side.what.push_back(std::move(what));
  side.bytes += line.bytes;
  side.count += line.count;
}

// "block_vjp: %up.use.1" -> "parameter %up": what stands for a parameter in another role counts as the parameter's.
std::string subject(std::string_view value) {
  value = base_name(value);
  std::string_view name = value.substr(value.find('%'));
  if (const size_t dot = name.find_last_of('.'); dot != name.npos && name.find_first_not_of("0123456789", dot + 1) == name.npos) {
    name = name.substr(0, dot);
  }
  for (std::string_view part : {".use", ".grad", ".sum", ".total"}) {
    if (name.size() > part.size() + 1 && name.ends_with(part)) return fmt::format("parameter {}", name.substr(0, name.size() - part.size()));
  }
  return std::string(value);
}

BillDiff::Total total(const Bill& bill) {
  return {bill.bytes, bill.bytes_all_devices, bill.collectives(), bill.peak_bytes, bill.flops};
}

std::string with_commas(int64_t n) {
  std::string digits = fmt::format("{}", n);
  const size_t first = n < 0 ? 1 : 0;
  std::string out = digits.substr(0, first);
  for (size_t i = first; i < digits.size(); ++i) {
    if (i > first && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string percent(int64_t before, int64_t after) {
  if (before == 0) return "";
  return fmt::format(" ({:+.1f} %)", 100.0 * (static_cast<double>(after) - static_cast<double>(before)) / static_cast<double>(before));
}

}  // namespace

std::string signed_text(int64_t bytes) { return (bytes > 0 ? "+" : "") + with_commas(bytes); }

BillDiff diff_bills(const Bill& before, const Bill& after) {
  std::map<std::string, size_t> at;
  std::vector<std::string> names;
  std::vector<std::pair<Side, Side>> sides;
  const auto side = [&](const BillLine& line) -> std::pair<Side, Side>& {
    const std::string value = subject(line.value);
    const auto [it, fresh] = at.try_emplace(value, sides.size());
    if (fresh) {
      sides.emplace_back();
      names.push_back(value);
    }
    return sides[it->second];
  };
  for (const BillLine& line : before.lines) add(side(line).first, before.mesh, line);
  for (const BillLine& line : after.lines) add(side(line).second, after.mesh, line);

  BillDiff diff;
  diff.before = total(before);
  diff.after = total(after);
  for (size_t i = 0; i < sides.size(); ++i) {
    const auto& [a, b] = sides[i];
    if (a.what == b.what && a.bytes == b.bytes && a.count == b.count) {
      ++diff.same;
      continue;
    }
    diff.rows.push_back({names[i], a.text(), b.text(), a.bytes, b.bytes, a.count, b.count});
  }
  std::stable_sort(diff.rows.begin(), diff.rows.end(), [](const BillDiff::Row& a, const BillDiff::Row& b) {
    return std::abs(a.after - a.before) > std::abs(b.after - b.before);
  });
  return diff;
}

std::string BillDiff::table(std::string_view before_name, std::string_view after_name) const {
  std::string out = fmt::format("{:<40} {:>15} {:>15} {:>15}\n", fmt::format("from {} to {}", before_name, after_name), "before", "after", "change");
  const auto line = [&](std::string_view what, int64_t a, int64_t b) {
    out += fmt::format("{:<40} {:>15} {:>15} {:>15}{}\n", what, with_commas(a), with_commas(b), signed_text(b - a), percent(a, b));
  };
  line("bytes, busiest device", before.bytes, after.bytes);
  line("bytes, all devices", before.bytes_all_devices, after.bytes_all_devices);
  line("collectives", before.collectives, after.collectives);
  line("memory, bytes a device", before.peak_bytes, after.peak_bytes);
  line("flops, busiest device", before.flops, after.flops);
  out += rows.empty() ? "\nno value's communication changes\n" : "\nbytes by value, largest change first:\n";
  for (const Row& row : rows) {
    line(row.value, row.before, row.after);
    const std::string was = row.before_what.empty() ? "nothing" : fmt::format("{} x {}", row.count_before, row.before_what);
    const std::string is = row.after_what.empty() ? "nothing" : fmt::format("{} x {}", row.count_after, row.after_what);
    out += fmt::format("    {}\n", was == is ? was : fmt::format("{} -> {}", was, is));
  }
  if (same > 0) out += fmt::format("{} {} the same in both\n", same, same == 1 ? "value is" : "values are");
  return out;
}

std::string BillDiff::json(std::string_view before_name, std::string_view after_name) const {
  using Json = nlohmann::ordered_json;
  const auto side = [](std::string_view name, const Total& t) {
    return Json{{"plan", std::string(name)},         {"bytes", t.bytes},           {"bytes_all_devices", t.bytes_all_devices},
                {"collectives", t.collectives}, {"peak_bytes", t.peak_bytes}, {"flops", t.flops}};
  };
  Json j;
  j["version"] = 1;
  j["before"] = side(before_name, before);
  j["after"] = side(after_name, after);
  j["same"] = same;
  j["values"] = Json::array();
  for (const Row& r : rows) {
    j["values"].push_back({{"value", r.value},
                           {"before", {{"what", r.before_what}, {"bytes", r.before}, {"count", r.count_before}}},
                           {"after", {{"what", r.after_what}, {"bytes", r.after}, {"count", r.count_after}}}});
  }
  return j.dump(2) + "\n";
}

}  // namespace meshard
