#include "meshard/runtime/device.h"

#include <absl/container/flat_hash_map.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "meshard/ir/halo.h"
#include "meshard/ir/signature.h"
#include "meshard/kernels/cpu/cpu.h"
#include "meshard/kernels/mixed.h"
#include "meshard/kernels/reference/reference.h"
#include "meshard/runtime/windows.h"
#include "meshard/sharding/device_sum.h"

namespace meshard {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Whether the rects, one after the other, are exactly the row-major elements of `whole`.
bool concatenates(const std::vector<Rect>& parts, const Rect& whole) {
  int64_t next = 0;
  for (const Rect& part : parts) {
    if (part.elements() == 0) continue;
    // Contiguous in `whole`: size 1 up to some dimension, full after it.
    int64_t offset = 0;
    bool narrow = true;
    for (size_t d = 0; d < whole.dims.size(); ++d) {
      offset = offset * whole.dims[d].size + part.dims[d].begin - whole.dims[d].begin;
      const bool full = part.dims[d].size == whole.dims[d].size;
      if (!full && !narrow) return false;
      if (part.dims[d].size != 1) narrow = false;
    }
    if (offset != next) return false;
    next += part.elements();
  }
  return next == whole.elements();
}

}  // namespace

ReshardStep reshard_step(const Flat& flat, const FlatStep& step, size_t i) {
  return step_of(*step.op->def->collective, step.op->over, flat.values[static_cast<size_t>(step.operands[i])].layout,
                 flat.values[static_cast<size_t>(step.results[i])].layout);
}

int64_t CollectiveStep::staging_bytes() const {
  return (stage_send ? aligned(send_elements * element_bytes) : 0) + (stage_receive ? aligned(receive_elements * element_bytes) : 0);
}

namespace {

int member(const Group& group, Rank peer) {
  for (int i = 0; i < group.size(); ++i) {
    if (group[i] == peer) return i;
  }
  throw InternalError("a transfer leaves its group");
}

// What the op of this step reads of an operand and other devices hold.
CollectiveStep plan_fetch(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank) {
  const FlatFetch& fetch = *step.fetch;
  CollectiveStep c;
  const FlatValue& from = flat.values[static_cast<size_t>(step.operands[0])];
  c.group = Group(mesh, fetch.over, rank);
  c.element_bytes = size_bytes(from.type.dtype);
  c.call.kind = Collective::exchange;
  c.call.dtype = from.type.dtype;
  c.stage_send = c.stage_receive = true;
  c.counts.assign(static_cast<size_t>(c.group.size()), 0);
  c.send_counts = c.counts;
  const Rect &held = fetch.held, &wanted = fetch.wanted;
  for (const HaloPiece& p : fetch.transfer.sends) {
    c.pack.push_back({held, p.part, p.part, 0, c.send_elements});
    c.send_elements += p.part.elements();
    c.send_counts[static_cast<size_t>(member(c.group, p.peer))] += p.part.elements();
  }
  for (const HaloPiece& p : fetch.transfer.receives) {
    c.unpack.push_back({p.wanted, wanted, p.wanted, c.receive_elements, 0});
    c.receive_elements += p.part.elements();
    c.counts[static_cast<size_t>(member(c.group, p.peer))] += p.part.elements();
  }
  // Where the op reads a ring, what is held stands elsewhere in the range: the blocks are named by where they are read.
  for (const HaloPiece& p : fetch.transfer.keeps) {
    Rect shifted = held;
    for (size_t d = 0; d < shifted.dims.size(); ++d) shifted.dims[d].begin += p.wanted.dims[d].begin - p.part.dims[d].begin;
    c.keep.push_back({shifted, wanted, p.wanted});
  }
  return c;
}

}  // namespace

