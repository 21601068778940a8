// drop: dead code, over the borders of functions. A value is needed if main returns it or a needed op reads it; a
// call's result is needed if the caller needs it, and then what the function returns there; an argument if the function
// reads its parameter. Memory taken over is no reason to keep an op: who reads the value there afterwards reads the new
// value. Only in a repeat is it, where the next round reads what this one left.
#include <algorithm>
#include <optional>

#include "meshard/sharding/optimize.h"
#include "meshard/sharding/optimize/edit.h"

namespace meshard {
namespace {

class Dropper {
 public:
  explicit Dropper(const Program& program)
      : in_(program), needed_(program.functions.size()), repeated_(needed_.size()) {}

  // None: all of it is needed.
  std::optional<Program> run() {
    for (size_t f = 0; f < needed_.size(); ++f) {
      needed_[f].assign(in_.functions[f].values.size(), false);
      for (const Op& op : in_.functions[f].ops) {
        if (op.kind == Op::repeat) repeated_[static_cast<size_t>(op.callee)] = true;
      }
    }
    // Callers come after their callees. What is needed of a function depends on its callers' needs, and an argument on
    // what the function reads: callers are looked at again until nothing is added.
    returned_.resize(needed_.size());
    for (size_t f = 0; f < needed_.size(); ++f) {
      const Function& function = in_.functions[f];
      const bool all = f + 1 == needed_.size() || repeated_[f];
      returned_[f].assign(function.returns.size(), all);
    }
    while (changed_) {
      changed_ = false;
      for (size_t f = needed_.size(); f-- > 0;) mark(f);
    }
    if (all_needed()) return std::nullopt;
    return write();
  }

 private:
  bool all_needed() const {
    std::vector<bool> called(needed_.size(), false);
    called.back() = true;
    for (size_t f = 0; f < needed_.size(); ++f) {
      const Function& function = in_.functions[f];
      if (std::find(needed_[f].begin(), needed_[f].end(), false) != needed_[f].end()) return false;
      if (std::find(returned_[f].begin(), returned_[f].end(), false) != returned_[f].end()) return false;
      for (const Op& op : function.ops) {
        if (op.callee >= 0) called[static_cast<size_t>(op.callee)] = true;
      }
    }
    return std::find(called.begin(), called.end(), false) == called.end();
  }

  void need(size_t f, ValueId v) {
    if (v == ValueId::none || needed_[f][index(v)]) return;
    needed_[f][index(v)] = true;
    changed_ = true;
  }

  void mark(size_t f) {
    const Function& function = in_.functions[f];
    for (size_t r = 0; r < function.returns.size(); ++r) {
      if (!returned_[f][r]) continue;
      need(f, function.returns[r].value);
      need(f, function.returns[r].in_place);
    }
    for (size_t p = 0; p < function.params.size(); ++p) {
      if (needed_[f][index(function.params[p])]) need(f, function.param_info[p].of);
    }
    for (size_t i = function.ops.size(); i-- > 0;) {
      const Op& op = function.ops[i];
      if (!lives(f, op)) continue;
      const bool call = op.kind == Op::call || op.kind == Op::repeat;
      if (!call) {
        for (ValueId v : op.operands) need(f, v);
        continue;
      }
      const auto c = static_cast<size_t>(op.callee);
      const Function& callee = in_.functions[c];
      for (size_t r = 0; r < op.results.size(); ++r) {
        if (!needed_[f][index(op.results[r])] || returned_[c][r]) continue;
        returned_[c][r] = true;
        changed_ = true;
      }
      for (size_t a = 0; a < op.operands.size(); ++a) {
        if (needed_[c][index(callee.params[a])]) need(f, op.operands[a]);
      }
    }
  }

  bool lives(size_t f, const Op& op) const {
    if (op.kind == Op::wait) {
      const Function& function = in_.functions[f];
      return lives(f, function.ops[static_cast<size_t>(function.value(op.operands[0]).op)]);
    }
    return std::any_of(op.results.begin(), op.results.end(), [&](ValueId v) { return needed_[f][index(v)]; });
  }

  Program write() const {
    Program out;
    out.table = in_.table;
    out.mesh = in_.mesh;
    out.signatures = in_.signatures;
    std::vector<bool> called(needed_.size(), false);
    called.back() = true;
    for (size_t f = needed_.size(); f-- > 0;) {
      if (!called[f]) continue;
      for (const Op& op : in_.functions[f].ops) {
        if (op.callee >= 0 && lives(f, op)) called[static_cast<size_t>(op.callee)] = true;
      }
    }
    std::vector<int> at(needed_.size(), -1);
    for (size_t f = 0; f < needed_.size(); ++f) {
      if (!called[f]) continue;
      const bool is_main = f + 1 == needed_.size();
      at[f] = static_cast<int>(out.functions.size());
      out.functions.push_back(function(f, is_main, at));
    }
    return out;
  }

  Function function(size_t f, bool is_main, const std::vector<int>& at) const {
    Function g = in_.functions[f];
    std::vector<bool> keep;
    for (Op& op : g.ops) {
      keep.push_back(lives(f, op));
      if (!keep.back() || (op.kind != Op::call && op.kind != Op::repeat)) continue;
      const auto c = static_cast<size_t>(op.callee);
      const Function& callee = in_.functions[c];
      Op call = op;
      call.callee = at[c];
      call.operands.clear();
      call.results.clear();
      call.index_operand = -1;
      for (size_t a = 0; a < op.operands.size(); ++a) {
        if (!needed_[c][index(callee.params[a])]) continue;
        if (static_cast<int>(a) == op.index_operand) call.index_operand = static_cast<int>(call.operands.size());
        call.operands.push_back(op.operands[a]);
      }
      for (size_t r = 0; r < op.results.size(); ++r) {
        if (returned_[c][r]) call.results.push_back(op.results[r]);
      }
      op = std::move(call);
    }
    if (!is_main) {
      const std::vector<ValueId> params = std::move(g.params);
      const std::vector<ParamInfo> infos = std::move(g.param_info);
      g.params.clear();
      g.param_info.clear();
      for (size_t p = 0; p < params.size(); ++p) {
        if (!needed_[f][index(params[p])]) continue;
        g.params.push_back(params[p]);
        g.param_info.push_back(infos[p]);
      }
      std::vector<Return> returns;
      for (size_t r = 0; r < g.returns.size(); ++r) {
        if (returned_[f][r]) returns.push_back(g.returns[r]);
      }
      g.returns = std::move(returns);
    }
    return kept(std::move(g), keep);
  }

  const Program& in_;
  std::vector<std::vector<bool>> needed_;    // values of each function
  std::vector<std::vector<bool>> returned_;  // what each function returns
  std::vector<bool> repeated_;
  bool changed_ = true;
};

}  // namespace

Program drop(Program local) {
  std::optional<Program> less = Dropper(local).run();
  return less ? std::move(*less) : std::move(local);
}

}  // namespace meshard
