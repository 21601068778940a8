// Errors: what a caller wrote wrong (UserError) and what we did wrong (InternalError). Nothing else is thrown.
//
//   throw UserError({"gpt.plan", 4, 23}, "no axis \"modle\" in mesh data=2, model=4; did you mean \"model\"?");
//   MESHARD_CHECK(begin <= end, "block ends before it begins");
//
// A message shows place, arithmetic and remedy, in one sentence; notes are further lines under it.
#pragma once

#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace meshard {

// Where something was written. An empty file is "no place"; line and column begin at 1, 0 is "not known".
struct Place {
  std::string file;
  int line = 0;
  int column = 0;

  bool known() const { return !file.empty(); }
  std::string str() const;  // "gpt.plan:4:23", "gpt.plan:4", "gpt.plan", ""
  bool operator==(const Place&) const = default;
};

struct Diagnostic {
  Place place;
  std::string text;
  std::vector<std::string> notes;

  std::string str() const;  // "place: text" and each note on a line of its own
};

// The caller's mistake. `meshard` prints it and ends with status 2, alike on all ranks.
class UserError : public std::exception {
 public:
  explicit UserError(std::string text, std::vector<std::string> notes = {});
  UserError(Place place, std::string text, std::vector<std::string> notes = {});

  const Diagnostic& diagnostic() const { return diagnostic_; }
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  Diagnostic diagnostic_;
  std::string what_;
};

// Our mistake: an invariant does not hold. `meshard` prints it and ends with status 3.
class InternalError : public std::exception {
 public:
  explicit InternalError(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

[[noreturn]] void fail_check(const char* file, int line, const char* condition, const std::string& what);

#define MESHARD_CHECK(condition, what)                                             \
  do {                                                                             \
    if (!(condition)) ::meshard::fail_check(__FILE__, __LINE__, #condition, what); \
  } while (false)

// The word of `known` nearest to `word` (edit distance at most a third of its length), or "" if none is near, or `word`
// is longer than 200 letters:
// nearest("modle", {"data", "model"}) == "model".
std::string nearest(std::string_view word, std::span<const std::string> known);

// " ; did you mean \"model\"?" or "" (with the leading "; ").
std::string did_you_mean(std::string_view word, std::span<const std::string> known);

}  // namespace meshard
