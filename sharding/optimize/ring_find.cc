#include <algorithm>
#include <map>

#include "fmt/format.h"
#include "meshard/base/error.h"
#include "meshard/ir/signature.h"
#include "meshard/ops/gradients.h"
#include "meshard/sharding/optimize/edit.h"
#include "meshard/sharding/optimize/ring.h"

namespace meshard {
namespace {

using Dims = std::vector<BoundRule::Dim>;

// Where `row` begins in the list; none: it does not stand there, one after the other.
std::optional<size_t> find_row(const Atoms& list, const Atoms& row) {
  const auto at = std::search(list.begin(), list.end(), row.begin(), row.end());
  if (at == list.end()) return std::nullopt;
  return static_cast<size_t>(at - list.begin());
}

// A letter of a product's rule, cut into (outer, ring or block, rest), where `outer` is what other axes split.
struct Cut {
  int factor = -1;
  std::string name, outer;  // outer: "" where no other axis splits it before the ring
  int64_t outer_size = 1;
};

// How a letter is written in a tensor: with the ring's letter in it, with the block's, or one part of it alone.
enum class Side { ring, block, one };

class Finder {
 public:
  Finder(const Program& program, const Function& f, int op)
      : program_(program), mesh_(*program.mesh), f_(f), lives_(program, f), op_(op) {}

  std::optional<Ring> run() {
    const Op& op = f_.ops[static_cast<size_t>(op_)];
    if (op.operands.size() != 1 || !op.guard.empty() || op.over.empty()) return std::nullopt;
    const bool scatters = *op.def->collective == Collective::reduce_scatter;
    ring_ = op.over.list();
    out_ = Ring{op_, op.over, mesh_.parts(op.over), scatters, scatters ? ValueId::none : op.operands[0], op_, {}, {}};
    if (!find_dimension(op) || !(scatters ? scatter(op) : gather(op))) return std::nullopt;
    return std::move(out_);
  }

 private:
  const Layout& layout(ValueId v) const { return *f_.value(v).layout; }

  // The one dimension that the collective gathers or scatters, evenly, over the ring alone and as the last split.
  bool find_dimension(const Op& op) {
    const ValueId from = op.operands[0], to = op.results[0];
    const Layout &fine = layout(out_.scatters ? to : from), &coarse = layout(out_.scatters ? from : to);
    for (int d = 0; d < fine.rank(); ++d) {
      if (fine.atoms(d) == coarse.atoms(d)) continue;
      if (dimension_ >= 0) return false;
      dimension_ = d;
      Atoms whole = coarse.atoms(d);
      whole.insert(whole.end(), ring_.begin(), ring_.end());
      if (whole != fine.atoms(d) || f_.value(from).type.shape[d] % mesh_.parts(fine.atoms(d)) != 0) return false;
      before_ = coarse.atoms(d);
    }
    Layout pending = layout(from);
    if (out_.scatters) pending.pending_of(Reduction::sum) = pending.pending_of(Reduction::sum) - op.over;
    return dimension_ >= 0 && pending.pending == layout(to).pending && !lives_.in_place[index(from)] &&
           !lives_.in_place[index(to)];
  }

  bool gather(const Op& op) {
    const ValueId v = op.results[0];
    if (lives_.returned[index(v)] || lives_.reads[index(v)] == 0) return false;
    int low = 0, high = static_cast<int>(f_.ops.size());
    for (size_t i = static_cast<size_t>(op_) + 1; i < f_.ops.size(); ++i) {
      const Op& reader = f_.ops[i];
      const auto reads = std::count(reader.operands.begin(), reader.operands.end(), v);
      if (reads == 0) continue;
      if (reads > 1 || !is_product(reader)) return false;
      const size_t mine = reader.operands[0] == v ? 0 : 1;
      std::optional<RingProduct> product = gathered_product(static_cast<int>(i), mine);
      if (!product) return false;
      const ValueId other = reader.operands[1 - mine];
      low = std::max({low, static_cast<int>(out_.products.empty() ? i : 0), lives_.made[index(other)] + 1});
      high = std::min({high, lives_.gone[index(other)], lives_.first_read[index(reader.results[0])]});
      out_.products.push_back(std::move(*product));
    }
    // All of them stand where the first does, or as soon as their operands are there.
    out_.position = low;
    return low <= std::min(high, lives_.gone[index(op.operands[0])]);
  }

  bool scatter(const Op& op) {
    int high = op_;
    if (!add_scattered(op.operands[0], layout(op.results[0]), high) || out_.products.empty()) return false;
    for (const RingProduct& p : out_.products)
      out_.position = &p == &out_.products[0] ? p.op : std::max(out_.position, p.op);
    const BlockOps ops = f_.ops[static_cast<size_t>(out_.products[0].op)].def->by_blocks();
    const auto adds = [&](int i) { return f_.ops[static_cast<size_t>(i)].def == ops.sum; };
    return out_.position <= high && std::all_of(out_.sums.begin(), out_.sums.end(), adds);
  }

