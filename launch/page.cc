#include "meshard/launch/page.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace meshard {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostDevices = 1024;  // whose bytes are listed

Json value_json(const Mesh& mesh, const ValueInfo& v) {
  return {{"n", v.name}, {"t", v.type.str()}, {"l", v.layout ? v.layout->str(mesh) : "[]"}};
}

std::string_view kind_text(const ParamInfo& info) {
  switch (info.kind) {
    case ParamInfo::input: return "input";
    case ParamInfo::param: return "parameter";
    case ParamInfo::state: return "state";
  }
  return "";
}

Json program_json(const Explained& e) {
  const Program& p = e.step.local;
  std::map<std::pair<int, int>, int> reason;  // of a collective: its place in the list of explanations
  for (size_t i = 0; i < e.why.list.size(); ++i) {
    const BillLine& line = e.why.lines[e.why.list[i].line];
    reason[{line.function, line.op}] = static_cast<int>(i);
  }
  const std::vector<int64_t> runs = run_counts(p);
  Json functions = Json::array();
  for (size_t fi = 0; fi < p.functions.size(); ++fi) {
    const Function& f = p.functions[fi];
    Json j{{"name", f.name}, {"runs", runs[fi]}, {"params", Json::array()}, {"ops", Json::array()}};
    for (size_t i = 0; i < f.params.size(); ++i) {
      Json v = value_json(*p.mesh, f.value(f.params[i]));
      v["k"] = fi + 1 == p.functions.size() ? kind_text(f.param_info[i]) : "argument";
      j["params"].push_back(std::move(v));
    }
    for (size_t i = 0; i < f.ops.size(); ++i) {
      const Op& op = f.ops[i];
      static constexpr const char* kKinds[] = {"apply", "call", "repeat", "wait"};
      Json o{{"k", kKinds[op.kind]}, {"op", op.def != nullptr ? std::string(op.def->name) : ""}, {"in", Json::array()}, {"out", Json::array()}};
      if (op.source.known()) o["src"] = op.source.str();
      const auto found = reason.find({static_cast<int>(fi), static_cast<int>(i)});
      o["c"] = found == reason.end() ? -1 : found->second;
      if (op.kind == Op::call || op.kind == Op::repeat) {
        o["callee"] = p.functions[static_cast<size_t>(op.callee)].name;
        o["prefix"] = op.prefix;
        o["count"] = op.count;
      } else {
        for (ValueId v : op.operands) o["in"].push_back(v == ValueId::none ? "" : f.value(v).name);
        for (ValueId v : op.results) o["out"].push_back(value_json(*p.mesh, f.value(v)));
      }
      j["ops"].push_back(std::move(o));
    }
    functions.push_back(std::move(j));
  }
  return functions;
}

}  // namespace

std::string plan_page(const PageHead& head, const Explained& e) {
  const Bill& bill = e.step.bill;
  Json data;
  data["title"] = head.title;
  data["subtitle"] = head.subtitle;
  data["source_name"] = head.source_name;
  data["source_text"] = head.source_text;
  data["mesh"] = {{"text", bill.mesh.size() == 1 ? "" : bill.mesh.str()}, {"axes", Json::array()}};
  for (const Axis& a : bill.mesh.axes()) data["mesh"]["axes"].push_back({{"name", a.name}, {"size", a.size}});
  data["devices"] = bill.mesh.size();
  data["device_bytes"] = Json::array();
  data["device_names"] = Json::array();
  for (size_t r = 0; r < std::min(static_cast<size_t>(bill.mesh.size()), kMostDevices); ++r) {
    data["device_bytes"].push_back(bill.device_bytes[r]);
    data["device_names"].push_back(bill.mesh.coordinate_text(Rank{static_cast<int32_t>(r)}));
  }
  data["collectives"] = bill.collectives();
  data["explanation"] = Json::parse(e.why.json());
  data["program"] = program_json(e);
  // The first function that is called: a model's block, opened when the page is.
  for (const Op& op : e.step.local.main().ops) {
    if (op.kind != Op::call && op.kind != Op::repeat) continue;
    data["open"] = e.step.local.functions[static_cast<size_t>(op.callee)].name;
    break;
  }
  // "</script>" in a name must not end the element.
  std::string json;
  for (char c : data.dump()) json += c == '<' ? std::string("\\u003c") : std::string(1, c);
  std::string page(page_template());
  constexpr std::string_view kMark = "@DATA@";
  page.replace(page.find(kMark), kMark.size(), json);
  return page;
}

}  // namespace meshard
