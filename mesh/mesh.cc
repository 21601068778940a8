#include "meshard/mesh/mesh.h"

#include <algorithm>

#include "fmt/format.h"
#include "meshard/base/text.h"

namespace meshard {
namespace {

constexpr int64_t kMostDevices = int64_t{1} << 24;
constexpr size_t kMostAxes = 64;

std::vector<int64_t> prime_factors(int64_t n) {
  std::vector<int64_t> factors;
  for (int64_t p = 2; p * p <= n; ++p) {
    for (; n % p == 0; n /= p) factors.push_back(p);
  }
  if (n > 1) factors.push_back(n);
  return factors;
}

std::string sizes_text(std::span<const Axis> axes) {
  std::string out;
  for (const Axis& axis : axes) out += fmt::format("{}{}={}", out.empty() ? "" : ", ", axis.name, axis.size);
  return out;
}

std::string part_text(const Axis& axis, int64_t from, int64_t to) {
  if (from == 1 && to == axis.size) return axis.name;
  if (from == 1) return fmt::format("{}:{}", axis.name, to);
  return fmt::format("{}:({}){}", axis.name, from, to / from);
}

// One "name=size". The devices of the axes before it bound the size.
Axis parse_axis(Scanner& in, const std::vector<Axis>& before) {
  const Place place = in.place();
  Axis axis;
  axis.name = in.word("the name of an axis");
  for (const Axis& other : before) {
    if (other.name != axis.name) continue;
    in.fail(place, fmt::format("axis {} is given twice, first as {}={}; name each axis once", axis.name, other.name,
                               other.size));
  }
  if (!in.accept("="))
    in.fail(fmt::format("axis {} has no size; write {}=2 or another number of devices", axis.name, axis.name));
  const Place size_place = in.place();
  axis.size = in.integer(fmt::format("the size of axis {}, a whole number,", axis.name));
  if (axis.size < 1) in.fail(size_place, fmt::format("axis {} has size {}; a size is 1 or more", axis.name, axis.size));
  int64_t devices = 1;
  for (const Axis& other : before) devices *= other.size;
  if (axis.size > kMostDevices / devices) {
    const std::string product =
        before.empty() ? "" : fmt::format("{} times the {} of {}", axis.size, devices, sizes_text(before));
    in.fail(size_place, fmt::format("axis {}={} makes {} devices; a mesh has at most 2^24 = {}", axis.name, axis.size,
                                    product.empty() ? fmt::to_string(axis.size) : product, kMostDevices));
  }
  return axis;
}

}  // namespace

AtomSet AtomSet::of(std::span<const AtomId> atoms) {
  AtomSet set;
  for (AtomId atom : atoms) set.add(atom);
  return set;
}

Atoms AtomSet::list() const {
  Atoms atoms;
  for (uint64_t rest = bits; rest != 0; rest &= rest - 1) atoms.push_back(static_cast<AtomId>(std::countr_zero(rest)));
  return atoms;
}

bool AxisPart::overlaps(const AxisPart& other) const {
  if (axis != other.axis) return false;
  const auto whole = [](const AxisPart& part) { return part.from == 1 && part.to == part.axis->size; };
  return whole(*this) || whole(other) || std::max(from, other.from) < std::min(to, other.to);
}

std::string AxisPart::str() const { return part_text(*axis, from, to); }

Mesh Mesh::parse(std::string_view text, std::string_view file) {
  Scanner in(text, file);
  Mesh mesh = parse(in);
  if (!in.at_end()) in.fail("a mesh is one line, but text follows");
  return mesh;
}

Mesh Mesh::parse(Scanner& in) {
  const bool stopped = in.stops_at_newline();
  in.stop_at_newline(true);
  Mesh mesh;
  while (!in.at_end() && !in.at_newline()) {
    if (mesh.axes_.size() == kMostAxes) in.fail(fmt::format("a mesh has at most {} axes", kMostAxes));
    mesh.axes_.push_back(parse_axis(in, mesh.axes_));
    if (in.at_end() || in.at_newline()) break;
    if (!in.accept(",")) in.fail("expected \",\" or the end of the line after " + sizes_text(mesh.axes_));
    if (in.at_end() || in.at_newline()) in.fail("expected the name of an axis after \",\"");
  }
  in.stop_at_newline(stopped);
  std::vector<std::vector<int64_t>> factors;
  for (const Axis& axis : mesh.axes_) factors.push_back(prime_factors(axis.size));
  mesh.set_factors(factors);
  return mesh;
}

void Mesh::set_factors(const std::vector<std::vector<int64_t>>& factors) {
  atom_sizes_.clear();
  atom_axis_.clear();
  for (size_t a = 0; a < axes_.size(); ++a) {
    axes_[a].atoms.clear();
    for (int64_t size : factors[a]) {
      axes_[a].atoms.push_back(static_cast<AtomId>(atom_sizes_.size()));
      atom_sizes_.push_back(size);
      atom_axis_.push_back(static_cast<int>(a));
    }
  }
  atom_stride_.resize(atom_sizes_.size());
  size_ = 1;
  for (size_t i = atom_sizes_.size(); i-- > 0;) {
    atom_stride_[i] = size_;
    size_ *= atom_sizes_[i];
  }
}

std::string Mesh::str() const { return sizes_text(axes_); }

bool Mesh::operator==(const Mesh& other) const {
  const auto equal = [](const Axis& a, const Axis& b) { return a.name == b.name && a.size == b.size; };
  return std::ranges::equal(axes_, other.axes_, equal) && atom_sizes_ == other.atom_sizes_;
}

const Axis* Mesh::find(std::string_view name) const {
  const auto at = std::ranges::find(axes_, name, &Axis::name);
  return at == axes_.end() ? nullptr : &*at;
}

const Axis& Mesh::axis(std::string_view name, const Place& place) const {
  if (const Axis* found = find(name)) return *found;
  if (axes_.empty())
    throw UserError(place, fmt::format("no axis \"{}\": the mesh has no axes; give it one, as in {}=2", name, name));
  std::vector<std::string> names;
  for (const Axis& axis : axes_) names.push_back(axis.name);
  throw UserError(place, fmt::format("no axis \"{}\" in mesh {}{}", name, str(), did_you_mean(name, names)));
}

int64_t Mesh::parts(std::span<const AtomId> atoms) const {
  int64_t product = 1;
  for (AtomId atom : atoms) product *= atom_sizes_[atom];
  return product;
}

int64_t Mesh::parts(AtomSet atoms) const {
  int64_t product = 1;
  for (uint64_t rest = atoms.bits; rest != 0; rest &= rest - 1)
    product *= atom_sizes_[static_cast<size_t>(std::countr_zero(rest))];
  return product;
}

AtomSet Mesh::all() const { return {(uint64_t{1} << atom_count()) - 1}; }  // 2^24 devices have at most 24 atoms

std::vector<int64_t> Mesh::coordinate(Rank rank) const {
  MESHARD_CHECK(index(rank) >= 0 && index(rank) < size_, "a rank outside the mesh");
  std::vector<int64_t> out(axes_.size());
  int64_t rest = index(rank);
  for (size_t a = axes_.size(); a-- > 0;) {
    out[a] = rest % axes_[a].size;
    rest /= axes_[a].size;
  }
  return out;
}

Rank Mesh::rank(std::span<const int64_t> coordinate) const {
  MESHARD_CHECK(coordinate.size() == axes_.size(), "a coordinate has one entry per axis");
  int64_t rank = 0;
  for (size_t a = 0; a < axes_.size(); ++a) {
    MESHARD_CHECK(coordinate[a] >= 0 && coordinate[a] < axes_[a].size, "a coordinate outside the mesh");
    rank = rank * axes_[a].size + coordinate[a];
  }
  return Rank{static_cast<int32_t>(rank)};
}

std::string Mesh::coordinate_text(Rank rank) const {
  const std::vector<int64_t> at = coordinate(rank);
  std::string out;
  for (size_t a = 0; a < at.size(); ++a) out += fmt::format("{}{}={}", a > 0 ? ", " : "", axes_[a].name, at[a]);
  return out;
}

int64_t Mesh::position(Rank rank, std::span<const AtomId> atoms) const {
  int64_t position = 0;
  for (AtomId atom : atoms) position = position * atom_sizes_[atom] + digit(rank, atom);
  return position;
}

Mesh Mesh::with_cuts(std::span<const AxisCut> cuts) const {
  Mesh out = *this;
  std::vector<std::vector<int64_t>> factors(axes_.size());
  for (size_t a = 0; a < axes_.size(); ++a) {
    const Axis& axis = axes_[a];
    std::vector<AxisCut> mine;
    for (const AxisCut& cut : cuts) {
      if (&this->axis(cut.axis, cut.place) == &axis) mine.push_back(cut);
    }
    if (mine.empty()) {
      for (AtomId atom : axis.atoms) factors[a].push_back(atom_sizes_[atom]);
      continue;
    }
    std::ranges::stable_sort(mine, {}, &AxisCut::at);
    mine.push_back({axis.name, axis.size, {}});
    AxisCut last{axis.name, 1, {}};
    for (const AxisCut& cut : mine) {
      if (cut.at < 1 || axis.size % cut.at != 0) {
        throw UserError(cut.place, fmt::format("{} does not divide {}={}", cut.at, axis.name, axis.size));
      }
      if (cut.at % last.at != 0) {
        throw UserError(
            cut.place,
            fmt::format("{0}={1} is cut at {2} here and at {3} at {4}; the factors of an axis have one order, so one "
                        "cut must divide the other",
                        axis.name, axis.size, cut.at, last.at, last.place.str()));
      }
      for (int64_t factor : prime_factors(cut.at / last.at)) factors[a].push_back(factor);
      last = cut;
    }
  }
  out.set_factors(factors);
  return out;
}

std::string Mesh::atoms_text(std::span<const AtomId> atoms) const {
  std::string out;
  int items = 0;
  for (size_t i = 0; i < atoms.size();) {
    const Axis& axis = axis_of(atoms[i]);
    int64_t from = 1;
    for (AtomId atom = axis.atoms.front(); atom < atoms[i]; ++atom) from *= atom_sizes_[atom];
    int64_t to = from * atom_sizes_[atoms[i]];
    size_t end = i + 1;
    for (; end < atoms.size() && atoms[end] == atoms[end - 1] + 1 && atoms[end] <= axis.atoms.back(); ++end) {
      to *= atom_sizes_[atoms[end]];
    }
    out += (items++ > 0 ? "," : "") + part_text(axis, from, to);
    i = end;
  }
  return items == 1 ? out : "(" + out + ")";
}

AxisPart Mesh::parse_part(Scanner& in) const {
  const Place place = in.place();
  const Axis* axis = nullptr;
  try {
    axis = &this->axis(in.word("the name of an axis"), place);
  } catch (const UserError& error) {
    in.fail(place, error.diagnostic().text);  // the same with the line and a caret
  }
  if (in.accept(":")) return parse_part(in, *axis, place);
  return {axis, 1, axis->size, place};
}

AxisPart Mesh::parse_part(Scanner& in, const Axis& axis, const Place& place) const {
  AxisPart part{&axis, 1, axis.size, place};
  int64_t count = 0;
  std::string factors;
  if (in.accept("(")) {
    part.from = in.integer("the devices above the part, a whole number,");
    in.expect(")");
    count = in.integer("the size of the part, a whole number,");
    factors = fmt::format("({}){}", part.from, count);
  } else {
    count = in.integer("the size of the part, a whole number,");
    factors = fmt::to_string(count);
  }
  if (part.from < 1 || count < 2)
    in.fail(part.place, fmt::format("{}:{} is no part of an axis; a part has 2 devices or more", axis.name, factors));
  if (part.from > kMostDevices || count > kMostDevices) {
    in.fail(place, fmt::format("{}:{} is no part of an axis; an axis has at most 2^24 = {} devices", axis.name, factors,
                               kMostDevices));
  }
  part.to = part.from * count;
  if (axis.size == 1) return part;  // a plan may be used on fewer devices than its parts were written for
  if (axis.size % part.from != 0 || axis.size / part.from % count != 0) {
    const std::string product = part.from == 1 ? fmt::to_string(count) : fmt::format("{} times {}", part.from, count);
    in.fail(part.place, fmt::format("{}:{} is no part of {}={}: {} does not divide {}", axis.name, factors, axis.name,
                                    axis.size, product, axis.size));
  }
  return part;
}

Atoms Mesh::atoms_of(const AxisPart& part) const {
  Atoms atoms;
  if (part.axis->size == 1) return atoms;
  int64_t at = 1;
  bool cut = part.from == 1;
  for (AtomId atom : part.axis->atoms) {
    if (at >= part.from && at < part.to) atoms.push_back(atom);
    at *= atom_sizes_[atom];
    cut |= at == part.from;
  }
  if (!cut || parts(atoms) * part.from != part.to) {
    std::string order;
    for (AtomId atom : part.axis->atoms) order += fmt::format("{}{}", order.empty() ? "" : " x ", atom_sizes_[atom]);
    throw UserError(part.place,
                    fmt::format("{} does not go with the other parts of {}={}, whose factors stand in the order {}",
                                part.str(), part.axis->name, part.axis->size, order));
  }
  return atoms;
}

Atoms Mesh::parse_atoms(Scanner& in, std::vector<AxisPart>* used) const {
  std::vector<AxisPart> own;
  std::vector<AxisPart>& seen = used == nullptr ? own : *used;
  Atoms out;
  const bool several = in.accept("(");
  if (several && in.accept(")")) return out;
  do {
    const AxisPart part = parse_part(in);
    for (const AxisPart& other : seen) {
      if (!other.overlaps(part)) continue;
      in.fail(part.place,
              part.str() == other.str()
                  ? fmt::format("axis {} is used twice; an axis splits one dimension, once", part.str())
                  : fmt::format("{} and {} overlap; an axis splits one dimension, once", other.str(), part.str()));
    }
    const Atoms atoms = atoms_of(part);
    out.insert(out.end(), atoms.begin(), atoms.end());
    seen.push_back(part);
  } while (several && in.accept(","));
  if (several) in.expect(")");
  return out;
}

std::vector<AxisCut> find_cuts(std::string_view text, std::string_view file, const Mesh& mesh) {
  std::vector<AxisCut> cuts;
  Scanner in(text, file);
  while (!in.at_end()) {
    if (in.peek() == '"') {
      in.quoted("a text");
      continue;
    }
    const Place place = in.place();
    if (!in.at_word()) {
      in.accept(std::string(1, in.peek()));
      continue;
    }
    const Axis* axis = mesh.find(in.word_of(".@%#", "a name"));
    if (axis == nullptr || !in.accept(":") || !(in.at_integer() || in.looking_at("("))) continue;
    const AxisPart part = mesh.parse_part(in, *axis, place);
    for (int64_t at : {part.from, part.to}) {
      if (at > 1 && at < axis->size) cuts.push_back({axis->name, at, place});
    }
  }
  return cuts;
}

}  // namespace meshard
