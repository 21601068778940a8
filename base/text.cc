#include "meshard/base/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "fmt/format.h"

namespace meshard {
namespace {

bool is_word(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool is_digit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }
// A byte that continues a UTF-8 character.
bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Length of the digits at `at`, with their sign.
size_t integer_length(std::string_view text, size_t at) {
  const size_t begin = at;
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
  const size_t digits = at;
  while (at < text.size() && is_digit(text[at])) ++at;
  return at == digits ? 0 : at - begin;
}

// Length of the decimal or exponent form at `at`. A point counts only before a digit, so that "0..11" begins with 0.
size_t number_length(std::string_view text, size_t at) {
  size_t length = integer_length(text, at);
  const size_t sign = length == 0 && at < text.size() && (text[at] == '-' || text[at] == '+') ? 1 : 0;
  const auto here = [&](size_t i) { return at + i < text.size() ? text[at + i] : '\0'; };
  if (here(length + sign) == '.' && is_digit(here(length + sign + 1))) {
    length += sign + 1;
    while (is_digit(here(length))) ++length;
  }
  if (length > 0 && (here(length) == 'e' || here(length) == 'E')) length += 1 + integer_length(text, at + length + 1);
  return length;
}

}  // namespace

Scanner::Scanner(std::string_view text, std::string_view file, int line)
    : text_(text), file_(file), first_line_(line), line_(line) {}

void Scanner::step() {
  if (text_[at_] == '\n') {
    ++line_;
    column_ = 1;
  } else {
    ++column_;
  }
  ++at_;
}

void Scanner::skip() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '#' || text_.compare(at_, 2, "//") == 0) {
      while (at_ < text_.size() && text_[at_] != '\n') step();
    } else if (c == ' ' || c == '\t' || c == '\r' || (c == '\n' && !stop_at_newline_)) {
      step();
    } else {
      return;
    }
  }
}

bool Scanner::at_end() {
  skip();
  return at_ >= text_.size();
}

bool Scanner::at_newline() {
  skip();
  return at_ < text_.size() && text_[at_] == '\n';
}

char Scanner::peek() { return at_end() ? '\0' : text_[at_]; }

bool Scanner::looking_at(std::string_view mark) {
  skip();
  return text_.compare(at_, mark.size(), mark) == 0;
}

bool Scanner::accept(std::string_view mark) {
  if (!looking_at(mark)) return false;
  for (size_t i = 0; i < mark.size(); ++i) step();
  return true;
}

void Scanner::expect(std::string_view mark) {
  if (!accept(mark)) fail(fmt::format("expected {} but found {}", quote(mark), found()));
}

bool Scanner::at_word() {
  const char c = peek();
  return is_word(c) && !is_digit(c);
}

std::string Scanner::word(std::string_view what) {
  if (!at_word()) fail(fmt::format("expected {} but found {}", what, found()));
  return word_of("", what);
}

bool Scanner::accept_word(std::string_view word) {
  if (!looking_at(word)) return false;
  const size_t end = at_ + word.size();
  if (end < text_.size() && is_word(text_[end])) return false;
  return accept(word);
}

std::string Scanner::word_of(std::string_view also, std::string_view what) {
  skip();
  const size_t begin = at_;
  while (at_ < text_.size() && (is_word(text_[at_]) || also.find(text_[at_]) != std::string_view::npos)) step();
  if (at_ == begin) fail(fmt::format("expected {} but found {}", what, found()));
  return text_.substr(begin, at_ - begin);
}

int64_t Scanner::integer(std::string_view what) {
  skip();
  const size_t length = integer_length(text_, at_);
  const size_t end = at_ + length;
  const bool whole = end >= text_.size() || !is_word(text_[end]);
  if (length == 0 || !whole || number_length(text_, at_) != length) {
    fail(fmt::format("expected {} but found {}", what, found()));
  }
  const size_t begin = at_ + (text_[at_] == '+');
  int64_t value = 0;
  const auto result = std::from_chars(text_.data() + begin, text_.data() + end, value);
  if (result.ec != std::errc())
    fail(fmt::format("expected {} but {} does not fit in 63 bits", what, text_.substr(at_, length)));
  while (at_ < end) step();
  return value;
}

double Scanner::number(std::string_view what) {
  skip();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (accept_word("inf") || accept_word("+inf")) return kInfinity;
  if (accept_word("-inf")) return -kInfinity;
  if (accept_word("nan")) return std::numeric_limits<double>::quiet_NaN();
  const size_t end = at_ + number_length(text_, at_);
  if (end == at_ || (end < text_.size() && is_word(text_[end]))) {
    fail(fmt::format("expected {} but found {}", what, found()));
  }
  const size_t begin = at_ + (text_[at_] == '+');
  double value = 0;
  const auto result = std::from_chars(text_.data() + begin, text_.data() + end, value);
  if (result.ec != std::errc() || result.ptr != text_.data() + end) {
    fail(fmt::format("expected {} but {} is no number that a double can hold", what, text_.substr(at_, end - at_)));
  }
  while (at_ < end) step();
  return value;
}

bool Scanner::at_integer() {
  skip();
  const size_t length = integer_length(text_, at_);
  return length > 0 && number_length(text_, at_) == length;
}

std::string Scanner::quoted(std::string_view what) {
  const Place begin = place();
  if (!accept("\"")) fail(fmt::format("expected {} in quotes but found {}", what, found()));
  std::string out;
  while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\n') {
    if (text_[at_] == '\\') {
      step();
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (c != 'n' && c != '"' && c != '\\') fail(R"(unknown escape; there are \", \\ and \n)");
      out += c == 'n' ? '\n' : c;
    } else {
      out += text_[at_];
    }
    step();
  }
  if (at_ >= text_.size() || text_[at_] != '"')
    fail(begin, fmt::format("{}: the quote is not closed on its line", what));
  step();
  return out;
}

Place Scanner::place() {
  skip();
  return {file_, line_, column_};
}

std::string Scanner::line_text(int line) const {
  size_t begin = 0;
  for (int l = first_line_; l < line && begin != std::string::npos; ++l) {
    begin = text_.find('\n', begin);
    if (begin != std::string::npos) ++begin;
  }
  if (line < first_line_ || begin == std::string::npos) return "";
  std::string out = text_.substr(begin, std::min(text_.find('\n', begin), text_.size()) - begin);
  if (!out.empty() && out.back() == '\r') out.pop_back();
  return out;
}

void Scanner::fail(Place place, std::string text) {
  const std::string line = line_text(place.line);
  std::vector<std::string> notes;
  if (!line.empty() && place.column > 0) {
    std::string caret;
    const size_t width = std::min(line.size(), static_cast<size_t>(place.column - 1));
    for (char c : line.substr(0, width)) {
      if (!continues(c)) caret += c == '\t' ? '\t' : ' ';
    }
    notes = {line, caret + "^"};
  }
  throw UserError(std::move(place), std::move(text), std::move(notes));
}

std::string Scanner::found() const {
  if (at_ >= text_.size()) return "the end of the text";
  if (text_[at_] == '\n') return "the end of the line";
  size_t end = at_ + 1;
  const size_t number = number_length(text_, at_);
  if (number > 0) end = at_ + number;
  if (number > 0 || is_word(text_[at_])) {
    while (end < text_.size() && is_word(text_[end])) ++end;
  } else {
    while (end < text_.size() && continues(text_[end])) ++end;
  }
  return quote(std::string_view(text_).substr(at_, end - at_));
}

std::string quote(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  char text[32];
  const auto result = std::to_chars(text, text + sizeof text, value);
  return {text, result.ptr};
}

}  // namespace meshard