  // The product that makes v, or those of which it is the sum; nobody else reads what lies between. high: before which
  // op their operands are there.
  bool add_scattered(ValueId v, const Layout& scattered, int& high) {
    const int made = lives_.made[index(v)];
    if (made < 0 || lives_.reads[index(v)] != 1) return false;
    const Op& op = f_.ops[static_cast<size_t>(made)];
    if (op.kind != Op::apply || !op.guard.empty() || op.operands.size() != 2 || lives_.in_place[index(v)]) return false;
    for (ValueId o : op.operands) high = std::min(high, lives_.gone[index(o)]);
    if (is_product(op)) {
      std::optional<RingProduct> product = scattered_product(made, scattered);
      if (product) out_.products.push_back(std::move(*product));
      return product.has_value();
    }
    const auto alike = [&](ValueId o) { return f_.value(o).type == f_.value(v).type && layout(o) == layout(v); };
    if (op.def->by_blocks != nullptr || !std::all_of(op.operands.begin(), op.operands.end(), alike)) return false;
    out_.sums.push_back(made);
    return add_scattered(op.operands[0], scattered, high) && add_scattered(op.operands[1], scattered, high);
  }

  bool is_product(const Op& op) const {
    return op.kind == Op::apply && op.def->by_blocks != nullptr && op.operands.size() == 2 && op.guard.empty() &&
           op.operands[0] != op.operands[1] && !lives_.in_place[index(op.results[0])];
  }

  // The gathered letter is `g`; the ring's axes split letter `f` of the other operand and of the result.
  std::optional<RingProduct> gathered_product(int at, size_t mine) {
    const Op& op = start(at);
    if (!split_) return std::nullopt;
    const std::optional<int> g = lone(rule_->operands[mine][static_cast<size_t>(dimension_)]);
    const int f = ring_letter();
    const Dims &other = rule_->operands[1 - mine], &result = rule_->results[0];
    if (!g || f < 0 || !rule_->in(other, f) || !rule_->in(result, f) || !cut(*g, before_) || !cut_ring(f))
      return std::nullopt;
    const bool places = rule_->in(result, *g);
    if (!places && !rule_->in(other, *g)) return std::nullopt;
    RingProduct p = product(at);
    const int shared = *g;
    if (rule_->in(other, shared)) p.part[1 - mine] = part(op.operands[1 - mine], other, shared, f);
    std::string operands[2];
    operands[mine] = term(rule_->operands[mine], {{shared, Side::ring}});
    operands[1 - mine] = term(other, {{shared, Side::one}, {f, Side::ring}});
    p.rule =
        fmt::format("{}, {} -> {}", operands[0], operands[1], term(result, {{shared, Side::one}, {f, Side::ring}}));
    p.sizes = sizes({shared, f}, false);
    if (places) {
      p.type.shape.dims[static_cast<size_t>(place_of(result, shared))] /= out_.steps;
      const std::string whole = term(result, {{shared, Side::block}, {f, Side::ring}});
      p.place_rule = fmt::format("{}, {} -> {}", whole, term(result, {{shared, Side::one}, {f, Side::ring}}), whole);
      p.place_sizes = sizes({shared, f}, true);
    }
    return p;
  }

  // The scattered letter is `t`; the ring's axes split letter `f`, over which the product is summed.
  std::optional<RingProduct> scattered_product(int at, const Layout& scattered) {
    const Op& op = start(at);
    if (!split_) return std::nullopt;
    const std::optional<int> t = lone(rule_->results[0][static_cast<size_t>(dimension_)]);
    const int f = ring_letter();
    if (!t || f < 0 || !cut(*t, before_) || !cut_ring(f)) return std::nullopt;
    if (rule_->in(rule_->results[0], f) || !rule_->in(rule_->operands[0], f) || !rule_->in(rule_->operands[1], f))
      return std::nullopt;
    RingProduct p = product(at);
    std::string operands[2];
    for (size_t i = 0; i < 2; ++i) {
      if (rule_->in(rule_->operands[i], *t)) p.part[i] = part(op.operands[i], rule_->operands[i], *t, f);
      operands[i] = term(rule_->operands[i], {{*t, Side::one}, {f, Side::ring}});
    }
    p.rule = fmt::format("{}, {} -> {}", operands[0], operands[1], term(rule_->results[0], {{*t, Side::ring}}));
    p.sizes = sizes({*t, f}, false);
    p.layout = scattered;
    return p;
  }

  const Op& start(int at) {
    const Op& op = f_.ops[static_cast<size_t>(at)];
    rule_ = &bound_rule(program_, f_, op);
    std::vector<Layout> operands, results;
    for (ValueId v : op.operands) operands.push_back(layout(v));
    for (ValueId v : op.results) results.push_back(layout(v));
    split_ = find_split(mesh_, *op.def, *rule_, operands, results, nullptr);
    cuts_.clear();
    for (const Factor& factor : rule_->factors) {
      for (const char* ours : {"ring", "block", "rule", "offset"}) {
        if (factor.name == ours) split_.reset();
      }
    }
    return op;
  }

