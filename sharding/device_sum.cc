#include "meshard/sharding/device_sum.h"

#include <algorithm>
#include <string>

#include "absl/container/flat_hash_map.h"

namespace meshard {

void DeviceSum::add(AtomSet along, std::span<const int64_t> values, int64_t times) {
  MESHARD_CHECK(static_cast<int64_t>(values.size()) == mesh_.parts(along), "one value for each position");
  if (along.empty()) {
    everywhere_ += times * values[0];
    return;
  }
  const Atoms atoms = along.list();
  auto part = std::ranges::find(parts_, atoms, &Part::atoms);
  if (part == parts_.end()) {
    parts_.push_back({atoms, std::vector<int64_t>(values.size(), 0)});
    part = parts_.end() - 1;
  }
  for (size_t i = 0; i < values.size(); ++i) part->values[i] += times * values[i];
}

int64_t DeviceSum::operator[](size_t rank) const {
  int64_t sum = everywhere_;
  for (const Part& part : parts_) {
    sum += part.values[static_cast<size_t>(mesh_.position(Rank{static_cast<int32_t>(rank)}, part.atoms))];
  }
  return sum;
}

DeviceSum::Largest DeviceSum::largest() const {
  AtomSet along;
  for (const Part& part : parts_) along = along | AtomSet::of(part.atoms);
  std::vector<int64_t> sums(static_cast<size_t>(mesh_.parts(along)), everywhere_);
  for (const Part& part : parts_) {
    // How far a step of each atom of `along`, the minor one first, goes in the part's values.
    struct Digit {
      int64_t size = 1, step = 0, at = 0;
    };
    std::vector<Digit> digits;
    int64_t next = 1;
    const Atoms all = along.list();
    for (size_t a = all.size(); a-- > 0;) {
      const bool in_part = std::ranges::find(part.atoms, all[a]) != part.atoms.end();
      digits.push_back({mesh_.atom_size(all[a]), in_part ? next : 0, 0});
      if (in_part) next *= mesh_.atom_size(all[a]);
    }
    int64_t from = 0;
    for (int64_t& sum : sums) {
      sum += part.values[static_cast<size_t>(from)];
      for (Digit& d : digits) {
        from += d.step;
        if (++d.at < d.size) break;
        from -= d.step * d.size;
        d.at = 0;
      }
    }
  }
  const auto most = std::ranges::max_element(sums);
  // Ranks that differ elsewhere only are higher than the first of these.
  int64_t rest = most - sums.begin(), rank = 0;
  const Atoms all = along.list();
  for (size_t a = all.size(); a-- > 0;) {
    rank += rest % mesh_.atom_size(all[a]) * mesh_.stride(all[a]);
    rest /= mesh_.atom_size(all[a]);
  }
  return {*most, rank};
}

std::vector<Rank> ranks_along(const Mesh& mesh, AtomSet along) {
  // Atoms in mesh order have falling strides, so the ranks come out ascending.
  std::vector<Rank> ranks{Rank{0}};
  for (AtomId atom : along.list()) {
    std::vector<Rank> longer;
    longer.reserve(ranks.size() * static_cast<size_t>(mesh.atom_size(atom)));
    for (Rank rank : ranks) {
      for (int64_t digit = 0; digit < mesh.atom_size(atom); ++digit) {
        longer.push_back(Rank{static_cast<int32_t>(index(rank) + digit * mesh.stride(atom))});
      }
    }
    ranks = std::move(longer);
  }
  return ranks;
}

AtomSet blocks_differ_by(const Mesh& mesh, const Shape& shape, const Layout& layout) {
  AtomSet out;
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms& atoms = layout.atoms(d);
    int64_t elements = shape[d];
    size_t even = 0;  // leading atoms, which make equal parts
    while (even < atoms.size() && elements % mesh.atom_size(atoms[even]) == 0) elements /= mesh.atom_size(atoms[even++]);
    out = out | AtomSet::of(std::span(atoms).subspan(even));
  }
  return out;
}

namespace {

// The atoms on which the part that a rank keeps of its block depends.
AtomSet kept_by(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to) {
  AtomSet out;
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms &a = from.atoms(d), &b = to.atoms(d);
    size_t common = 0;
    while (common < a.size() && common < b.size() && a[common] == b[common]) ++common;
    const bool nested = common == a.size() || common == b.size();
    // Of even blocks, one of which is a part of the other, the smaller one is kept.
    if (nested && shape[d] % std::max(mesh.parts(a), mesh.parts(b)) == 0) continue;
    const int64_t shared = mesh.parts(std::span(a).first(common));
    // What both lists begin with makes equal copies of one problem where it splits evenly.
    const size_t skip = shape[d] % shared == 0 ? common : 0;
    out = out | AtomSet::of(std::span(a).subspan(skip)) | AtomSet::of(std::span(b).subspan(skip));
  }
  return out;
}

}  // namespace

