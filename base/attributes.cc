#include "meshard/base/attributes.h"

#include <algorithm>

#include "fmt/format.h"
#include "meshard/base/error.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

constexpr auto kBefore = [](const std::pair<std::string, Attribute>& entry, std::string_view name) {
  return entry.first < name;
};

// The value as T, nullptr where it is missing.
template <class T>
const T* typed(const Attribute* value, std::string_view name, std::string_view type) {
  if (value == nullptr) return nullptr;
  const T* found = std::get_if<T>(value);
  MESHARD_CHECK(found != nullptr, fmt::format("attribute {} is not {}", name, type));
  return found;
}

std::string value_text(const Attribute& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const int64_t* i = std::get_if<int64_t>(&value)) return std::to_string(*i);
  if (const std::string* s = std::get_if<std::string>(&value)) return quote(*s);
  std::string text = number_text(std::get<double>(value));
  // Digits alone would read back as an integer.
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

Attribute parse_value(Scanner& in) {
  if (in.peek() == '"') return in.quoted("a value");
  if (in.accept_word("true")) return true;
  if (in.accept_word("false")) return false;
  constexpr std::string_view kWhat = "a value (true, false, a number or a text in quotes)";
  if (in.at_integer()) return in.integer(kWhat);
  return in.number(kWhat);
}

}  // namespace

Attributes::Attributes(std::initializer_list<std::pair<std::string, Attribute>> list) {
  for (const auto& [name, value] : list) set(name, value);
}

void Attributes::set(std::string_view name, Attribute value) {
  const auto at = std::lower_bound(list_.begin(), list_.end(), name, kBefore);
  if (at != list_.end() && at->first == name) {
    at->second = std::move(value);
  } else {
    list_.emplace(at, std::string(name), std::move(value));
  }
}

void Attributes::erase(std::string_view name) {
  const auto at = std::lower_bound(list_.begin(), list_.end(), name, kBefore);
  if (at != list_.end() && at->first == name) list_.erase(at);
}

const Attribute* Attributes::find(std::string_view name) const {
  const auto at = std::lower_bound(list_.begin(), list_.end(), name, kBefore);
  return at != list_.end() && at->first == name ? &at->second : nullptr;
}

bool Attributes::flag(std::string_view name, bool otherwise) const {
  const bool* value = typed<bool>(find(name), name, "true or false");
  return value == nullptr ? otherwise : *value;
}

int64_t Attributes::integer(std::string_view name, int64_t otherwise) const {
  const int64_t* value = typed<int64_t>(find(name), name, "an integer");
  return value == nullptr ? otherwise : *value;
}

double Attributes::number(std::string_view name, double otherwise) const {
  const Attribute* value = find(name);
  if (value == nullptr) return otherwise;
  if (const int64_t* whole = std::get_if<int64_t>(value)) return static_cast<double>(*whole);
  return *typed<double>(value, name, "a number");
}

std::string_view Attributes::text(std::string_view name, std::string_view otherwise) const {
  const std::string* value = typed<std::string>(find(name), name, "a text");
  return value == nullptr ? otherwise : *value;
}

std::string Attributes::str() const {
  if (list_.empty()) return "";
  std::string out = "{";
  for (const auto& [name, value] : list_) {
    out += fmt::format("{}{} = {}", out.size() > 1 ? ", " : "", name, value_text(value));
  }
  return out + "}";
}

Attributes Attributes::parse(Scanner& in) {
  constexpr int kMost = 256;
  Attributes out;
  in.expect("{");
  while (!in.looking_at("}")) {
    if (!out.empty()) in.expect(",");
    const Place place = in.place();
    const std::string name = in.word("the name of an attribute");
    if (static_cast<int>(out.list_.size()) == kMost) in.fail(place, fmt::format("an op has at most {} attributes", kMost));
    if (out.find(name) != nullptr) in.fail(place, fmt::format("attribute {} is given twice", name));
    in.expect("=");
    out.set(name, parse_value(in));
  }
  in.expect("}");
  return out;
}

}  // namespace meshard
