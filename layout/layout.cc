#include "meshard/layout/layout.h"

#include <algorithm>

#include "fmt/format.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

std::string count_text(int n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

// "[...]" as it was written, for messages.
std::string written(const Scanner& in, const Place& begin) {
  const std::string line = in.line_text(begin.line);
  const size_t at = static_cast<size_t>(begin.column) - 1;
  return line.substr(at, std::min(line.find(']', at), line.size() - 1) - at + 1);
}

Reduction parse_reduction(Scanner& in) {
  const Place place = in.place();
  const std::string word = in.word("a reduction (sum, max or min)");
  for (int k = 0; k < kReductions; ++k) {
    if (name(static_cast<Reduction>(k)) == word) return static_cast<Reduction>(k);
  }
  in.fail(place, fmt::format("no reduction \"{}\"; there are sum, max and min", word));
}

DimLayout parse_dim(Scanner& in, const Mesh& mesh, std::vector<AxisPart>& used) {
  DimLayout dim;
  if (in.accept("-")) return dim;
  if (in.accept("?")) {
    dim.open = true;
    return dim;
  }
  if (!in.at_word() && !in.looking_at("(")) in.fail("expected an axis, \"-\" (whole), \"?\" (open) or \"...\"");
  dim.atoms = mesh.parse_atoms(in, &used);
  dim.open = in.accept("?");
  return dim;
}

}  // namespace

Layout Layout::open(int rank) {
  Layout layout(rank);
  for (DimLayout& dim : layout.dims) dim.open = true;
  return layout;
}

Layout Layout::parse(std::string_view text, const Mesh& mesh, int rank, std::string_view file) {
  Scanner in(text, file);
  Layout layout = parse(in, mesh, rank);
  if (!in.at_end()) in.fail("the layout ends here, but text follows");
  return layout;
}

Layout Layout::parse(Scanner& in, const Mesh& mesh, int rank, std::string_view tensor) {
  Layout layout;
  std::vector<AxisPart> used;
  const Place begin = in.place();
  int dots = -1;  // the entry before which "..." stands
  in.expect("[");
  for (bool first = true; !in.looking_at("]"); first = false) {
    if (!first) in.expect(",");
    if (in.looking_at("...")) {
      if (dots >= 0) in.fail("\"...\" stands twice in a layout");
      if (rank == -1)
        in.fail("\"...\" needs a tensor whose dimensions are known; write each dimension, \"-\" for whole");
      in.accept("...");
      dots = layout.rank();
      continue;
    }
    layout.dims.push_back(parse_dim(in, mesh, used));
  }
  in.expect("]");
  const int entries = layout.rank();
  if (rank >= 0 && (dots >= 0 ? entries > rank : entries != rank)) {
    in.fail(begin, fmt::format("layout {} has {}{}, but {} has {}", written(in, begin),
                               count_text(entries, "entry", "entries"), dots >= 0 ? " beside \"...\"" : "", tensor,
                               count_text(rank, "dimension", "dimensions")));
  }
  if (dots >= 0 && rank > entries)
    layout.dims.insert(layout.dims.begin() + dots, static_cast<size_t>(rank - entries), DimLayout{});
  while (in.accept("+")) {
    AtomSet& pending = layout.pending_of(parse_reduction(in));
    if (!in.looking_at("(")) in.expect("(");
    pending = pending | AtomSet::of(mesh.parse_atoms(in, &used));
  }
  return layout;
}

std::string Layout::str(const Mesh& mesh) const {
  std::string out = "[";
  for (const DimLayout& dim : dims) {
    if (out.size() > 1) out += ", ";
    if (!dim.atoms.empty()) out += mesh.atoms_text(dim.atoms);
    if (dim.open) out += "?";
    if (dim.atoms.empty() && !dim.open) out += "-";
  }
  out += "]";
  for (int k = 0; k < kReductions; ++k) {
    const auto kind = static_cast<Reduction>(k);
    if (pending_of(kind).empty()) continue;
    const std::string axes = mesh.atoms_text(pending_of(kind));
    out += fmt::format(" + {}{}", name(kind), axes.front() == '(' ? axes : "(" + axes + ")");
  }
  return out;
}

AtomSet Layout::split() const {
  AtomSet set;
  for (const DimLayout& dim : dims) set = set | AtomSet::of(dim.atoms);
  return set;
}

AtomSet Layout::pending_atoms() const {
  AtomSet set;
  for (AtomSet kind : pending) set = set | kind;
  return set;
}

bool Layout::has_open() const { return std::ranges::any_of(dims, &DimLayout::open); }

Layout Layout::without_pending() const {
  Layout layout = *this;
  layout.pending = {};
  return layout;
}

Layout Layout::closed() const {
  Layout layout = *this;
  for (DimLayout& dim : layout.dims) dim.open = false;
  return layout;
}

Layout translate(const Layout& layout, const Mesh& from, const Mesh& to) {
  // The text names parts by sizes, which do not depend on the order of the other factors.
  return from == to ? layout : Layout::parse(layout.str(from), to, layout.rank());
}

}  // namespace meshard
