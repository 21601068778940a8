// Scanner: the only tokenizer in the library. It reads words, numbers and marks with line and column, so that plans,
// meshes, layouts, rules and program text give the same kind of error.
//
//   Scanner in("data=2, model=4", "mesh");
//   std::string axis = in.word("an axis name");   // [A-Za-z_][A-Za-z0-9_]*
//   in.expect("=");
//   int64_t size = in.integer("the size of the axis");
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "meshard/base/error.h"

namespace meshard {

class Scanner {
 public:
  // Keeps a copy of `text`. Places are given in `file`, from `line`.
  Scanner(std::string_view text, std::string_view file, int line = 1);

  // Skips blanks, and comments from "#" or "//" to the end of the line; newlines too unless stop_at_newline was set.
  void skip();
  void stop_at_newline(bool stop) { stop_at_newline_ = stop; }
  bool stops_at_newline() const { return stop_at_newline_; }

  bool at_end();                          // nothing but blanks (and comments) is left
  bool at_newline();                      // the next character is a newline (only when stop_at_newline)
  char peek();                            // the next character after blanks, '\0' at the end
  bool looking_at(std::string_view mark); // the text continues with `mark`
  bool accept(std::string_view mark);     // consumes `mark` if the text continues with it
  void expect(std::string_view mark);     // consumes it or throws: `expected "," but found "]"`
  bool at_word();
  bool at_integer();                      // digits with or without sign, not the beginning of 0.5 or 1e-05
  std::string word(std::string_view what);                 // [A-Za-z_][A-Za-z0-9_]*, or throws: expected `what`
  bool accept_word(std::string_view word);                 // consumes a whole word
  // A word that may hold the characters of `also` too, and begin with a digit or one of them: names such as block.0.wq@1.
  std::string word_of(std::string_view also, std::string_view what);
  int64_t integer(std::string_view what);                  // with sign; throws where it does not fit in 63 bits
  double number(std::string_view what);                    // integer, decimal or exponent form, inf, -inf, nan
  std::string quoted(std::string_view what);               // "..." with \" \\ \n escapes

  Place place();                          // of the next character after blanks
  std::string line_text(int line) const;  // for carets
  // Throws UserError at `place` with the source line and a caret beneath it as notes.
  [[noreturn]] void fail(Place place, std::string text);
  [[noreturn]] void fail(std::string text) { fail(place(), std::move(text)); }

 private:
  std::string found() const;
  std::string text_, file_;
  size_t at_ = 0;
  int first_line_ = 1, line_ = 1, column_ = 1;
  bool stop_at_newline_ = false;
  void step();
};

// Quotes for program text: "..." with \" \\ \n escaped.
std::string quote(std::string_view text);
// The shortest decimal that reads back as the same double: "0.1", "1e-05", "0.06666666666666667".
std::string number_text(double value);

}  // namespace meshard