CollectiveStep plan_collective(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank) {
  if (step.fetch != nullptr) return plan_fetch(mesh, flat, step, rank);
  if (step.operands.size() > 1) return plan_message(mesh, flat, step, rank);
  CollectiveStep c;
  const FlatValue& from = flat.values[static_cast<size_t>(step.operands[0])];
  const ReshardStep s = reshard_step(flat, step, 0);
  const Shape& shape = from.type.shape;
  c.group = Group(mesh, s.over, rank);
  c.element_bytes = size_bytes(from.type.dtype);
  c.call.kind = s.kind;
  c.call.reduction = s.reduction;
  c.call.dtype = from.type.dtype;
  const Rect held = local_rect(mesh, shape, s.from, rank), wanted = local_rect(mesh, shape, s.to, rank);
  switch (s.kind) {
    case Collective::slice: {
      // Of a dimension, this device's block; of a value taken as a sum, all on the first device and zeros elsewhere.
      const Atoms parts = (s.to.pending_of(Reduction::sum) - s.from.pending_of(Reduction::sum)).list();
      c.zero = mesh.position(rank, parts) != 0;
      if (!c.zero) c.keep.push_back({held, wanted, wanted});
      c.receive_elements = wanted.elements();
      return c;
    }
    case Collective::all_reduce:
      c.call.send_elements = held.elements();
      return c;
    case Collective::all_gather: {
      std::vector<Rect> parts;
      for (Rank peer : c.group.ranks()) parts.push_back(local_rect(mesh, shape, s.from, peer));
      c.stage_receive = !concatenates(parts, wanted);
      for (const Rect& part : parts) {
        if (c.stage_receive && part.elements() > 0) c.unpack.push_back({part, wanted, part, c.receive_elements, 0});
        c.counts.push_back(part.elements());
        c.receive_elements += part.elements();
      }
      return c;
    }
    case Collective::reduce_scatter: {
      std::vector<Rect> parts;
      for (Rank peer : c.group.ranks()) parts.push_back(local_rect(mesh, shape, s.to, peer));
      c.stage_send = !concatenates(parts, held);
      for (const Rect& part : parts) {
        if (c.stage_send && part.elements() > 0) c.pack.push_back({held, part, part, 0, c.send_elements});
        c.counts.push_back(part.elements());
        c.send_elements += part.elements();
      }
      return c;
    }
    case Collective::all_to_all:
    case Collective::permute:
    case Collective::exchange: {
      if (is_turn(s)) {  // a block goes as it lies
        const int ranks = c.group.size(), self = c.group.self();
        c.counts.assign(static_cast<size_t>(ranks), 0);
        c.send_counts = c.counts;
        c.send_elements = c.receive_elements = held.elements();
        c.send_counts[static_cast<size_t>((self + 1) % ranks)] = held.elements();
        c.counts[static_cast<size_t>((self + ranks - 1) % ranks)] = held.elements();
        return c;
      }
      const Transfer t = transfer(mesh, shape, s, rank);
      c.stage_send = c.stage_receive = true;
      c.counts.assign(static_cast<size_t>(c.group.size()), 0);
      c.send_counts = c.counts;
      for (const Piece& p : t.sends) {
        c.pack.push_back({held, p.part, p.part, 0, c.send_elements});
        c.send_elements += p.part.elements();
        c.send_counts[static_cast<size_t>(member(c.group, p.peer))] += p.part.elements();
      }
      for (const Piece& p : t.receives) {
        c.unpack.push_back({p.part, wanted, p.part, c.receive_elements, 0});
        c.receive_elements += p.part.elements();
        c.counts[static_cast<size_t>(member(c.group, p.peer))] += p.part.elements();
      }
      for (const Rect& part : t.keeps) c.keep.push_back({held, wanted, part});
      return c;
    }
    default: throw InternalError("this collective is no step of a program");
  }
}

