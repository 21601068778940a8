#include "meshard/launch/args.h"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>

namespace meshard {
namespace {

double parse_number(const Flag& flag, const std::string& text) {
  char* end = nullptr;
  errno = 0;
  const double value = std::strtod(text.c_str(), &end);
  const bool whole = flag.kind == Flag::number || (std::floor(value) == value && text.find_first_of(".eExXnN") == text.npos);
  if (text.empty() || *end != '\0' || errno != 0 || !std::isfinite(value) || !whole) {
    throw UserError(fmt::format("--{} is \"{}\", not {}", flag.name, text, flag.kind == Flag::integer ? "a whole number" : "a number"));
  }
  if (value < flag.least || value > flag.most) {
    throw UserError(fmt::format("--{} is {}, out of the range {:g} to {:g}", flag.name, text, flag.least, flag.most));
  }
  return value;
}

}  // namespace

Args Args::parse(std::span<const std::string> words, std::span<const Flag> flags) {
  Args args;
  std::vector<std::string> known;
  for (const Flag& f : flags) known.push_back("--" + f.name);
  for (size_t i = 0; i < words.size(); ++i) {
    std::string word = words[i];
    if (!word.starts_with("--") || word == "--") {
      args.positional_.push_back(word);
      continue;
    }
    std::string value;
    std::vector<std::string> more;  // behind the first
    bool has_value = false;
    if (const size_t eq = word.find('='); eq != word.npos) {
      value = word.substr(eq + 1);
      word.resize(eq);
      has_value = true;
    }
    const Flag* flag = nullptr;
    for (const Flag& f : flags) {
      if ("--" + f.name == word) flag = &f;
    }
    if (flag == nullptr) throw UserError(fmt::format("unknown flag {}{}", word, did_you_mean(word, known)));
    if (args.values_.count(flag->name)) throw UserError(fmt::format("{} is given twice", word));
    if (flag->kind == Flag::boolean) {
      if (has_value) throw UserError(fmt::format("{} takes no value", word));
    } else if (!has_value) {
      const size_t wanted = static_cast<size_t>(flag->values);
      if (i + wanted >= words.size()) {
        throw UserError(fmt::format("{} needs {}: {} {}", word, wanted == 1 ? "a value" : fmt::format("{} values", wanted), word, flag->value));
      }
      value = words[++i];
      for (size_t k = 1; k < wanted; ++k) more.push_back(words[++i]);
    } else if (flag->values > 1) {
      throw UserError(fmt::format("{} takes {} values without \"=\": {} {}", word, flag->values, word, flag->value));
    }
    if (flag->kind == Flag::integer || flag->kind == Flag::number) parse_number(*flag, value);
    if (!flag->one_of.empty()) {
      bool found = false;
      std::string list;
      for (const std::string& choice : flag->one_of) {
        found |= choice == value;
        list += (list.empty() ? "" : ", ") + choice;
      }
      if (!found) throw UserError(fmt::format("{} is \"{}\", not one of: {}", word, value, list));
    }
    more.insert(more.begin(), value);
    args.values_[flag->name] = std::move(more);
  }
  return args;
}

bool Args::has(std::string_view flag) const { return values_.find(flag) != values_.end(); }

std::string Args::text(std::string_view flag, std::string_view otherwise) const {
  const auto it = values_.find(flag);
  return it == values_.end() ? std::string(otherwise) : it->second[0];
}

std::vector<std::string> Args::words(std::string_view flag) const {
  const auto it = values_.find(flag);
  return it == values_.end() ? std::vector<std::string>() : it->second;
}

int64_t Args::integer(std::string_view flag, int64_t otherwise) const {
  const auto it = values_.find(flag);
  return it == values_.end() ? otherwise : std::strtoll(it->second[0].c_str(), nullptr, 10);
}

double Args::number(std::string_view flag, double otherwise) const {
  const auto it = values_.find(flag);
  return it == values_.end() ? otherwise : std::strtod(it->second[0].c_str(), nullptr);
}

std::string Args::help(std::span<const Flag> flags) {
  std::string out;
  for (const Flag& f : flags) {
    out += fmt::format("  {:<26} {}\n", "--" + f.name + (f.kind == Flag::boolean ? "" : " " + f.value), f.purpose);
  }
  return out;
}

}  // namespace meshard
