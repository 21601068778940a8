// TextReader: the small parts of program text that say nothing about ops: names, types with layouts, inits, guards,
// axes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "meshard/base/text.h"
#include "meshard/ir/program.h"
#include "meshard/ir/runs.h"

namespace meshard {

class TextReader {
 public:
  TextReader(std::string_view text, std::string_view file) : in_(text, file), text_(text), file_(file) {}

 protected:
  // A type with what may follow it: "f32[3,5] [data, -]! below=13".
  struct Typed {
    Type type;
    Place place;
    std::optional<Layout> layout;
    Place layout_place;
    bool marked = false;  // by "!"
    int64_t below = 0;
  };

  void preamble();  // version and mesh

  std::string function_name(std::string_view what);
  std::string value_name(
      std::string_view also = "");  // begins with "%", which is left out; may hold ranges, and characters of `also`
  std::string plain_name();         // of one value: without ranges
  NameParts run_name();

  Typed typed();
  Init init();                                   // "=normal(0.02)"
  std::vector<std::pair<int, int64_t>> guard();  // "at pipe=2, data=0", empty if there is none
  AtomSet over(const OpDef& def);                // "{over = (data,model)}": all that a collective says of itself

  // Runs what throws UserErrors that know the place but not the line, and shows the line.
  template <class Body>
  auto show_line(const Place& place, Body body) -> decltype(body()) {
    try {
      return body();
    } catch (const UserError& error) {
      if (!error.diagnostic().notes.empty()) throw;
      in_.fail(place, error.diagnostic().text);
    }
  }

  Scanner in_;
  std::string_view text_;
  std::string file_;
  std::optional<Mesh> mesh_;
  bool any_marked_ = false;  // any layout so far

 private:
  const Mesh& need_mesh(const Place& place, std::string_view what, std::string_view example);
};

}  // namespace meshard