namespace {

// The rule of a step's op and, for each factor, the block of it that a device has.
struct OpBlocks {
  const BoundRule* rule = nullptr;
  std::vector<Block> factors;
  std::vector<Rect> reads;  // of each operand, where the op says what it reads (ir/halo.h)
};

OpBlocks op_blocks(const Program& local, const Flat& flat, const FlatStep& step, Rank rank) {
  const Op& op = *step.op;
  const Mesh& mesh = *local.mesh;
  std::vector<Type> operands, results;
  std::vector<Layout> operand_layouts, result_layouts;
  for (int v : step.operands) {
    operands.push_back(flat.values[static_cast<size_t>(v)].type);
    operand_layouts.push_back(flat.values[static_cast<size_t>(v)].layout);
  }
  for (int v : step.results) {
    results.push_back(flat.values[static_cast<size_t>(v)].type);
    result_layouts.push_back(flat.values[static_cast<size_t>(v)].layout);
  }
  OpBlocks out{&local.signatures->get(*op.def, op.attributes, operands, results, op.source).rule, {}, {}};
  std::string why;
  const auto split = find_split(mesh, *op.def, *out.rule, operand_layouts, result_layouts, &why);
  MESHARD_CHECK(split.has_value(), fmt::format("{}: {}", step.place, why));
  for (size_t k = 0; k < out.rule->factors.size(); ++k) {
    const Atoms& atoms = split->atoms[k];
    out.factors.push_back(block(out.rule->factors[k].size, mesh.parts(atoms), mesh.position(rank, atoms)));
  }
  if (op.def->reach == nullptr) return out;
  for (int v : step.operands) {
    const FlatValue& value = flat.values[static_cast<size_t>(v)];
    Rect& read = out.reads.emplace_back(local_rect(mesh, value.type.shape, value.layout, rank));
    for (size_t d = 0; d < value.begin.size(); ++d) read.dims[d] = {value.begin[d], value.local.dims[d]};
  }
  return out;
}

KernelSpec kernel_spec(const OpBlocks& blocks, const Flat& flat, const FlatStep& step, int threads) {
  const BoundRule& rule = *blocks.rule;
  KernelSpec spec;
  spec.attributes = &step.op->attributes;
  spec.threads = threads;
  for (size_t i = 0; i < step.operands.size(); ++i) {
    const FlatValue& v = flat.values[static_cast<size_t>(step.operands[i])];
    spec.operands.push_back({{v.type.dtype, v.local}, rule.operands[i], {}, {}});
    if (blocks.reads.empty()) continue;
    spec.operands.back().global.assign(v.type.shape.dims.begin(), v.type.shape.dims.end());
    for (const Block& b : blocks.reads[i].dims) spec.operands.back().begin.push_back(b.begin);
  }
  for (size_t i = 0; i < step.results.size(); ++i) {
    const FlatValue& v = flat.values[static_cast<size_t>(step.results[i])];
    spec.results.push_back({{v.type.dtype, v.local}, rule.results[i]});
  }
  // The names are the kernel's only while it prepares.
  for (size_t k = 0; k < rule.factors.size(); ++k) {
    spec.names.push_back(rule.factors[k].name);
    spec.factors.push_back({spec.names[k], blocks.factors[k].size, rule.factors[k].size, blocks.factors[k].begin});
  }
  return spec;
}

std::shared_ptr<const Prepared> prepare(const KernelSpec& spec, const Op& op, const ExecutorOptions& options) {
  Prepared p;
  if (options.backend != nullptr) {
    const PrepareFn kernel = options.backend->kernels().find(op.def->reference);
    MESHARD_CHECK(kernel != nullptr, fmt::format("op {} has no kernel for {}", op.def->name, options.backend->kind()));
    if (float_types(spec).mixed() && !op.def->explicit_type) {
      const PrepareFn mixed = options.backend->kernels().find_mixed(op.def->reference);
      if (mixed != nullptr) p = mixed(spec);
      if (p.run) return std::make_shared<const Prepared>(std::move(p));
    }
    const PrepareFn convert = op.def->typed() ? options.backend->kernels().find(reference::convert) : nullptr;
    return std::make_shared<const Prepared>(convert != nullptr && !op.def->explicit_type ? prepare_any(kernel, convert, spec) : kernel(spec));
  }
  if (!options.reference && op.def->cpu != nullptr) {
    p = op.def->cpu(spec);
    // A tuned kernel between two copies is still faster than the plain one.
    if (!p.run && !op.def->explicit_type && float_types(spec).narrow) p = in_f32(op.def->cpu, cpu::convert, spec);
  }
  if (!p.run) {
    MESHARD_CHECK(op.def->reference != nullptr, fmt::format("op {} has no kernel", op.def->name));
    p = op.def->explicit_type ? op.def->reference(spec) : prepare_any(op.def->reference, reference::convert, spec);
  }
  return std::make_shared<const Prepared>(std::move(p));
}

// Elements of `layout`, summed over the ranks that differ from `rank` along `over`. Each of these atoms splits a dimension.
int64_t group_elements(const Mesh& mesh, const Shape& shape, const Layout& layout, AtomSet over, Rank rank) {
  int64_t product = 1;
  for (int d = 0; d < shape.rank(); ++d) {
    const Atoms& atoms = layout.atoms(d);
    const int64_t parts = mesh.parts(atoms), peers = mesh.parts(AtomSet::of(atoms) & over);
    int64_t sum = shape[d] / parts * peers;
    for (int64_t i = 0; shape[d] % parts != 0 && i < peers; ++i) {
      if (i == 0) sum = 0;
      int64_t at = 0, step = 1, left = i;  // where the peer's block stands
      for (size_t a = atoms.size(); a-- > 0; step *= mesh.atom_size(atoms[a])) {
        const int64_t size = mesh.atom_size(atoms[a]);
        at += step * (over.has(atoms[a]) ? left % size : mesh.digit(rank, atoms[a]));
        if (over.has(atoms[a])) left /= size;
      }
      sum += block(shape[d], parts, at).size;
    }
    product *= sum;
  }
  return product;
}

// What a step stages, without naming who sends what to whom: plan_collective does that, rank by rank. None: not known here.
std::optional<int64_t> counted_staging_bytes(const Mesh& mesh, const Flat& flat, const FlatStep& step, Rank rank) {
  if (step.fetch != nullptr) return std::nullopt;
  const Collective kind = *step.op->def->collective;
  const bool moves = kind == Collective::all_to_all || kind == Collective::permute || kind == Collective::exchange;
  // One value is staged only where its blocks do not stand one after another.
  if (!moves && step.operands.size() == 1) return std::nullopt;
  int64_t sends = 0, receives = 0;
  for (size_t i = 0; i < step.operands.size(); ++i) {
    const Shape& shape = flat.values[static_cast<size_t>(step.operands[i])].type.shape;
    const ReshardStep s = reshard_step(flat, step, i);
    if (is_turn(s)) continue;
    if (moves) {
      const Exchanged e = exchanged_elements(mesh, shape, s, rank);
      sends += e.sends;
      receives += e.receives;
    } else if (kind == Collective::all_reduce) {  // sent and received in one area
      sends += local_elements(mesh, shape, s.from, rank);
    } else if (kind == Collective::all_gather) {
      sends += local_elements(mesh, shape, s.from, rank);
      receives += local_elements(mesh, shape, s.to, rank);
    } else if (kind == Collective::reduce_scatter) {
      sends += group_elements(mesh, shape, s.to, s.over, rank);
      receives += local_elements(mesh, shape, s.to, rank);
    } else {
      return std::nullopt;
    }
  }
  const int64_t size = size_bytes(flat.values[static_cast<size_t>(step.operands[0])].type.dtype);
  return aligned(sends * size) + aligned(receives * size);
}

// What was prepared for the ops of a program, to be used again: for all calls of a function, and for ops that are alike in
// signature and blocks.
class Preparations {
 public:
  // `by_size`: kernels only tell their workspaces, which depend on the sizes of blocks, not on where they begin.
  Preparations(const Program& local, const ExecutorOptions& options, bool by_size = false)
      : local_(local), options_(options), by_size_(by_size) {}

