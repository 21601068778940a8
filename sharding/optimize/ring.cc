// ring: a gather before products, or a scatter behind one, becomes a ring: as many steps as there are devices. In each
// a device multiplies the block at hand while the next one travels; the gathered value, or the unscattered product, is
// never whole anywhere. (Wang et al., Overlap Communication with Dependent Computation via Decomposition in Large Deep
// Learning Models, 2023.)
//
//   gather     x@turn1 = start turn x; y = place of (product of x); wait x@turn1; the same with x@turn1, ...
//              where the gathered letter is summed, the steps' products are added up
//   scatter    of a product, or of a sum of products: each device makes the part that another device wants, hands on
//   what
//              it has added up so far, and adds the part that belongs to what arrives: the last to arrive is its own
//
// Bytes are those of the gather or scatter, in more messages. Sums over blocks are in another order than the gather's
// product and the scatter would have. One gather that several products read becomes one ring of all of them, where they
// can stand together; else it is left alone, and so are blocks that are not even.
#include "meshard/sharding/optimize/ring.h"

#include <algorithm>
#include <set>

#include "fmt/format.h"
#include "meshard/base/error.h"
#include "meshard/ir/signature.h"
#include "meshard/layout/block.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

// What a ring costs and saves on the device with the largest blocks.
class Price {
 public:
  Price(const Program& program, const Function& f, const Ring& ring, const RingOptions& options)
      : program_(program), mesh_(*program.mesh), f_(f), ring_(ring), options_(options) {
    const Op& op = f.ops[static_cast<size_t>(ring.op)];
    whole_ = bytes(ring.scatters ? op.operands[0] : op.results[0]);
    block_ = bytes(ring.scatters ? op.results[0] : op.operands[0]);
    for (const RingProduct& p : ring.products) {
      int64_t working = step_bytes(p.type, p.layout);
      for (const auto& part : p.part) {
        if (part) working += step_bytes(part->type, *f.value(part->from).layout);
      }
      working_ = std::max(working_, working);
      copied_ += 2 * working + (ring.scatters || p.place_rule.empty() ? step_bytes(p.type, p.layout) : 0);
      flops_ += flops(f.ops[static_cast<size_t>(p.op)]);
    }
  }

  // Bytes that live beside what lives in any case: the value that is no more, or blocks on their way and what a step
  // makes. A scatter's whole product lives beside its result; a block on its way is what is added up, sent and
  // received.
  bool fits() const {
    const int64_t travelling =
        ring_.scatters ? (ring_.products.size() > 1 ? 3 : 2) * block_ : std::min<int64_t>(2, ring_.steps - 1) * block_;
    return travelling + working_ <= whole_ + staged() + (ring_.scatters ? block_ : 0);
  }

  bool pays() const {
    const Link& link = options_.cost.link(mesh_, ring_.over);
    const int64_t others = ring_.steps - 1, travel = CostModel::nanoseconds(link, 1, block_);
    const int64_t product = time(flops_, options_.flops_per_us) / ring_.steps;
    const int64_t step = product + time(copied_, options_.copied_bytes_per_us) + options_.step_ns;
    const int64_t together = others * std::max(step, travel) + step;
    const int64_t apart = CostModel::nanoseconds(link, others, others * block_) + ring_.steps * product;
    return travel <= product && together < apart;
  }

 private:
  static int64_t time(int64_t amount, int64_t per_us) {
    return static_cast<int64_t>(static_cast<double>(amount) * 1e3 / static_cast<double>(std::max<int64_t>(per_us, 1)));
  }
  int64_t step_bytes(const Type& type, const Layout& layout) const {
    return largest_local_elements(mesh_, type.shape, layout) * size_bytes(type.dtype);
  }
  int64_t bytes(ValueId v) const { return step_bytes(f_.value(v).type, *f_.value(v).layout); }

  // What the collective stages: blocks that do not lie one after the other in the whole value.
  int64_t staged() const {
    const Op& op = f_.ops[static_cast<size_t>(ring_.op)];
    const ValueInfo& fine = f_.value(ring_.scatters ? op.results[0] : op.operands[0]);
    const ValueInfo& coarse = f_.value(ring_.scatters ? op.operands[0] : op.results[0]);
    for (int d = 0; d < fine.layout->rank(); ++d) {
      if (fine.layout->atoms(d) != coarse.layout->atoms(d)) return 0;
      if (fine.type.shape[d] > mesh_.parts(fine.layout->atoms(d))) return whole_;
    }
    return 0;
  }

  int64_t flops(const Op& op) const {
    const BoundRule& rule = bound_rule(program_, f_, op);
    const std::vector<Layout> operands{*f_.value(op.operands[0]).layout, *f_.value(op.operands[1]).layout};
    const std::vector<Layout> results{*f_.value(op.results[0]).layout};
    const auto split = find_split(mesh_, *op.def, rule, operands, results, nullptr);
    double points = op.def->flops_per_point;
    for (size_t k = 0; k < rule.factors.size(); ++k) {
      const int64_t parts = mesh_.parts(split->atoms[k]);
      points *= static_cast<double>((rule.factors[k].size + parts - 1) / parts);
    }
    return static_cast<int64_t>(std::min(points, 4e18));
  }

