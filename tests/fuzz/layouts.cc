// The mesh and the layouts of a random program.
#include <fmt/format.h>

#include "generate.h"

namespace meshard::fuzz {

Mesh random_mesh(Rng& rng) {
  static const std::vector<std::vector<int64_t>> sizes = {
      {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {2, 2}, {2, 3}, {3, 2}, {2, 4}, {4, 2}, {1, 4}, {3, 1}, {2, 2, 2}, {2, 1, 3}, {1, 1, 2}};
  static const char* const names[] = {"a", "b", "c"};
  const std::vector<int64_t>& chosen = rng.pick(sizes);
  std::string text;
  std::vector<AxisCut> cuts;
  for (size_t i = 0; i < chosen.size(); ++i) {
    text += fmt::format("{}{}={}", i == 0 ? "" : ", ", names[i], chosen[i]);
    if (chosen[i] == 6) cuts.push_back({names[i], rng.chance(50) ? 2 : 3, {}});
  }
  return Mesh::parse(text).with_cuts(cuts);
}

Layout random_layout(Rng& rng, const Mesh& mesh, const Type& type, bool may_pend) {
  Layout layout(type.shape.rank());
  AtomSet left;
  for (const Axis& axis : mesh.axes()) {
    // The axis whole, or its parts one by one.
    std::vector<Atoms> parts = {axis.atoms};
    if (axis.atoms.size() > 1 && rng.chance(35)) {
      parts.clear();
      for (AtomId a : axis.atoms) parts.push_back({a});
    }
    for (const Atoms& part : parts) {
      if (part.empty()) continue;
      if (type.shape.rank() == 0 || rng.chance(40)) {
        left = left | AtomSet::of(part);
        continue;
      }
      Atoms& dim = layout.dims[static_cast<size_t>(rng.below(type.shape.rank()))].atoms;
      const bool in_front = rng.chance(30);
      dim.insert(in_front ? dim.begin() : dim.end(), part.begin(), part.end());
    }
  }
  if (may_pend && is_float(type.dtype)) {
    for (AtomId a : left.list()) {
      if (rng.chance(40)) layout.pending_of(Reduction::sum).add(a);
    }
  }
  if (rng.chance(10)) {
    for (DimLayout& d : layout.dims) d.open = rng.chance(50);
  }
  return layout;
}

void lay_out(Rng& rng, Program& program) {
  program.mesh = random_mesh(rng);
  const Mesh& mesh = *program.mesh;
  const int inputs = static_cast<int>(rng.pick(std::vector<int>{20, 50, 90}));
  const int others = static_cast<int>(rng.pick(std::vector<int>{0, 5, 15, 40}));
  const bool pending = rng.chance(40);
  for (Function& f : program.functions) {
    const bool is_main = &f == &program.main();
    for (ValueInfo& v : f.values) {
      const Op* op = v.op < 0 ? nullptr : &f.ops[static_cast<size_t>(v.op)];
      if (op != nullptr && op->kind != Op::apply) continue;  // the text of a call gives its results no layout
      int percent = op == nullptr ? inputs : others;
      if (op != nullptr && op->def->identity) percent = 70;
      if (op == nullptr && !is_main) percent /= 2;
      if (!rng.chance(percent)) continue;
      v.layout = random_layout(rng, mesh, v.type, pending && (op != nullptr || !is_main) && rng.chance(25));
      v.pinned = true;
    }
    // A value that lies in a parameter's memory has its layout.
    for (const Return& r : f.returns) {
      if (r.in_place == ValueId::none) continue;
      ValueInfo &value = f.value(r.value), &place = f.value(r.in_place);
      if (value.pinned && place.pinned) value.layout = place.layout;
    }
  }
}

}  // namespace meshard::fuzz