  std::shared_ptr<const Prepared> kernel(const Flat& flat, const FlatStep& step, Rank rank) {
    std::shared_ptr<const Prepared>& of_op = of_op_[{step.op, rank}];
    if (of_op != nullptr) return of_op;
    const OpBlocks blocks = op_blocks(local_, flat, step, rank);
    std::pair<const BoundRule*, std::vector<int64_t>> key{blocks.rule, {}};
    for (const Block& b : blocks.factors) {
      key.second.push_back(by_size_ ? 0 : b.begin);
      key.second.push_back(b.size);
    }
    for (const Rect& read : blocks.reads) {
      for (const Block& b : read.dims) key.second.insert(key.second.end(), {b.begin, b.size});
    }
    std::shared_ptr<const Prepared>& alike = alike_[key];
    if (alike == nullptr) alike = prepare(kernel_spec(blocks, flat, step, options_.threads), *step.op, options_);
    return of_op = alike;
  }

  // The bytes that a collective stages, without its calls.
  int64_t staging_bytes(const Flat& flat, const FlatStep& step, Rank rank) {
    const auto [it, fresh] = staging_.try_emplace({{step.op, step.fetches}, rank}, 0);
    if (!fresh) return it->second;
    if (const auto counted = counted_staging_bytes(*local_.mesh, flat, step, rank)) return it->second = *counted;
    return it->second = plan_collective(*local_.mesh, flat, step, rank).staging_bytes();
  }

