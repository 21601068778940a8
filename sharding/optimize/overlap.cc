// overlap: a collective is started before and waited for after the ops that need not wait for it.
//
// A reduction starts where it stands, which is as soon as its operand is made, and is waited for where its result is
// read; but no more than two are under way, since each keeps its operand alive. All others are waited for where they
// stand, and started one ahead: when the one before is there, so that its readers have time to hide the next. No other
// op moves, and none passes the border of a function.
#include <algorithm>

#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

constexpr size_t kUnderWay = 2;  // reductions

class Overlapper {
 public:
  Overlapper(const Program& program, const Function& f) : f_(f), lives_(program, f) {
    for (size_t i = 0; i < f_.ops.size(); ++i) {
      if (is_plain_collective(f_.ops[i])) (reduces(f_.ops[i]) ? reductions_ : others_).push_back(i);
    }
  }

  Function run() {
    for (size_t k = 0; k < reductions_.size(); ++k) {
      const size_t i = reductions_[k];
      int until = latest_wait(i);
      if (k + kUnderWay < reductions_.size()) until = std::min(until, static_cast<int>(reductions_[k + kUnderWay]));
      split(i, static_cast<int>(i), until);
    }
    int there = 0;  // where the one before is read first
    for (size_t i : others_) {
      const int here = static_cast<int>(i);
      split(i, std::min(here, std::max(earliest_start(i), there)), latest_wait(i));
      there = latest_wait(i);
    }
    return write();
  }

 private:
  struct Split {
    int start = -1, wait = -1;  // before which op each stands; -1: the op stays whole
  };

  static bool reduces(const Op& op) {
    return op.def->collective == Collective::all_reduce || op.def->collective == Collective::reduce_scatter;
  }

  int earliest_start(size_t i) const {
    int low = 0;
    for (ValueId v : f_.ops[i].operands) {
      const int made = lives_.made[index(v)];
      // What a collective makes is there when that one has been waited for, which is before this op.
      const bool later = made >= 0 && is_plain_collective(f_.ops[static_cast<size_t>(made)]);
      low = std::max(low, later ? static_cast<int>(i) : made + 1);
    }
    for (ValueId v : f_.ops[i].results) {
      if (lives_.in_place[index(v)]) low = static_cast<int>(i);
    }
    return low;
  }

  int latest_wait(size_t i) const {
    int high = static_cast<int>(f_.ops.size());
    for (ValueId v : f_.ops[i].operands) high = std::min(high, lives_.gone[index(v)]);
    for (ValueId v : f_.ops[i].results) high = std::min(high, lives_.first_read[index(v)]);
    return high;
  }

  // Nothing to gain where no op stands between.
  void split(size_t i, int start, int wait) {
    splits_.resize(f_.ops.size());
    const int here = static_cast<int>(i);
    if (wait <= here || wait - start <= 1) return;
    splits_[i] = {start, wait};
  }

  Function write() {
    splits_.resize(f_.ops.size());
    Function g = f_;
    std::vector<std::vector<int>> waits(f_.ops.size() + 1), starts(f_.ops.size() + 1);
    for (size_t i = 0; i < splits_.size(); ++i) {
      if (splits_[i].start < 0) continue;
      g.ops[i].start = true;
      Op wait;
      wait.kind = Op::wait;
      wait.operands = {f_.ops[i].results[0]};
      wait.guard = f_.ops[i].guard;
      wait.source = f_.ops[i].source;
      g.ops.push_back(std::move(wait));
      starts[static_cast<size_t>(splits_[i].start)].push_back(static_cast<int>(i));
      waits[static_cast<size_t>(splits_[i].wait)].push_back(static_cast<int>(g.ops.size()) - 1);
    }
    std::vector<int> order;
    for (size_t i = 0; i <= f_.ops.size(); ++i) {
      order.insert(order.end(), waits[i].begin(), waits[i].end());
      order.insert(order.end(), starts[i].begin(), starts[i].end());
      if (i < f_.ops.size() && splits_[i].start < 0) order.push_back(static_cast<int>(i));
    }
    return reordered(g, order);
  }

  const Function& f_;
  const Lifetimes lives_;
  std::vector<size_t> reductions_, others_;
  std::vector<Split> splits_;
};

}  // namespace

Program overlap(const Program& local) {
  Program out = local;
  for (Function& f : out.functions) f = Overlapper(local, f).run();
  return out;
}

}  // namespace meshard
