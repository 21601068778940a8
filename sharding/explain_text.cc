// How explanations read: text for people and JSON for programs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "meshard/sharding/diff_bills.h"
#include "meshard/sharding/explain.h"

namespace meshard {
namespace {

std::string commas(int64_t n) {
  const std::string s = signed_text(n);
  return s[0] == '+' ? s.substr(1) : s;
}

std::string seconds_text(int64_t ns) {
  const auto value = static_cast<double>(ns);
  if (ns < 1'000) return fmt::format("{} ns", ns);
  if (ns < 1'000'000) return fmt::format("{:.1f} us", value / 1e3);
  if (ns < 1'000'000'000) return fmt::format("{:.1f} ms", value / 1e6);
  return fmt::format("{:.2f} s", value / 1e9);
}

// "1 message", "2,000 messages".
std::string counted(int64_t n, std::string_view what) { return fmt::format("{} {}{}", commas(n), what, n == 1 ? "" : "s"); }

std::string share(int64_t part, int64_t all) {
  return all == 0 ? "" : fmt::format(", {:.1f} % of the step", 100.0 * static_cast<double>(part) / static_cast<double>(all));
}

std::string place_text(const Place& p) {
  if (!p.known()) return "an unknown place";
  return p.line == 0 ? fmt::format("no line of {}: whole", p.str()) : p.str();
}

std::string asked_text(const std::vector<Asked>& list) {
  std::string out;
  for (const Asked& a : list) {
    out += out.empty() ? "" : "; ";
    if (a.elsewhere) out += fmt::format("{} is taken by {} there, ", a.axes, a.value);
    else if (a.pending) out += fmt::format("the {} over {} is from {}, ", name(a.reduction), a.axes, a.value);
    else if (!a.axes.empty()) out += fmt::format("{} is from {}, ", a.axes, a.value);
    out += "by " + place_text(a.place);
  }
  return out;
}

std::string percent(int64_t change, int64_t of) {
  return of == 0 ? "" : fmt::format(" ({:+.1f} %)", 100.0 * static_cast<double>(change) / static_cast<double>(of));
}

std::string edit_text(const RemovingEdit& edit, const Explanations& all) {
  std::string out = edit.place.line > 0 ? edit.place.str() + ": " : "";
  out += fmt::format("{}; bytes of all devices {}{}", edit.change, signed_text(edit.bytes_all_devices), percent(edit.bytes_all_devices, all.bytes_all_devices));
  out += fmt::format(", memory {}{}", signed_text(edit.peak_bytes), percent(edit.peak_bytes, all.peak_bytes));
  if (edit.flops != 0) out += fmt::format(", flops{}", percent(edit.flops, all.flops));
  return out;
}

// The change of layout and who asked for its two sides, `indent` columns in.
std::string sides(const Cause& c, int indent) {
  std::string out;
  if (c.steps > 1) out += fmt::format("{:{}}step {} of {} from {} to {}\n", "", indent, c.step, c.steps, c.from, c.to);
  const auto side = [&](std::string_view what, const std::string& layout, const std::string& by, const std::vector<Asked>& asked) {
    out += fmt::format("{:{}}{:<5} {}  {}\n", "", indent, what, layout, by);
    if (!asked.empty()) out += fmt::format("{:{}}{}\n", "", indent + 6, asked_text(asked));
  };
  side("from", c.from, c.made, c.from_asked);
  side("to", c.to, c.read, c.to_asked);
  return out;
}

// A message of several values: those with one cause together, each cause with its share of the bytes.
std::string parts_text(const Explanation& e, int64_t bytes) {
  constexpr size_t kNamed = 4;
  struct Part {
    std::string why;
    std::vector<const Cause*> causes;
    int64_t bytes = 0;
  };
  std::vector<Part> parts;
  const auto add = [&](const Cause& c) {
    const std::string why = asked_text(c.from_asked) + " -> " + asked_text(c.to_asked);
    auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.why == why; });
    if (part == parts.end()) part = parts.insert(parts.end(), Part{why, {}, 0});
    part->causes.push_back(&c);
    part->bytes += c.bytes;
  };
  add(e);
  for (const Cause& c : e.with) add(c);
  std::string out = fmt::format("     one message of {} values\n", e.with.size() + 1);
  for (const Part& p : parts) {
    out += fmt::format("     {} bytes ({:.1f} %) of ", commas(p.bytes), bytes == 0 ? 0.0 : 100.0 * static_cast<double>(p.bytes) / static_cast<double>(bytes));
    for (size_t i = 0; i < std::min(kNamed, p.causes.size()); ++i) out += fmt::format("{}{}", i ? ", " : "", p.causes[i]->value);
    out += p.causes.size() > kNamed ? fmt::format(" and {} more\n", p.causes.size() - kNamed) : "\n";
    out += sides(*p.causes[0], 7);
  }
  return out;
}

nlohmann::ordered_json place_json(const Place& p) {
  return {{"file", p.file}, {"line", p.line}, {"column", p.column}};
}

nlohmann::ordered_json asked_json(const std::vector<Asked>& list) {
  nlohmann::ordered_json j = nlohmann::ordered_json::array();
  for (const Asked& a : list) {
    j.push_back({{"axes", a.axes}, {"value", a.value}, {"place", place_json(a.place)}, {"pending", a.pending}, {"elsewhere", a.elsewhere}});
  }
  return j;
}

nlohmann::ordered_json change_json(const Cause& c) {
  return {{"from", c.from}, {"to", c.to}, {"step", c.step}, {"steps", c.steps}, {"bytes", c.reshard_bytes}, {"lower_bound", c.reshard_lower_bound}};
}

}  // namespace

std::string Explanations::text(size_t most) const {
  if (list.empty()) return "no communication\n";
  std::string out;
  size_t number = 0;
  for (const Explanation& e : list) {
    if (most > 0 && number == most) {
      out += fmt::format("and {} smaller ones\n", list.size() - most);
      break;
    }
    const BillLine& line = lines[e.line];
    out += fmt::format("{}. {} over {} of {} {}, {} {}: {} bytes{}\n", ++number, name(line.kind), mesh.atoms_text(line.over), e.value, e.type,
                       line.count, line.count == 1 ? "run" : "runs", commas(line.bytes), share(line.bytes, bytes));
    if (!e.ring.empty()) out += fmt::format("     {}\n", e.ring);
    out += e.with.empty() ? sides(e, 5) : parts_text(e, line.bytes);
    const std::string bound = e.reshard_bytes == e.reshard_lower_bound ? "the least for these layouts"
                                                                        : fmt::format("the least for these layouts is {} bytes", commas(e.reshard_lower_bound));
    out += fmt::format("     cost  {}, about {}; {}\n", counted(e.messages, "message"), seconds_text(e.nanoseconds), bound);
    for (const NotTaken& n : e.not_taken) out += fmt::format("     not taken: {}; bytes of all devices {}\n", n.what, signed_text(n.bytes_all_devices));
    if (!e.edits.empty() && !e.edits[0].removes) out += "     no change of one layout removes it\n";
    if (!e.edits.empty()) out += fmt::format("     {}: {}\n", e.edits[0].removes ? "without it" : "cheaper", edit_text(e.edits[0], *this));
    else if (e.edits_searched) out += "     no change of one layout removes it or makes it cheaper\n";
  }
  return out + fmt::format("{} a step, {} on the busiest device ({}), {}, about {} one after the other\n",
                           counted(collectives, "collective"), counted(bytes, "byte"), bytes_text(bytes), counted(messages, "message"), seconds_text(nanoseconds));
}

std::string Explanations::json() const {
  using Json = nlohmann::ordered_json;
  Json j;
  j["version"] = 1;
  j["kind"] = "explanation";
  j["mesh"] = Json::object();
  for (const Axis& axis : mesh.axes()) j["mesh"][axis.name] = axis.size;
  j["bytes"] = bytes;
  j["bytes_all_devices"] = bytes_all_devices;
  j["peak_bytes"] = peak_bytes;
  j["flops"] = flops;
  j["messages"] = messages;
  j["nanoseconds"] = nanoseconds;
  j["collectives"] = Json::array();
  for (const Explanation& e : list) {
    const BillLine& line = lines[e.line];
    Json c;
    c["op"] = std::string(name(line.kind));
    c["axes"] = Json::array();
    for (const Axis& a : mesh.axes()) {
      const AtomSet part = AtomSet::of(a.atoms) & line.over;
      if (!part.empty()) c["axes"].push_back(mesh.atoms_text(part));
    }
    c["group"] = line.group;
    c["count"] = line.count;
    c["bytes"] = line.bytes;
    c["bytes_all_devices"] = line.bytes_all;
    c["messages"] = e.messages;
    c["nanoseconds"] = e.nanoseconds;
    c["lower_bound"] = line.lower_bound;
    c["value"] = e.value;
    if (!e.ring.empty()) c["ring"] = e.ring;
    c["with"] = Json::array();
    for (const Cause& w : e.with) {
      c["with"].push_back({{"value", w.value}, {"type", w.type}, {"bytes", w.bytes}, {"made", w.made}, {"read", w.read}, {"change", change_json(w)},
                           {"from_asked", asked_json(w.from_asked)}, {"to_asked", asked_json(w.to_asked)}});
    }
    c["type"] = e.type;
    c["change"] = change_json(e);
    c["made"] = e.made;
    c["read"] = e.read;
    c["from_asked"] = asked_json(e.from_asked);
    c["to_asked"] = asked_json(e.to_asked);
    c["source"] = place_json(line.source);
    c["not_taken"] = Json::array();
    for (const NotTaken& n : e.not_taken) c["not_taken"].push_back({{"what", n.what}, {"bytes_all_devices", n.bytes_all_devices}});
    c["edits_searched"] = e.edits_searched;
    c["edits"] = Json::array();
    for (const RemovingEdit& x : e.edits) {
      c["edits"].push_back({{"removes", x.removes},
                                 {"place", place_json(x.place)},
                                 {"change", x.change},
                                 {"bytes", x.bytes},
                                 {"bytes_all_devices", x.bytes_all_devices},
                                 {"peak_bytes", x.peak_bytes},
                                 {"flops", x.flops},
                                 {"collectives", x.collectives}});
    }
    j["collectives"].push_back(std::move(c));
  }
  return j.dump(2) + "\n";
}

}  // namespace meshard