  RingProduct product(int at) const {
    const Op& op = f_.ops[static_cast<size_t>(at)];
    RingProduct p;
    p.op = at;
    p.type = f_.value(op.results[0]).type;
    p.layout = layout(op.results[0]);
    return p;
  }

  // The letter that the ring's axes split, whole and in order; -1: there is none.
  int ring_letter() const {
    for (size_t k = 0; k < split_->atoms.size(); ++k) {
      if (find_row(split_->atoms[k], ring_)) return static_cast<int>(k);
    }
    return -1;
  }

  // The letter of a dimension that is one letter, and one that stands once in a tensor.
  std::optional<int> lone(const BoundRule::Dim& dim) const {
    if (dim.size() != 1) return std::nullopt;
    const auto alone = [&](const Dims& dims) {
      int n = 0;
      for (const BoundRule::Dim& d : dims)
        n += std::count(d.begin(), d.end(), dim[0]) > 0 ? (d.size() == 1 ? 1 : 2) : 0;
      return n <= 1;
    };
    const bool all = std::all_of(rule_->operands.begin(), rule_->operands.end(), alone) && alone(rule_->results[0]);
    return all ? std::optional(dim[0]) : std::nullopt;
  }

  bool cut(int factor, const Atoms& before) {
    if (!lone({factor})) return false;
    Cut c{factor, factor_name(*rule_, factor), "", mesh_.parts(before)};
    if (rule_->factors[static_cast<size_t>(factor)].size % (c.outer_size * out_.steps) != 0) return false;
    if (c.outer_size > 1) {
      c.outer = c.name + "_";
      for (const Factor& other : rule_->factors) {
        if (other.name == c.outer) return false;
      }
    }
    cuts_[factor] = std::move(c);
    return true;
  }
  bool cut_ring(int factor) {
    const Atoms& atoms = split_->atoms[static_cast<size_t>(factor)];
    return cut(factor, Atoms(atoms.begin(), atoms.begin() + static_cast<std::ptrdiff_t>(*find_row(atoms, ring_))));
  }

  static int place_of(const Dims& dims, int factor) {
    for (size_t d = 0; d < dims.size(); ++d) {
      if (std::find(dims[d].begin(), dims[d].end(), factor) != dims[d].end()) return static_cast<int>(d);
    }
    return -1;
  }

  // A tensor in the rule of a step.
  std::string term(const Dims& dims, const std::map<int, Side>& sides) const {
    std::string out;
    for (const BoundRule::Dim& dim : dims) {
      std::vector<std::string> letters;
      for (int f : dim) {
        const auto side = sides.find(f);
        if (side == sides.end()) {
          letters.push_back(factor_name(*rule_, f));
          continue;
        }
        const Cut& c = cuts_.at(f);
        if (!c.outer.empty()) letters.push_back(c.outer);
        if (side->second != Side::one) letters.emplace_back(side->second == Side::ring ? "ring" : "block");
        letters.push_back(c.name);
      }
      if (!out.empty()) out += " ";
      out += letters.empty() ? "1" : letters.size() == 1 ? letters[0] : fmt::format("({})", fmt::join(letters, " "));
    }
    return out;
  }

  Attributes sizes(std::initializer_list<int> letters, bool blocks) const {
    Attributes out{{"ring", out_.steps}};
    if (blocks) out.set("block", out_.steps);
    for (int f : letters) {
      if (const Cut& c = cuts_.at(f); !c.outer.empty()) out.set(c.outer, c.outer_size);
    }
    return out;
  }

  RingPart part(ValueId from, const Dims& dims, int cut, int ring) const {
    RingPart p{from,
               fmt::format("{} -> {}", term(dims, {{cut, Side::block}, {ring, Side::ring}}),
                           term(dims, {{cut, Side::one}, {ring, Side::ring}})),
               sizes({cut, ring}, true), f_.value(from).type};
    p.type.shape.dims[static_cast<size_t>(place_of(dims, cut))] /= out_.steps;
    return p;
  }

  const Program& program_;
  const Mesh& mesh_;
  const Function& f_;
  const Lifetimes lives_;
  const int op_;
  Ring out_;
  Atoms ring_;                       // the ring's axes
  int dimension_ = -1;               // of the value that is gathered or scattered
  Atoms before_;                     // what splits it besides
  const BoundRule* rule_ = nullptr;  // of the product at hand
  std::optional<OpSplit> split_;
  std::map<int, Cut> cuts_;
};

}  // namespace

std::optional<Ring> find_ring(const Program& program, const Function& f, int op) {
  const Op& it = f.ops[static_cast<size_t>(op)];
  if (!is_plain_collective(it)) return std::nullopt;
  if (it.def->collective != Collective::all_gather && it.def->collective != Collective::reduce_scatter)
    return std::nullopt;
  return Finder(program, f, op).run();
}

}  // namespace meshard