  const Program& program_;
  const Mesh& mesh_;
  const Function& f_;
  const Ring& ring_;
  const RingOptions& options_;
  int64_t whole_ = 0, block_ = 0, working_ = 0, copied_ = 0, flops_ = 0;
};

// Writes a ring in place of its collective and products.
class Writer {
 public:
  Writer(const Program& program, const Function& f, const Ring& ring)
      : program_(program),
        ring_(ring),
        collective_(f.ops[static_cast<size_t>(ring.op)]),
        ops_(f.ops[static_cast<size_t>(ring.products[0].op)].def->by_blocks()),
        old_(f.ops.size()),
        g_(f) {
    for (const ValueInfo& v : f.values) names_.insert(v.name);
  }

  // none: an op's rule does not allow the layouts that it would have.
  std::optional<Function> run() {
    try {
      ring_.scatters ? scatter() : gather();
    } catch (const UserError&) {
      return std::nullopt;
    }
    if (!legal_) return std::nullopt;
    std::vector<bool> gone(old_, false);
    gone[static_cast<size_t>(ring_.op)] = true;
    for (const RingProduct& p : ring_.products) gone[static_cast<size_t>(p.op)] = true;
    for (int i : ring_.sums) gone[static_cast<size_t>(i)] = true;
    std::vector<int> order;
    for (size_t i = 0; i <= old_; ++i) {
      if (static_cast<int>(i) == ring_.position) {
        for (size_t k = old_; k < g_.ops.size(); ++k) order.push_back(static_cast<int>(k));
      }
      if (i < old_ && !gone[i]) order.push_back(static_cast<int>(i));
    }
    return reordered(g_, order);
  }

 private:
  void gather() {
    const int64_t steps = ring_.steps;
    ValueId block = ring_.travels;
    std::vector<ValueId> sums(ring_.products.size(), ValueId::none);
    for (size_t k = 0; k < ring_.products.size(); ++k) {
      if (!ring_.products[k].place_rule.empty()) sums[k] = zeros(result(k));
    }
    for (int64_t s = 0; s < steps; ++s) {
      // Blocks go on by one device a step: what a device has is so many behind its own.
      const int64_t offset = (steps - s) % steps;
      const bool is_last = s + 1 == steps;
      const ValueId next = is_last ? ValueId::none : start_turn(block, collective_.results[0], s + 1);
      for (size_t k = 0; k < ring_.products.size(); ++k) {
        const RingProduct& p = ring_.products[k];
        if (!p.place_rule.empty()) {
          const ValueId made = product(p, offset, block, fresh(result(k), "part"));
          sums[k] = place(p, sums[k], made, offset, is_last ? result(k) : like(result(k), "ring"));
        } else if (s == 0) {
          sums[k] = product(p, offset, block, like(result(k), "ring"));
        } else {
          const ValueId made = product(p, offset, block, fresh(result(k), "part"));
          sums[k] = sum(p, sums[k], made, is_last ? result(k) : like(result(k), "ring"));
        }
      }
      if (!is_last) wait(next);
      block = next;
    }
  }

  void scatter() {
    const RingProduct& p = ring_.products[0];
    const ValueId to = collective_.results[0];
    const auto fresh = [&](const char* kind) { return fresh_like(to, p.type, p.layout, kind); };
    ValueId sums = ValueId::none;
    for (int64_t s = 0; s < ring_.steps; ++s) {
      // What is added up here now goes on by so many devices before it is where it belongs.
      const int64_t offset = ring_.steps - 1 - s;
      const ValueId arrives = s == 0 ? ValueId::none : start_turn(sums, to, s);
      ValueId made = ValueId::none;
      for (const RingProduct& each : ring_.products) {
        const ValueId one = product(each, offset, ValueId::none, fresh("part"));
        made = made == ValueId::none ? one : sum(each, made, one, fresh("part"));
      }
      if (s == 0) {
        sums = made;
        continue;
      }
      wait(arrives);
      sums = sum(p, arrives, made, offset == 0 ? to : fresh("ring"));
    }
  }

  ValueId result(size_t k) const { return g_.ops[static_cast<size_t>(ring_.products[k].op)].results[0]; }

  // A value of this type and layout, of which v's blocks are: "x@turn1", "x@turn2".
  ValueId fresh_like(ValueId v, const Type& type, const Layout& layout, std::string_view kind) {
    const std::string stem = fmt::format("{}@{}", base_name(g_.value(v).name), kind);
    std::string name = stem + "1";
    for (int n = 2; !names_.insert(name).second; ++n) name = fmt::format("{}{}", stem, n);
    ValueInfo info;
    info.name = std::move(name);
    info.type = type;
    info.layout = layout;
    info.source = g_.value(v).source;
    g_.values.push_back(std::move(info));
    return ValueId(static_cast<int32_t>(g_.values.size()) - 1);
  }
  ValueId like(ValueId v, const char* kind) {
    const ValueInfo info = g_.value(v);
    return fresh_like(v, info.type, *info.layout, kind);
  }
  // What product p makes in a step; named after its result.
  ValueId fresh(ValueId v, const char* kind) {
    for (const RingProduct& p : ring_.products) {
      if (g_.ops[static_cast<size_t>(p.op)].results[0] == v) return fresh_like(v, p.type, p.layout, kind);
    }
    throw InternalError("a ring has no such product");
  }

