// bucket: several collectives of one kind, group and dtype become one message, as long as its bytes stay within a
// limit. What a small message costs is its start; a hundred biases of a few KiB each cost as much as one large matrix.
//
// No other op moves. A collective may stand anywhere behind the makers of its operands and before the first reader of
// its results, and those that have a place in common may go together: reductions as early as the last operand allows,
// all others as late as the first reader does. Greedy, in program order: a collective joins the last message of its
// kind that has room for it.
#include <algorithm>
#include <climits>
#include <map>
#include <optional>
#include <tuple>

#include "meshard/layout/block.h"
#include "meshard/layout/reshard.h"
#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

struct Message {
  std::vector<size_t> members;  // indices of ops
  int low = 0, high = INT_MAX;  // it may stand before any op from low to high
  int64_t bytes = 0;
};

class Bucketer {
 public:
  Bucketer(const Program& program, const Function& f, int64_t limit)
      : mesh_(*program.mesh), f_(f), limit_(limit), lives_(program, f) {}

  // None: no two go together.
  std::optional<Function> run() {
    for (size_t i = 0; i < f_.ops.size(); ++i) {
      if (is_plain_collective(f_.ops[i])) place(i);
    }
    if (std::none_of(messages_.begin(), messages_.end(), [](const Message& m) { return m.members.size() > 1; })) return std::nullopt;
    return write();
  }

 private:
  // What the members of one message have in common.
  using Kind = std::tuple<Collective, uint64_t, Reduction, Dtype, std::vector<std::pair<int, int64_t>>>;

  bool is_collective(int op) const {
    return op >= 0 && op < static_cast<int>(f_.ops.size()) && is_plain_collective(f_.ops[static_cast<size_t>(op)]);
  }

  // The places where op i alone may stand. Between two collectives that depend on one another, of which either may
  // move, the border is the place of the second.
  Message alone(size_t i) const {
    const Op& op = f_.ops[i];
    const int here = static_cast<int>(i);
    Message m{{i}, 0, INT_MAX, 0};
    const auto not_behind = [&](int other) {
      m.high = std::min(m.high, is_collective(other) ? std::max(here, other - 1) : other);
    };
    for (size_t k = 0; k < op.operands.size(); ++k) {
      const ValueId from = op.operands[k], to = op.results[k];
      const int made = lives_.made[index(from)];
      m.low = std::max(m.low, is_collective(made) ? here : made + 1);
      not_behind(lives_.gone[index(from)]);
      not_behind(lives_.first_read[index(to)]);
      // It writes over memory that others may still read before it.
      if (lives_.in_place[index(to)]) m.low = here;
      const Shape& shape = f_.value(from).type.shape;
      const int64_t most = std::max(largest_local_elements(mesh_, shape, *f_.value(from).layout),
                                    largest_local_elements(mesh_, shape, *f_.value(to).layout));
      m.bytes += most * size_bytes(f_.value(from).type.dtype);
    }
    m.high = std::min(m.high, static_cast<int>(f_.ops.size()));
    return m;
  }

  void place(size_t i) {
    const Op& op = f_.ops[i];
    Message m = alone(i);
    const ReshardStep step =
        step_of(*op.def->collective, op.over, *f_.value(op.operands[0]).layout, *f_.value(op.results[0]).layout);
    const Kind kind{step.kind, op.over.bits, step.reduction, f_.value(op.operands[0]).type.dtype, op.guard};
    if (m.bytes > limit_) return;
    const auto [last, fresh] = last_.try_emplace(kind, messages_.size());
    if (!fresh) {
      Message& open = messages_[last->second];
      const int low = std::max(open.low, m.low), high = std::min(open.high, m.high);
      if (low <= high && open.bytes + m.bytes <= limit_) {
        open.members.push_back(i);
        open.low = low;
        open.high = high;
        open.bytes += m.bytes;
        return;
      }
      last->second = messages_.size();
    }
    messages_.push_back(std::move(m));
  }

  Function write() const {
    Function g = f_;
    std::vector<std::vector<int>> before(f_.ops.size() + 1);  // what is put before an op, or before the end
    std::vector<bool> moved(f_.ops.size(), false);
    for (const Message& m : messages_) {
      if (m.members.size() < 2) continue;
      Op op = f_.ops[m.members[0]];
      for (size_t k = 0; k < m.members.size(); ++k) {
        moved[m.members[k]] = true;
        if (k == 0) continue;
        const Op& more = f_.ops[m.members[k]];
        op.operands.insert(op.operands.end(), more.operands.begin(), more.operands.end());
        op.results.insert(op.results.end(), more.results.begin(), more.results.end());
        op.asked = op.asked && more.asked;
        if (!more.cause.empty() && op.cause.find(more.cause) == std::string::npos) op.cause += "; " + more.cause;
      }
      const Collective kind = *op.def->collective;
      const bool reduces = kind == Collective::all_reduce || kind == Collective::reduce_scatter;
      g.ops.push_back(std::move(op));
      before[static_cast<size_t>(reduces ? m.low : m.high)].push_back(static_cast<int>(g.ops.size()) - 1);
    }
    std::vector<int> order;
    for (size_t i = 0; i <= f_.ops.size(); ++i) {
      order.insert(order.end(), before[i].begin(), before[i].end());
      if (i < f_.ops.size() && !moved[i]) order.push_back(static_cast<int>(i));
    }
    return reordered(std::move(g), order);
  }

  const Mesh& mesh_;
  const Function& f_;
  const int64_t limit_;
  const Lifetimes lives_;
  std::vector<Message> messages_;
  std::map<Kind, size_t> last_;
};

}  // namespace

Program bucket(Program local, int64_t bytes) {
  for (Function& f : local.functions) {
    if (auto fewer = Bucketer(local, f, bytes).run()) f = std::move(*fewer);
  }
  return local;
}

}  // namespace meshard
