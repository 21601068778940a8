#include "pattern.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace meshard {
namespace {

namespace fs = std::filesystem;

std::string trimmed(const std::string& s) {
  const size_t begin = s.find_first_not_of(" \t\n");
  return begin == std::string::npos ? "" : s.substr(begin, s.find_last_not_of(" \t\n") - begin + 1);
}

std::vector<std::string> parts(const std::string& s, char between) {
  std::vector<std::string> list(1);
  for (char c : s) {
    if (c == between) list.emplace_back();
    else list.back() += c;
  }
  for (std::string& part : list) part = trimmed(part);
  return list;
}

// "M=48, K=2*p": numbers only.
Sizes read_sizes(const std::string& text) {
  Sizes sizes;
  for (const std::string& part : parts(text, ',')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos) throw std::runtime_error("sizes are written NAME=NUMBER: " + text);
    sizes[trimmed(part.substr(0, equals))] = std::stod(part.substr(equals + 1));
  }
  return sizes;
}

class Evaluator {
 public:
  Evaluator(const std::string& text, const std::map<std::string, std::string>& where, const Sizes& sizes) : text_(text), where_(where), sizes_(sizes) {}

  double run() {
    const double value = sum();
    if (skip() != '\0') fail("unexpected text");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(what + " at " + std::to_string(at_) + " in: " + text_); }

  char skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (skip() != c) return false;
    ++at_;
    return true;
  }

  double sum() {
    double value = product();
    for (;;) {
      if (take('+')) value += product();
      else if (take('-')) value -= product();
      else return value;
    }
  }

  double product() {
    double value = atom();
    for (;;) {
      if (take('*')) value *= atom();
      else if (take('/')) value /= atom();
      else return value;
    }
  }

  double atom() {
    const char c = skip();
    if (take('(')) {
      const double value = sum();
      if (!take(')')) fail("missing )");
      return value;
    }
    if (std::isdigit(static_cast<unsigned char>(c))) {
      size_t used = 0;
      const double value = std::stod(text_.substr(at_), &used);
      at_ += used;
      return value;
    }
    std::string name;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) name += text_[at_++];
    if (name.empty()) fail("a number, a name or ( is missing");
    if (skip() == '(') return call(name);
    if (const auto size = sizes_.find(name); size != sizes_.end()) return size->second;
    if (const auto part = where_.find(name); part != where_.end()) return evaluate(part->second, where_, sizes_);
    fail("unknown name " + name);
  }

  // The argument texts, so that factors can evaluate its own again and again.
  std::vector<std::string> arguments() {
    std::vector<std::string> list(1);
    int depth = 0;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == ')' && --depth == 0) {
        ++at_;
        return list;
      }
      if (c == ',' && depth == 1) list.emplace_back();
      else if (!(c == '(' && depth++ == 0)) list.back() += c;
    }
    fail("missing )");
  }

  double call(const std::string& name) {
    const std::vector<std::string> list = arguments();
    if (name == "factors" || name == "factors3") {
      double least = INFINITY;
      const int p = static_cast<int>(sizes_.at("p"));
      for (int r = 1; r <= p; ++r) {
        for (int s = 1; r * s <= p; ++s) {
          if (p % (r * s) != 0 || (name == "factors" && r * s != p)) continue;
          Sizes sizes = sizes_;
          sizes["r"] = r, sizes["s"] = s, sizes["t"] = p / (r * s);
          least = std::min(least, evaluate(list[0], where_, sizes));
        }
      }
      return least;
    }
    std::vector<double> values;
    for (const std::string& text : list) values.push_back(evaluate(text, where_, sizes_));
    if (name == "min") return *std::min_element(values.begin(), values.end());
    if (name == "max") return *std::max_element(values.begin(), values.end());
    if (name == "ceil") return std::ceil(values[0]);
    if (name == "log2") return std::log2(values[0]);
    fail("unknown function " + name);
  }

  const std::string text_;
  const std::map<std::string, std::string>& where_;
  const Sizes& sizes_;
  size_t at_ = 0;
};

std::string filled(const std::string& text, const Pattern& pattern, const Sizes& sizes, const std::string& either) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (text.compare(at, 7, "$either") == 0) {
      out += either;
      at += 7;
    } else if (text.compare(at, 2, "$(") == 0) {
      size_t end = at + 2;
      for (int depth = 1; end < text.size() && depth > 0; ++end) depth += (text[end] == '(') - (text[end] == ')');
      out += std::to_string(static_cast<int64_t>(std::llround(evaluate(text.substr(at + 2, end - at - 3), pattern.where, sizes))));
      at = end;
    } else {
      out += text[at++];
    }
  }
  return out;
}