AtomSet receives_by(const Mesh& mesh, const Shape& shape, const ReshardStep& step) {
  switch (step.kind) {
    case Collective::all_gather:
      return blocks_differ_by(mesh, shape, step.from) | blocks_differ_by(mesh, shape, step.to);
    case Collective::reduce_scatter:
      return blocks_differ_by(mesh, shape, step.to);
    // The flat value is cut into blocks, even where its length is a multiple of the group's size.
    case Collective::all_reduce: {
      const AtomSet by = blocks_differ_by(mesh, shape, step.from);
      const bool even = by.empty() && largest_local_elements(mesh, shape, step.from) % mesh.parts(step.over) == 0;
      return even ? by : by | step.over;
    }
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange:
      return blocks_differ_by(mesh, shape, step.to) | kept_by(mesh, shape, step.from, step.to);
    case Collective::slice:
    case Collective::broadcast:
    case Collective::barrier:
      return {};
  }
  return {};
}

namespace {

// An all_reduce of several values is one of all their elements in a row: the blocks that its ranks reduce are blocks of
// that row.
bool is_row(std::span<const ReshardStep> steps) { return steps.size() > 1 && steps[0].kind == Collective::all_reduce; }

int64_t message_elements(const Mesh& mesh, std::span<const Shape> shapes, std::span<const ReshardStep> steps,
                         Rank rank) {
  const bool row = is_row(steps);
  int64_t sum = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    sum += row ? local_elements(mesh, shapes[i], steps[i].from, rank)
               : received_elements(mesh, shapes[i], steps[i], rank);
  }
  if (!row) return sum;
  const int64_t ranks = mesh.parts(steps[0].over);
  return sum + (ranks - 2) * block(sum, ranks, mesh.position(rank, steps[0].over.list())).size;
}

AtomSet message_by(const Mesh& mesh, std::span<const Shape> shapes, std::span<const ReshardStep> steps) {
  const bool row = is_row(steps);
  AtomSet by;
  int64_t sum = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    by = by | (row ? blocks_differ_by(mesh, shapes[i], steps[i].from) : receives_by(mesh, shapes[i], steps[i]));
    sum += row ? largest_local_elements(mesh, shapes[i], steps[i].from) : 0;
  }
  const bool uneven = row && (!by.empty() || sum % mesh.parts(steps[0].over) != 0);
  return uneven ? by | steps[0].over : by;
}

}  // namespace

struct ReceivedCache::Table {
  Mesh mesh;
  absl::flat_hash_map<std::string, std::unique_ptr<const Received>> map;  // only looked up

  std::unique_ptr<const Received> make(std::span<const Shape> shapes, std::span<const ReshardStep> steps,
                                       std::span<const std::pair<int, int64_t>> guard) const {
    auto made = std::make_unique<Received>();
    made->along = message_by(mesh, shapes, steps);
    for (const auto& [axis, at] : guard) {
      made->along = made->along | AtomSet::of(mesh.axes()[static_cast<size_t>(axis)].atoms);
    }
    for (Rank rank : ranks_along(mesh, made->along)) {
      const bool runs = std::ranges::all_of(guard, [&](const auto& g) {
        return mesh.position(rank, mesh.axes()[static_cast<size_t>(g.first)].atoms) == g.second;
      });
      made->elements.push_back(runs ? message_elements(mesh, shapes, steps, rank) : 0);
    }
    made->busiest = *std::ranges::max_element(made->elements);
    for (size_t i = 0; i < steps.size(); ++i) {
      made->lower_bound += lower_bound_elements(mesh, shapes[i], steps[i].from, steps[i].to);
    }
    const bool reduces = steps[0].kind == Collective::all_reduce || steps[0].kind == Collective::reduce_scatter;
    if (reduces || is_turn(steps[0])) made->lower_bound = made->busiest;
    return made;
  }
};

ReceivedCache::ReceivedCache(const Mesh& mesh) : table_(std::make_unique<Table>(Table{mesh, {}})) {}
ReceivedCache::~ReceivedCache() = default;

const Received& ReceivedCache::get(std::span<const Shape> shapes, std::span<const ReshardStep> steps,
                                   std::span<const std::pair<int, int64_t>> guard) {
  MESHARD_CHECK(!steps.empty() && shapes.size() == steps.size(), "one shape for each step");
  std::string key;
  const auto number = [&](uint64_t n) { key.append(reinterpret_cast<const char*>(&n), sizeof n); };
  const auto layout = [&](const Layout& l) {
    for (const DimLayout& dim : l.dims) {
      key.push_back(static_cast<char>(dim.atoms.size()));
      for (AtomId atom : dim.atoms) key.push_back(static_cast<char>(atom));
    }
    for (AtomSet pending : l.pending) number(pending.bits);
  };
  key.push_back(static_cast<char>(steps[0].kind));
  number(steps[0].over.bits);
  for (size_t i = 0; i < steps.size(); ++i) {
    number(static_cast<uint64_t>(shapes[i].rank()));
    for (int64_t size : shapes[i].dims) number(static_cast<uint64_t>(size));
    layout(steps[i].from);
    layout(steps[i].to);
  }
  for (const auto& [axis, at] : guard) {
    number(static_cast<uint64_t>(axis));
    number(static_cast<uint64_t>(at));
  }
  std::unique_ptr<const Received>& entry = table_->map[key];
  if (entry == nullptr) entry = table_->make(shapes, steps, guard);
  return *entry;
}

}  // namespace meshard