  ValueId add(const OpDef& def, std::vector<ValueId> operands, ValueId made, Attributes attributes,
              const Place& source) {
    Op op;
    op.def = &def;
    op.operands = std::move(operands);
    op.results = {made};
    op.attributes = std::move(attributes);
    op.source = source;
    std::vector<Type> types;
    std::vector<Layout> layouts;
    for (ValueId v : op.operands) {
      types.push_back(g_.value(v).type);
      layouts.push_back(*g_.value(v).layout);
    }
    const std::vector<Type> results{g_.value(made).type};
    const std::vector<Layout> result_layouts{*g_.value(made).layout};
    const Signature& signature = program_.signatures->get(def, op.attributes, types, results, source);
    legal_ &= signature.results == results &&
              find_split(*program_.mesh, def, signature.rule, layouts, result_layouts, nullptr).has_value();
    g_.ops.push_back(std::move(op));
    return made;
  }

  const Place& source(const RingProduct& p) const { return g_.ops[static_cast<size_t>(p.op)].source; }

  ValueId zeros(ValueId v) { return add(*ops_.zeros, {}, like(v, "ring"), {{"value", 0.0}}, g_.value(v).source); }

  // What a step multiplies; `block`: what has travelled here, if that is an operand.
  ValueId product(const RingProduct& p, int64_t offset, ValueId block, ValueId made) {
    const Op op = g_.ops[static_cast<size_t>(p.op)];
    std::vector<ValueId> operands = op.operands;
    for (size_t i = 0; i < 2; ++i) {
      if (const auto& part = p.part[i]) {
        const ValueId out = fresh_like(part->from, part->type, *g_.value(part->from).layout, "part");
        operands[i] = add(*ops_.part, {part->from}, out, with(part->sizes, part->rule, offset), op.source);
      } else if (!ring_.scatters && operands[i] == collective_.results[0]) {
        operands[i] = block;
      }
    }
    Attributes attributes = p.sizes;
    attributes.set("rule", p.rule);
    return add(*op.def, std::move(operands), made, std::move(attributes), op.source);
  }

  static Attributes with(Attributes sizes, const std::string& rule, int64_t offset) {
    sizes.set("rule", rule);
    if (offset != 0) sizes.set("offset", offset);
    return sizes;
  }

  ValueId place(const RingProduct& p, ValueId whole, ValueId block, int64_t offset, ValueId made) {
    return add(*ops_.place, {whole, block}, made, with(p.place_sizes, p.place_rule, offset), source(p));
  }
  ValueId sum(const RingProduct& p, ValueId a, ValueId b, ValueId made) {
    return add(*ops_.sum, {a, b}, made, {}, source(p));
  }

  ValueId start_turn(ValueId block, ValueId named_after, int64_t step) {
    Op op = collective_;
    op.def = ops_.turn;
    op.operands = {block};
    const ValueInfo info = g_.value(block);
    const ValueId to = fresh_like(named_after, info.type, *info.layout, ops_.turn->name);
    op.results = {to};
    op.start = true;
    op.cause = fmt::format("block {} of {} of the {} of %{} in a ring: {}", step, ring_.steps - 1,
                           collective_.def->name, g_.value(collective_.operands[0]).name, collective_.cause);
    g_.ops.push_back(std::move(op));
    return to;
  }
  void wait(ValueId v) {
    Op op;
    op.kind = Op::wait;
    op.operands = {v};
    op.source = collective_.source;
    g_.ops.push_back(std::move(op));
  }

  const Program& program_;
  const Ring& ring_;
  const Op collective_;
  const BlockOps ops_;
  const size_t old_;
  Function g_;
  std::set<std::string, std::less<>> names_;
  bool legal_ = true;
};

Function ring(const Program& program, Function f, const RingOptions& options) {
  for (int i = 0; i < static_cast<int>(f.ops.size()); ++i) {
    const std::optional<Ring> found = find_ring(program, f, i);
    if (!found) continue;
    const Price price(program, f, *found, options);
    if (options.use != RingOptions::always && !(price.fits() && price.pays())) continue;
    if (std::optional<Function> made = Writer(program, f, *found).run()) {
      i = std::min(i, found->position) - 1;  // on with what stands there now; the collective is gone, so this ends
      f = std::move(*made);
    }
  }
  return f;
}

}  // namespace

Program ring(const Program& local, const RingOptions& options) {
  Program out = local;
  for (Function& f : out.functions) f = ring(local, f, options);
  return out;
}

}  // namespace meshard