  const CollectiveStep& collective(const Flat& flat, const FlatStep& step, Rank rank) {
    std::unique_ptr<CollectiveStep>& made = collectives_[{{step.op, step.fetches}, rank}];
    if (made == nullptr) made = std::make_unique<CollectiveStep>(plan_collective(*local_.mesh, flat, step, rank));
    return *made;
  }

 private:
  const Program& local_;
  const ExecutorOptions options_;
  const bool by_size_;
  // Only looked up.
  absl::flat_hash_map<std::pair<const Op*, Rank>, std::shared_ptr<const Prepared>> of_op_;
  absl::flat_hash_map<std::pair<const BoundRule*, std::vector<int64_t>>, std::shared_ptr<const Prepared>> alike_;
  absl::flat_hash_map<std::pair<std::pair<const Op*, int>, Rank>, std::unique_ptr<CollectiveStep>> collectives_;
  absl::flat_hash_map<std::pair<std::pair<const Op*, int>, Rank>, int64_t> staging_;
};

// Everything but the kernels and the memory plan; `by_size`: of collectives only what they stage.
PlannedDevice outline(const Program& local, Rank rank, Preparations& known, bool by_size = false) {
  PlannedDevice d;
  d.rank = rank;
  d.flat = flatten(local, rank);
  find_windows(*local.mesh, rank, d.flat);
  d.kernels.resize(d.flat.steps.size());
  d.collectives.resize(d.flat.steps.size());
  d.scratch_bytes.resize(d.flat.steps.size());
  for (size_t i = 0; i < d.flat.steps.size(); ++i) {
    const FlatStep& step = d.flat.steps[i];
    if (step.kind != FlatStep::collective) continue;
    if (by_size) {
      d.scratch_bytes[i] = known.staging_bytes(d.flat, step, rank);
      continue;
    }
    d.collectives[i] = std::make_unique<CollectiveStep>(known.collective(d.flat, step, rank));
    d.scratch_bytes[i] = d.collectives[i]->staging_bytes();
  }
  return d;
}

void complete(PlannedDevice& d, Preparations& known) {
  for (size_t i = 0; i < d.flat.steps.size(); ++i) {
    const FlatStep& step = d.flat.steps[i];
    if (step.kind != FlatStep::kernel) continue;
    d.kernels[i] = known.kernel(d.flat, step, d.rank);
    d.scratch_bytes[i] = d.kernels[i]->workspace_bytes;
  }
  d.memory = plan_memory(d.flat, d.scratch_bytes);
}

// Where several ranks hold a piece they take turns to send it: the staging of these depends on all coordinates.
bool takes_turns(const Op& op) {
  return op.def->identity && (op.def->collective == Collective::permute || op.def->collective == Collective::exchange);
}

// The atoms on which a memory plan depends.
struct PlannedBy {
  AtomSet values;   // sizes of values, and which steps are run
  AtomSet staging;  // of collectives in which ranks take turns
};

PlannedBy planned_by(const Program& local) {
  const Mesh& mesh = *local.mesh;
  PlannedBy out;
  for (const Function& f : local.functions) {
    for (const ValueInfo& v : f.values) out.values = out.values | blocks_differ_by(mesh, v.type.shape, *v.layout);
    for (const Op& op : f.ops) {
      for (const auto& [axis, at] : op.guard) {
        out.values = out.values | AtomSet::of(mesh.axes()[static_cast<size_t>(axis)].atoms);
      }
      // What an op reads of its neighbours is a value of its own, whose size depends on where the device stands.
      if (op.kind == Op::apply && op.def->reach != nullptr) {
        for (ValueId v : op.operands) out.values = out.values | f.value(v).layout->split();
      }
      if (op.kind != Op::apply || !takes_turns(op)) continue;
      out.staging = out.staging | op.over;
      for (ValueId v : op.operands) out.staging = out.staging | f.value(v).layout->used();
      for (ValueId v : op.results) out.staging = out.staging | f.value(v).layout->used();
    }
  }
  return out;
}

// One device of each kind where there are at most 64 kinds; else those first or last on every axis along which devices
// differ: blocks are largest and smallest there.
std::vector<Rank> devices_to_plan(const Mesh& mesh, AtomSet by) {
  if (mesh.parts(by) <= 64) return ranks_along(mesh, by);
  std::vector<Rank> out{Rank{0}};
  for (const Axis& axis : mesh.axes()) {
    if ((AtomSet::of(axis.atoms) & by).empty()) continue;
    int64_t last = 0;
    for (AtomId atom : axis.atoms) last += (mesh.atom_size(atom) - 1) * mesh.stride(atom);
    for (size_t i = 0, n = out.size(); i < n; ++i) out.push_back(Rank{static_cast<int32_t>(index(out[i]) + last)});
  }
  return out;
}

}  // namespace

