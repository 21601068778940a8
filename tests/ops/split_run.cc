#include "split_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <limits>

#include "meshard/ir/halo.h"
#include "meshard/kernels/reference/reference.h"

namespace meshard::test {
namespace {

double neutral(Reduction kind, Dtype dtype) {
  const double end = is_float(dtype) ? std::numeric_limits<double>::infinity() : std::numeric_limits<int32_t>::max();
  switch (kind) {
    case Reduction::sum:
      return 0;
    case Reduction::max:
      return -end;
    case Reduction::min:
      return end;
  }
  return 0;
}

double reduce(Reduction kind, double a, double b) {
  switch (kind) {
    case Reduction::sum:
      return a + b;
    case Reduction::max:
      return std::max(a, b);
    case Reduction::min:
      return std::min(a, b);
  }
  return 0;
}

KernelOperand local_operand(const Mesh& mesh, const Type& type, const std::vector<BoundRule::Dim>& dims,
                            const Layout& layout, Rank rank) {
  return {Type{type.dtype, local_shape(mesh, type.shape, layout, rank)}, dims};
}

FactorAtoms no_atoms(const BoundRule& rule) { return FactorAtoms(rule.factors.size()); }

HaloFetch halo_fetch(const Case& c, const BoundRule& rule, const Mesh& mesh, const FactorAtoms& atoms, size_t operand) {
  return HaloFetch(mesh, *c.def, c.attributes, rule, c.operands, atoms, static_cast<int>(operand));
}

// What `rank` reads of an operand, put together from the pieces that it keeps and receives; what no piece brings stays
// poison. Each piece that it receives is one that the peer sends.
Tensor fetched(const HaloFetch& fetch, const Sharded& value, Rank rank) {
  const Rect wanted = fetch.wanted(rank);
  const Dtype dtype = value.parts[0].type().dtype;
  Tensor out(Type{dtype, wanted.shape()});
  const HaloTransfer transfer = fetch.transfer(rank);
  int64_t received = 0;
  const auto copy = [&](const HaloPiece& piece) {
    Rect held = fetch.held(piece.peer);
    for (size_t d = 0; d < held.dims.size(); ++d)
      held.dims[d].begin += piece.wanted.dims[d].begin - piece.part.dims[d].begin;
    copy_rect(value.parts[static_cast<size_t>(piece.peer)].data(), held, out.data(), wanted, piece.wanted,
              size_bytes(dtype));
  };
  for (const HaloPiece& piece : transfer.keeps) copy(piece);
  for (const HaloPiece& piece : transfer.receives) {
    copy(piece);
    received += piece.part.elements();
    const HaloTransfer theirs = fetch.transfer(piece.peer);
    const auto same = [&](const HaloPiece& p) { return p.peer == rank && p.part == piece.part; };
    if (std::none_of(theirs.sends.begin(), theirs.sends.end(), same)) FAIL("a piece that nobody sends");
  }
  if (received != fetch.received_elements(rank)) FAIL("more or less arrives than received_elements says");
  return out;
}

}  // namespace

LocalSpec local_spec(const Case& c, const BoundRule& rule, const Mesh& mesh, const FactorAtoms& atoms, Rank rank) {
  LocalSpec local;
  local.spec.attributes = &c.attributes;
  for (size_t f = 0; f < rule.factors.size(); ++f) {
    const Factor& factor = rule.factors[f];
    const Block mine = block(factor.size, mesh.parts(atoms[f]), mesh.position(rank, atoms[f]));
    local.spec.factors.push_back({factor.name, mine.size, factor.size, mine.begin});
  }
  const std::vector<Type> results = c.results();
  local.operands = operand_layouts(*c.def, rule, OpSplit{atoms, {}}, -1);
  for (size_t i = 0; i < c.operands.size(); ++i) {
    local.reads.push_back(halo_fetch(c, rule, mesh, atoms, i).wanted(rank));
    KernelOperand& o = local.spec.operands.emplace_back();
    o = {Type{c.operands[i].dtype, local.reads[i].shape()}, rule.operands[i], {}, {}};
    if (c.def->reach == nullptr) continue;
    o.global.assign(c.operands[i].shape.dims.begin(), c.operands[i].shape.dims.end());
    for (const Block& b : local.reads[i].dims) o.begin.push_back(b.begin);
  }
  local.results = result_layouts(*c.def, rule, OpSplit{atoms, {}});
  for (size_t r = 0; r < results.size(); ++r)
    local.spec.results.push_back(local_operand(mesh, results[r], rule.results[r], local.results[r], rank));
  return local;
}

std::vector<Tensor> run_kernel(const Prepared& kernel, const KernelSpec& spec, const std::vector<Tensor>& operands) {
  std::vector<Tensor> results;
  std::vector<void*> in, out;
  for (const Tensor& t : operands) in.push_back(t.data());
  for (const KernelOperand& r : spec.results) results.emplace_back(r.type);
  for (const Tensor& t : results) out.push_back(t.data());
  Tensor workspace(Type{Dtype::f32, Shape{(kernel.workspace_bytes + 3) / 4}});
  kernel.run({in, out, workspace.data()});
  if (!workspace.guards_intact()) FAIL("the kernel writes outside its workspace");
  for (const Tensor& t : results)
    if (!t.guards_intact()) FAIL("the kernel writes outside its results");
  return results;
}

std::vector<Tensor> run_whole(const Case& c, const std::vector<Tensor>& operands) {
  const BoundRule rule = c.rule();
  const LocalSpec local = local_spec(c, rule, Mesh(), no_atoms(rule), Rank{0});
  return run_kernel(c.prepare(c.def->reference, reference::convert, local.spec), local.spec, operands);
}

Sharded shard(const Mesh& mesh, const Tensor& whole, const Layout& layout) {
  Sharded value{layout, {}};
  Rect all;
  for (int64_t n : whole.shape().dims) all.dims.push_back({0, n});
  for (int64_t r = 0; r < mesh.size(); ++r) {
    const Rect mine = local_rect(mesh, whole.shape(), layout, Rank{static_cast<int32_t>(r)});
    value.parts.emplace_back(Type{whole.type().dtype, mine.shape()});
    // A sum that is still to be made has all on the first device and zeros on the others.
    if (mesh.position(Rank{static_cast<int32_t>(r)}, layout.pending_of(Reduction::sum).list()) != 0) {
      value.parts.back().fill(0);
      continue;
    }
    copy_rect(whole.data(), all, value.parts.back().data(), mine, mine, size_bytes(whole.type().dtype));
  }
  return value;
}

Tensor assemble(const Mesh& mesh, const Sharded& value, const Shape& shape) {
  const Dtype dtype = value.parts.at(0).type().dtype;
  Reduction kind = Reduction::sum;
  for (int k = 0; k < kReductions; ++k)
    if (!value.layout.pending[static_cast<size_t>(k)].empty()) kind = static_cast<Reduction>(k);
  Rect all;
  for (int64_t n : shape.dims) all.dims.push_back({0, n});
  Tensor whole(Type{dtype, shape});
  if (value.layout.is_pending()) whole.fill(neutral(kind, dtype));
  const AtomSet copies = mesh.all() - value.layout.used();
  for (int64_t r = 0; r < mesh.size(); ++r) {
    const Rank rank{static_cast<int32_t>(r)};
    if (mesh.position(rank, copies.list()) != 0) continue;
    const Rect mine = local_rect(mesh, shape, value.layout, rank);
    const Tensor& part = value.parts[static_cast<size_t>(r)];
    if (!value.layout.is_pending()) {
      copy_rect(part.data(), mine, whole.data(), all, mine, size_bytes(dtype));
      continue;
    }
    Tensor before(part.type());
    copy_rect(whole.data(), all, before.data(), mine, mine, size_bytes(dtype));
    for (int64_t i = 0; i < part.elements(); ++i) before.set(i, reduce(kind, before.get(i), part.get(i)));
    copy_rect(before.data(), mine, whole.data(), all, mine, size_bytes(dtype));
  }
  return whole;
}

std::vector<Sharded> run_sharded(const Case& c, const BoundRule& rule, const Mesh& mesh, const FactorAtoms& atoms,
                                 const std::vector<const Sharded*>& operands) {
  std::vector<Sharded> results;
  for (int64_t r = 0; r < mesh.size(); ++r) {
    const LocalSpec local = local_spec(c, rule, mesh, atoms, Rank{static_cast<int32_t>(r)});
    std::vector<Tensor> mine;
    for (size_t i = 0; i < operands.size(); ++i) {
      const HaloFetch fetch = halo_fetch(c, rule, mesh, atoms, i);
      if (fetch.needed()) {
        mine.push_back(fetched(fetch, *operands[i], Rank{static_cast<int32_t>(r)}));
      } else {
        mine.push_back(operands[i]->parts[static_cast<size_t>(r)].clone());
      }
    }
    std::vector<Tensor> out = run_kernel(c.def->reference(local.spec), local.spec, mine);
    results.resize(out.size());
    for (size_t i = 0; i < out.size(); ++i) {
      results[i].layout = local.results[i];
      results[i].parts.push_back(std::move(out[i]));
    }
  }
  return results;
}

std::vector<Tensor> run_split(const Case& c, const Mesh& mesh, const FactorAtoms& atoms,
                              const std::vector<Tensor>& operands) {
  const BoundRule rule = c.rule();
  std::vector<Sharded> parts;
  const std::vector<Layout> needed = operand_layouts(*c.def, rule, OpSplit{atoms, {}}, -1);
  for (size_t i = 0; i < operands.size(); ++i)
    parts.push_back(shard(mesh, operands[i], needed[i]));
  std::vector<const Sharded*> pointers;
  for (const Sharded& s : parts) pointers.push_back(&s);
  const std::vector<Type> types = c.results();
  std::vector<Tensor> whole;
  const std::vector<Sharded> results = run_sharded(c, rule, mesh, atoms, pointers);
  for (size_t r = 0; r < results.size(); ++r) whole.push_back(assemble(mesh, results[r], types[r].shape));
  return whole;
}

void for_each_assignment(const Mesh& mesh, const BoundRule& rule,
                         const std::function<void(const FactorAtoms&)>& visit) {
  FactorAtoms atoms = no_atoms(rule);
  const std::function<void(size_t)> assign = [&](size_t axis) {
    if (axis == mesh.axes().size()) {
      if (illegal_split(mesh, rule, atoms).empty()) visit(atoms);
      return;
    }
    assign(axis + 1);
    const Atoms& mine = mesh.axes()[axis].atoms;
    for (Atoms& factor : atoms) {
      // Before, between or after the axes that the factor has already.
      for (size_t at = 0; at <= factor.size(); ++at) {
        if (at > 0 && at < factor.size() && &mesh.axis_of(factor[at - 1]) == &mesh.axis_of(factor[at])) continue;
        const Atoms before = factor;
        factor.insert(factor.begin() + static_cast<std::ptrdiff_t>(at), mine.begin(), mine.end());
        assign(axis + 1);
        factor = before;
      }
    }
  };
  assign(0);
}

std::string assignment_text(const Mesh& mesh, const BoundRule& rule, const FactorAtoms& atoms) {
  std::string text = "mesh " + mesh.str();
  for (size_t f = 0; f < atoms.size(); ++f)
    if (!atoms[f].empty())
      text += fmt::format(", {} of {} over {}", rule.factors[f].name, rule.factors[f].size, mesh.atoms_text(atoms[f]));
  return text;
}

bool splits_lowered(const BoundRule& rule, const FactorAtoms& atoms) {
  for (size_t f = 0; f < atoms.size(); ++f)
    if (rule.factors[f].lower && !atoms[f].empty()) return true;
  return false;
}

const std::vector<Mesh>& meshes() {
  static const std::vector<Mesh> list = {Mesh::parse("a=2"),      Mesh::parse("a=3"),
                                         Mesh::parse("a=4"),      Mesh::parse("a=2, b=2"),
                                         Mesh::parse("a=2, b=3"), Mesh::parse("a=2, b=2, c=2")};
  return list;
}

}  // namespace meshard::test
