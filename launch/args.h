// Arguments of the meshard command: a table of flags a subcommand takes. Unknown flags, missing values and values out of range
// are UserErrors with a suggestion.
//
//   Args args = Args::parse({"--steps", "100"}, {{"steps", Flag::integer, "N", "training steps", 1, 1e9}});
//   int64_t steps = args.integer("steps", 100);
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/error.h"

namespace meshard {

struct Flag {
  enum Kind { text, integer, number, boolean } kind = text;
  std::string name;     // without "--"
  std::string value;    // what stands for its value in the help: "FILE"
  std::string purpose;
  double least = 0, most = 0;       // of numbers, inclusive
  std::vector<std::string> one_of;  // of texts; empty: any
  int values = 1;                   // how many words it takes: 2 for "--diff A B"
};

class Args {
 public:
  static Args parse(std::span<const std::string> words, std::span<const Flag> flags);

  bool has(std::string_view flag) const;
  std::string text(std::string_view flag, std::string_view otherwise = "") const;
  std::vector<std::string> words(std::string_view flag) const;  // of a flag that takes several
  int64_t integer(std::string_view flag, int64_t otherwise) const;
  double number(std::string_view flag, double otherwise) const;
  const std::vector<std::string>& positional() const { return positional_; }

  static std::string help(std::span<const Flag> flags);

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> positional_;
};

}  // namespace meshard
