// The plans that come with the library: models/plans/*.plan, compiled in.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace meshard {

std::vector<std::string> builtin_plan_names();  // sorted
// The text of "data", "zero3" ...; nullopt: there is none of that name.
std::optional<std::string_view> builtin_plan(std::string_view name);

}  // namespace meshard
