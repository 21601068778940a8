#include "meshard/ir/pass.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "meshard/ir/parse.h"
#include "meshard/ir/runs.h"

namespace meshard {
namespace {

void check_skip(const std::vector<Pass>& passes, const std::vector<std::string>& skip) {
  std::vector<std::string> names;
  for (const Pass& pass : passes) names.push_back(pass.name);
  for (const std::string& name : skip) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    throw UserError(fmt::format("no pass \"{}\" to skip; there are {}{}", name, absl::StrJoin(names, ", "),
                                did_you_mean(name, names)));
  }
}

// The first line in which two texts differ, for messages.
std::string first_difference(const std::string& a, const std::string& b) {
  const std::vector<std::string_view> x = split_at(a, '\n'), y = split_at(b, '\n');
  size_t i = 0;
  while (i < x.size() && i < y.size() && x[i] == y[i]) ++i;
  return fmt::format("line {}: {} | {}", i + 1, i < x.size() ? x[i] : "", i < y.size() ? y[i] : "");
}

void check_text(const Program& program, const std::string& stage) {
  const std::string text = print(program);
  try {
    const Program again = parse_program(text, stage, *program.table);
    std::string why;
    MESHARD_CHECK(equal(program, again, &why), fmt::format("the text of {} does not say the same: {}", stage, why));
    const std::string twice = print(again);
    MESHARD_CHECK(twice == text,
                  fmt::format("the text of {} prints differently: {}", stage, first_difference(text, twice)));
  } catch (const UserError& error) {
    throw InternalError(fmt::format("the text of {} does not parse: {}", stage, error.what()));
  }
}

void dump(const Program& program, const std::string& folder, int number, const std::string& stage) {
  const std::filesystem::path path = std::filesystem::path(folder) / fmt::format("{:02}-{}.mesh", number, stage);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::ofstream out(path, std::ios::binary);
  out << print(program);
  out.close();
  if (!out) throw UserError(fmt::format("can't write {}", path.string()));
}

}  // namespace

Program run_passes(Program program, const std::vector<Pass>& passes, const PassOptions& options,
                   std::vector<PassTime>* times) {
  check_skip(passes, options.skip);
  const auto stage = [&](int number, const std::string& name) {
    if (options.reparse) check_text(program, name);
    if (!options.dump.empty()) dump(program, options.dump, number, name);
  };
  double verifying = 0;
  const auto verify_timed = [&](Level level) {
    if (!options.verify) return;
    const auto begin = std::chrono::steady_clock::now();
    verify(program, level);
    verifying += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  verify_timed(Level::traced);
  stage(0, "trace");
  int number = 0;
  for (const Pass& pass : passes) {
    ++number;
    if (std::find(options.skip.begin(), options.skip.end(), pass.name) != options.skip.end()) continue;
    const auto begin = std::chrono::steady_clock::now();
    program = pass.run(std::move(program));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    if (times != nullptr) times->push_back({pass.name, seconds.count()});
    // The input was right, so what is wrong now is the pass's fault.
    try {
      verify_timed(pass.leaves);
    } catch (const UserError& error) {
      throw InternalError(fmt::format("pass {} leaves a wrong program: {}", pass.name, error.what()));
    }
    stage(number, pass.name);
  }
  if (times != nullptr) times->push_back({"verify", verifying});
  return program;
}

}  // namespace meshard
