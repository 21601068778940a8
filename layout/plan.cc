#include "meshard/layout/plan.h"

#include <algorithm>
#include <array>

#include "fmt/format.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

constexpr std::array<std::string_view, kRoles> kRoleNames = {"none", "use", "grad", "state", "store"};
constexpr size_t kMostNames = 20;  // in a message

// A mesh that has each word left on the line as an axis of one device: by it a layout's syntax is checked before there
// is a mesh, with the parser that reads it later.
Mesh mesh_of_words(Scanner line) {
  std::vector<std::string> words;
  while (!line.at_end()) {
    if (!line.at_word()) {
      line.accept(std::string(1, line.peek()));
      continue;
    }
    std::string word = line.word("a word");
    if (std::ranges::find(words, word) == words.end()) words.push_back(std::move(word));
  }
  std::string text;
  for (const std::string& word : words) text += fmt::format("{}{}=1", text.empty() ? "" : ", ", word);
  return Mesh::parse(text);
}

// The text from `begin` to `end` on one line, without the comment that may follow it.
std::string cut_text(const Scanner& in, const Place& begin, const Place& end) {
  std::string text = in.line_text(begin.line)
                         .substr(static_cast<size_t>(begin.column) - 1, static_cast<size_t>(end.column - begin.column));
  const size_t last = text.find_last_of("])", std::min(text.find('#'), text.find("//")));
  return text.substr(0, last + 1);
}

PlanLine::Entry parse_entry(Scanner& in, Role role) {
  PlanLine::Entry entry;
  entry.given = true;
  entry.place = in.place();
  Layout::parse(in, mesh_of_words(in), Layout::kAnyRank);
  entry.text = cut_text(in, entry.place, in.place());
  const bool pending = entry.text.find('+') != std::string::npos;
  if (pending && role != Role::grad && role != Role::none) {
    in.fail(entry.place,
            fmt::format("{} {} leaves a reduction to be done; of a parameter only the gradient may be pending",
                        name(role), entry.text));
  }
  return entry;
}

// patterns ["optional"] (layout | (role layout)+)
PlanLine parse_line(Scanner& in) {
  constexpr std::string_view kNameMarks = ".*@";
  PlanLine line;
  line.place = in.place();
  do {
    line.patterns.push_back(in.word_of(kNameMarks, "a name, which may hold \"*\","));
  } while (in.accept(","));
  line.optional = in.accept_word("optional");
  if (in.looking_at("[")) {
    line.roles[0] = parse_entry(in, Role::none);
    if (in.at_word())
      in.fail("a line has one layout for all roles, or each layout behind its role: use, grad, state, store");
    if (!in.at_end()) in.fail("the layout ends here, but text follows");
    return line;
  }
  if (in.at_end()) in.fail(fmt::format("no layout for {}; write one, such as [-, ...]", line.patterns.back()));
  while (!in.at_end()) {
    const Place place = in.place();
    const std::string word = in.word("a layout, or a role (use, grad, state, store) and a layout");
    const auto role = std::ranges::find(kRoleNames.begin() + 1, kRoleNames.end(), word);
    if (role == kRoleNames.end()) {
      const std::vector<std::string> known(kRoleNames.begin() + 1, kRoleNames.end());
      in.fail(place,
              fmt::format("no role \"{}\"; there are use, grad, state and store{}", word, did_you_mean(word, known)));
    }
    PlanLine::Entry& entry = line.roles[role - kRoleNames.begin()];
    if (entry.given) in.fail(place, fmt::format("{} has a layout on this line already, {}", word, entry.text));
    entry = parse_entry(in, static_cast<Role>(role - kRoleNames.begin()));
  }
  return line;
}

bool matches_any(const PlanLine& line, std::string_view name) {
  return std::ranges::any_of(line.patterns, [&](const std::string& pattern) { return matches(pattern, name); });
}

// The first `parts` parts of a dotted name; all of it if there are no more.
std::string_view leading(std::string_view name, size_t parts) {
  size_t end = 0;
  for (size_t i = 0; i < parts; ++i) {
    end = name.find('.', end + (i > 0));
    if (end == std::string_view::npos) return name;
  }
  return name.substr(0, end);
}

// "names under block.0: wq wk wv": the names beside the place where a pattern stops matching.
std::string names_beside(std::string_view pattern, std::span<const std::string> names) {
  const auto dots = static_cast<size_t>(std::ranges::count(pattern, '.'));
  for (size_t parts = dots + 2; parts-- > 0;) {  // also below a pattern that is too short
    std::string_view under;
    std::vector<std::string_view> next;
    for (const std::string& name : names) {
      const std::string_view head = leading(name, parts);
      if (head.size() == name.size() || !matches(leading(pattern, parts), head) || (!next.empty() && head != under))
        continue;
      under = head;
      const size_t begin = head.empty() ? 0 : head.size() + 1;
      const std::string_view part = std::string_view(name).substr(begin, name.find('.', begin) - begin);
      if (std::ranges::find(next, part) == next.end()) next.push_back(part);
    }
    if (next.empty()) continue;
    const bool more = next.size() > kMostNames;
    if (more) next.resize(kMostNames);
    return fmt::format("names{}{}: {}{}", under.empty() ? "" : " under ", under, fmt::join(next, " "),
                       more ? " ..." : "");
  }
  return "the program has no names";
}

}  // namespace

