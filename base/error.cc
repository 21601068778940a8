#include "meshard/base/error.h"

#include <algorithm>

#include "fmt/format.h"

namespace meshard {

std::string Place::str() const {
  if (!known()) return "";
  std::string text = file;
  if (line > 0) text += fmt::format(":{}", line);
  if (line > 0 && column > 0) text += fmt::format(":{}", column);
  return text;
}

std::string Diagnostic::str() const {
  std::string out = place.known() ? place.str() + ": " + text : text;
  for (const std::string& note : notes) out += "\n  " + note;
  return out;
}

UserError::UserError(std::string text, std::vector<std::string> notes)
    : UserError(Place{}, std::move(text), std::move(notes)) {}

UserError::UserError(Place place, std::string text, std::vector<std::string> notes)
    : diagnostic_{std::move(place), std::move(text), std::move(notes)}, what_(diagnostic_.str()) {}

void fail_check(const char* file, int line, const char* condition, const std::string& what) {
  throw InternalError(fmt::format("{}:{}: internal error: {} ({} does not hold)", file, line, what, condition));
}

// Edit distance in which swapping two neighbours counts one, as it does for typing fingers.
static size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

std::string nearest(std::string_view word, std::span<const std::string> known) {
  constexpr size_t kLongest = 200;  // the distance takes the square of it
  if (word.size() > kLongest) return "";
  size_t best = word.size() / 3 + 1;
  std::string found;
  for (const std::string& candidate : known) {
    // The difference in length bounds the distance from below: most of a long list is never compared.
    const size_t gap = std::max(word.size(), candidate.size()) - std::min(word.size(), candidate.size());
    if (gap >= best) continue;
    const size_t d = distance(word, candidate);
    if (d < best) {
      best = d;
      found = candidate;
    }
  }
  return found;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> known) {
  const std::string found = nearest(word, known);
  return found.empty() ? "" : fmt::format("; did you mean \"{}\"?", found);
}

}  // namespace meshard
