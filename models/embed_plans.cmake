# cmake -DPLANS="a.plan;b.plan" -DOUT=plans.cc -P embed_plans.cmake: writes the texts into a C++ file.
set(entries "")
set(names "")
foreach(plan ${PLANS})
  get_filename_component(name ${plan} NAME_WE)
  file(READ ${plan} text)
  string(APPEND entries "    {\"${name}\", R\"plan(${text})plan\"},\n")
endforeach()
file(WRITE ${OUT} "// Made by models/embed_plans.cmake from models/plans/*.plan.
#include \"meshard/models/plans.h\"

#include <array>
#include <utility>

namespace meshard {
namespace {

constexpr std::pair<std::string_view, std::string_view> kPlans[] = {
${entries}};

}  // namespace

std::vector<std::string> builtin_plan_names() {
  std::vector<std::string> names;
  for (const auto& [name, text] : kPlans) names.emplace_back(name);
  return names;
}

std::optional<std::string_view> builtin_plan(std::string_view name) {
  for (const auto& [known, text] : kPlans) {
    if (known == name) return text;
  }
  return std::nullopt;
}

}  // namespace meshard
")
