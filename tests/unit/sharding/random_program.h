// Random programs for the choice of layouts: products, sums of values, linear and nonlinear elementwise ops and reductions over
// values of one to three dimensions, uneven sizes, values read several times, some layouts given.
#pragma once

#include <map>
#include <random>
#include <string>

#include "fmt/format.h"

namespace meshard {

struct RandomProgram {
  int ops = 6;
  std::vector<std::pair<std::string, int64_t>> axes;  // {"x", 4}
  bool open_inputs = false;
  size_t near = 1000000;  // operands are among so many last values
};

inline std::string random_program(const RandomProgram& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](size_t n) { return static_cast<size_t>(random() % n); };
  constexpr int64_t kSizes[] = {2, 3, 5, 6, 7, 8, 12, 16, 17, 30, 64, 100, 128};
  std::map<char, int64_t> size;
  for (char c = 'a'; c <= 'e'; ++c) size[c] = kSizes[draw(std::size(kSizes))];
  struct Value {
    std::string name, letters;
    int reads = 0;
  };
  std::vector<Value> values;
  const auto type = [&](const std::string& letters) {
    std::string dims;
    for (char c : letters) dims += fmt::format("{}{}", dims.empty() ? "" : ",", size[c]);
    return "f32[" + dims + "]";
  };
  const auto layout = [&](const std::string& letters) {
    std::vector<std::string> dims(letters.size(), "-");
    for (const auto& [axis, n] : shape.axes) {
      const size_t at = draw(letters.size() + 1);
      if (at == letters.size()) continue;
      std::string& dim = dims[at];
      dim = dim == "-" ? axis : dim.front() == '(' ? dim.substr(0, dim.size() - 1) + "," + axis + ")" : "(" + dim + "," + axis + ")";
    }
    std::string text;
    for (const std::string& d : dims) text += (text.empty() ? "" : ", ") + d;
    return "[" + text + "]";
  };
  const auto pick_letters = [&](const std::string& from, size_t most) {
    std::string left = from, got;
    const size_t n = 1 + draw(std::min(most, from.size()));
    while (got.size() < n) {
      const size_t at = draw(left.size());
      got += left[at];
      left.erase(at, 1);
    }
    return got;
  };
  const auto spaced = [](const std::string& letters) {
    std::string s;
    for (char c : letters) s += (s.empty() ? "" : " ") + std::string(1, c);
    return s;
  };
  std::string params, body;
  for (size_t i = 0, n = 2 + draw(3); i < n; ++i) {
    values.push_back({fmt::format("x{}", i), pick_letters("abcde", 3)});
    const std::string given = shape.open_inputs && draw(4) == 0 ? "" : " " + layout(values.back().letters);
    params += fmt::format("{}%{}: {}{}", i ? ", " : "", values.back().name, type(values.back().letters), given);
  }
  for (int i = 0; i < shape.ops; ++i) {
    Value made{fmt::format("v{}", i), ""};
    std::string line;
    for (int tries = 0; line.empty(); ++tries) {
      const size_t first = values.size() > shape.near ? values.size() - shape.near : 0;
      Value& a = values[first + draw(values.size() - first)];
      Value& b = values[first + draw(values.size() - first)];
      if (a.reads >= 5 || b.reads >= 5) {
        if (tries < 100) continue;
      }
      const size_t kind = draw(8);
      if (kind < 3) {
        std::string all = a.letters;
        for (char c : b.letters) {
          if (all.find(c) == all.npos) all += c;
        }
        made.letters = pick_letters(all, 3);
        line = fmt::format("einsum %{}, %{} {{rule = \"{}, {} -> {}\"}}", a.name, b.name, spaced(a.letters), spaced(b.letters), spaced(made.letters));
        ++a.reads, ++b.reads;
      } else if (kind < 5) {
        if (a.letters != b.letters) continue;
        made.letters = a.letters;
        line = fmt::format("add %{}, %{}", a.name, b.name);
        ++a.reads, ++b.reads;
      } else if (kind == 5) {
        made.letters = a.letters;
        line = fmt::format("gelu %{}", a.name);
        ++a.reads;
      } else if (kind == 6) {
        made.letters = a.letters;
        line = fmt::format("neg %{}", a.name);
        ++a.reads;
      } else {
        if (a.letters.size() < 2) continue;
        made.letters = a.letters.substr(1);
        line = fmt::format("sum %{} {{rule = \"{} -> {}\"}}", a.name, spaced(a.letters), spaced(made.letters));
        ++a.reads;
      }
    }
    const std::string given = draw(6) == 0 ? " " + layout(made.letters) : "";
    body += fmt::format("  %{} = {} : {}{}\n", made.name, line, type(made.letters), given);
    values.push_back(made);
  }
  std::string returns;
  for (const Value& v : values) {
    if (v.name[0] == 'v' && v.reads == 0) returns += (returns.empty() ? "%" : ", %") + v.name;
  }
  std::string mesh;
  for (const auto& [axis, n] : shape.axes) mesh += fmt::format("{}{}={}", mesh.empty() ? "" : ", ", axis, n);
  return fmt::format("mesh {}\nfunc main({}) {{\n{}  return {}\n}}\n", mesh, params, body, returns);
}

}  // namespace meshard