double step_flops(const Program& local, const Flat& flat, const FlatStep& step, Rank rank) {
  double points = 1;
  for (const Block& b : op_blocks(local, flat, step, rank).factors) points *= static_cast<double>(b.size);
  return points * step.op->def->flops_per_point;
}

PlannedDevice plan_device(const Program& local, Rank rank, const ExecutorOptions& options) {
  Preparations known(local, options);
  PlannedDevice d = outline(local, rank, known);
  complete(d, known);
  return d;
}

int64_t largest_peak_bytes(const Program& local, int threads, Backend* backend) {
  // Device 0 holds the largest block of everything, but its arena need not be the largest: how the holes of an arena fit depends on all
  // sizes, and a collective may need staging on one device only.
  const Mesh& mesh = *local.mesh;
  const PlannedBy by = planned_by(local);
  const Atoms values = by.values.list();
  std::map<int64_t, std::vector<Rank>> kinds;  // ranks whose values have equal sizes
  for (Rank rank : devices_to_plan(mesh, by.values | by.staging)) kinds[mesh.position(rank, values)].push_back(rank);
  Preparations known(local, {.threads = threads, .backend = backend}, true);
  int64_t largest = 0;
  for (const auto& [position, ranks] : kinds) {
    PlannedDevice d = outline(local, ranks[0], known, true);
    complete(d, known);
    largest = std::max(largest, d.memory.peak_bytes());
    std::set<std::vector<int64_t>> seen{d.scratch_bytes};
    for (Rank rank : std::span(ranks).subspan(1)) {
      std::vector<int64_t> scratch = d.scratch_bytes;
      for (size_t i = 0; i < scratch.size(); ++i) {
        const FlatStep& step = d.flat.steps[i];
        if (step.kind == FlatStep::collective && takes_turns(*step.op)) {
          scratch[i] = known.staging_bytes(d.flat, step, rank);
        }
      }
      if (seen.insert(scratch).second) largest = std::max(largest, plan_memory(d.flat, scratch).peak_bytes());
    }
  }
  return largest;
}

}  // namespace meshard
