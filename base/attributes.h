// Attributes of an op: a small list of named constants, sorted by name: {causal = true, eps = 1e-05, rule = "b t, v d -> b t d"}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace meshard {

class Scanner;

using Attribute = std::variant<bool, int64_t, double, std::string>;

class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, Attribute>> list);

  void set(std::string_view name, Attribute value);
  void erase(std::string_view name);
  const Attribute* find(std::string_view name) const;  // nullptr: not there
  // The value or `otherwise`; a value of another type is an InternalError (the verifier has checked types). An integer is
  // accepted where a double is asked for.
  bool flag(std::string_view name, bool otherwise = false) const;
  int64_t integer(std::string_view name, int64_t otherwise = 0) const;
  double number(std::string_view name, double otherwise = 0) const;
  std::string_view text(std::string_view name, std::string_view otherwise = "") const;

  bool empty() const { return list_.empty(); }
  auto begin() const { return list_.begin(); }
  auto end() const { return list_.end(); }
  std::string str() const;  // "{causal = true}", "" if empty. A double always has a '.', an exponent, inf or nan.
  static Attributes parse(Scanner& in);  // from "{"
  bool operator==(const Attributes&) const = default;

 private:
  std::vector<std::pair<std::string, Attribute>> list_;
};

}  // namespace meshard