std::string_view name(Role role) { return kRoleNames[static_cast<size_t>(role)]; }

bool matches(std::string_view pattern, std::string_view name) {
  // Where a piece does not fit, the last "*" takes one more character, which must not be a dot.
  size_t p = 0, n = 0, star = std::string_view::npos, taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos && name[taken] != '.') {
      n = ++taken;
      p = star + 1;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

Plan Plan::parse(std::string_view text, std::string_view file) {
  Plan plan;
  plan.file_ = file;
  plan.text_ = text;
  Place mesh_place;
  int number = 1;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    Scanner in(text.substr(begin, end - begin), file, number);
    begin = end + 1;
    in.stop_at_newline(true);
    if (in.at_end()) continue;
    Scanner ahead = in;
    const std::string first = ahead.word_of(".*@", "a name, which may hold \"*\", or \"mesh\"");
    if (first != "mesh") {
      plan.lines_.push_back(parse_line(in));
      continue;
    }
    if (plan.mesh_) in.fail(fmt::format("a plan has one mesh, and {} gives it", mesh_place.str()));
    mesh_place = in.place();
    plan.mesh_ = Mesh::parse(ahead);
  }
  return plan;
}

Layout Plan::layout(const PlanLine::Entry& entry, const Mesh& mesh, int rank, std::string_view tensor) const {
  // Blanks in place of what stands before the layout keep the columns right.
  Scanner in(std::string(static_cast<size_t>(entry.place.column) - 1, ' ') + entry.text, file_, entry.place.line);
  try {
    return Layout::parse(in, mesh, rank, tensor);
  } catch (const UserError& error) {
    Scanner(text_, file_).fail(error.diagnostic().place, error.diagnostic().text);  // shows the whole line
  }
}

Mesh Plan::bind(const std::optional<Mesh>& given) const {
  if (!given && !mesh_)
    throw UserError({file_, 0, 0},
                    "the plan has no mesh line and none is given; give one, as in --mesh \"data=2, model=4\"");
  const Mesh& bare = given ? *given : *mesh_;
  const Mesh mesh = bare.with_cuts(find_cuts(text_, file_, bare));
  for (const PlanLine& line : lines_) {
    for (const PlanLine::Entry& entry : line.roles) {
      if (entry.given) layout(entry, mesh, Layout::kAnyRank, "");  // for its errors, such as an axis that is not there
    }
  }
  return mesh;
}

const PlanLine::Entry* Plan::entry(std::string_view name, Role role) const {
  for (const PlanLine& line : lines_) {
    const PlanLine::Entry& own = line.roles[static_cast<size_t>(role)];
    const PlanLine::Entry& all = line.roles[static_cast<size_t>(Role::none)];
    if ((own.given || all.given) && matches_any(line, name)) return own.given ? &own : &all;
  }
  return nullptr;
}

std::optional<Layout> Plan::find(std::string_view name, const Shape& shape, Role role, const Mesh& mesh,
                                 Place* where) const {
  // What a role follows when no line gives it; for an activation `use` is what its consumers read.
  constexpr std::array<Role, kRoles> kFollows = {Role::use, Role::none, Role::state, Role::store, Role::use};
  const PlanLine::Entry* found = entry(name, role);
  while (found == nullptr && role != Role::use) {
    role = kFollows[static_cast<size_t>(role)];
    found = entry(name, role);
  }
  if (found == nullptr) return std::nullopt;
  if (where != nullptr) *where = found->place;
  return layout(*found, mesh, shape.rank(), fmt::format("{} {}", name, shape.str()));
}

void Plan::check_all_match(std::span<const std::string> names) const {
  for (const PlanLine& line : lines_) {
    const auto hit = [&](const std::string& name) { return matches_any(line, name); };
    if (line.optional || std::ranges::any_of(names, hit)) continue;
    std::string quoted;
    for (const std::string& pattern : line.patterns)
      quoted += fmt::format("{}\"{}\"", quoted.empty() ? "" : ", ", pattern);
    throw UserError({file_, line.place.line, 0},
                    fmt::format("{} match{} nothing; {}", quoted, line.patterns.size() == 1 ? "es" : "",
                                names_beside(line.patterns.front(), names)));
  }
}

Plan Plan::all_optional() const {
  Plan plan = *this;
  for (PlanLine& line : plan.lines_) line.optional = true;
  return plan;
}

}  // namespace meshard