std::string sizes_text(const Sizes& sizes) {
  std::string out;
  for (const auto& [name, value] : sizes) out += (out.empty() ? "" : ", ") + name + "=" + std::to_string(static_cast<int64_t>(value));
  return out;
}

}  // namespace

double evaluate(const std::string& expression, const std::map<std::string, std::string>& where, const Sizes& sizes) {
  return Evaluator(expression, where, sizes).run();
}

Pattern read_pattern(const std::string& path) {
  Pattern p;
  p.file = fs::path(path).filename().string();
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("//")) {
      p.text += line + "\n";
      continue;
    }
    const size_t colon = line.find(": ");
    const std::string name = colon == std::string::npos ? "" : line.substr(3, colon - 3), value = colon == std::string::npos ? "" : trimmed(line.substr(colon + 2));
    if (name == "row") p.row = std::stoi(value);
    else if (name == "bytes") p.bytes = value;
    else if (name == "less") p.less = value;
    else if (name == "least") p.least = value;
    else if (name == "more") p.more = value;
    else if (name == "because") p.because = value;
    else if (name == "mean") p.mean = value;
    else if (name == "either") p.either = parts(value, '|');
    else if (name == "sizes") p.sizes.push_back(read_sizes(value));
    else if (name == "uneven") p.uneven.push_back(read_sizes(value));
    else if (name == "meshes") {
      for (const std::string& mesh : parts(value, ';')) p.meshes.push_back(read_sizes(mesh));
    } else if (name == "where") {
      for (const std::string& part : parts(value, ';')) {
        const size_t equals = part.find('=');
        p.where[trimmed(part.substr(0, equals))] = trimmed(part.substr(equals + 1));
      }
    }
  }
  if (p.row == 0 || p.bytes.empty() || p.sizes.empty()) throw std::runtime_error(p.file + ": row, bytes and sizes must be given");
  if ((p.less + p.least + p.more).empty() != p.because.empty()) throw std::runtime_error(p.file + ": less, least or more, and because, belong together");
  if (p.either.empty()) p.either = {""};
  if (p.meshes.empty()) p.meshes = {{{"p", 2}}, {{"p", 3}}, {{"p", 4}}, {{"p", 8}}};
  return p;
}

std::vector<Pattern> read_patterns(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".mesh") paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Pattern> list;
  for (const std::string& path : paths) list.push_back(read_pattern(path));
  return list;
}

std::vector<PatternCase> cases(const Pattern& pattern) {
  std::vector<PatternCase> list;
  for (const bool even : {true, false}) {
    for (const Sizes& given : even ? pattern.sizes : pattern.uneven) {
      for (const Sizes& mesh : pattern.meshes) {
        PatternCase c;
        double devices = 1;
        for (const auto& [axis, size] : mesh) devices *= size;
        Sizes on_mesh = mesh;
        on_mesh["p"] = devices;
        on_mesh["q"] = (devices - 1) / devices;
        c.sizes = on_mesh;
        Sizes rounded = on_mesh;
        for (const auto& [name, size] : given) {
          c.sizes[name] = size;
          rounded[name] = even ? size : std::ceil(size / devices) * devices;
        }
        c.even = even;
        c.label = sizes_text(given) + " on " + sizes_text(mesh);
        c.table = evaluate(pattern.bytes, pattern.where, rounded);
        c.low = c.high = c.table;
        if (!pattern.less.empty()) c.low = c.high = std::min(c.table, evaluate(pattern.less, pattern.where, rounded));
        if (!pattern.least.empty()) c.low = std::min(c.table, evaluate(pattern.least, pattern.where, rounded));
        if (!pattern.more.empty()) c.low = c.high = std::max(c.table, evaluate(pattern.more, pattern.where, rounded));
        if (!even) c.low = 0;
        if (!even && pattern.more.empty()) c.high = c.table;
        for (const std::string& either : pattern.either) c.texts.push_back(filled(pattern.text, pattern, c.sizes, either));
        list.push_back(std::move(c));
      }
    }
  }
  return list;
}

}  // namespace meshard
