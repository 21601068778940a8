#include "meshard/sharding/optimize/edit.h"

#include <algorithm>
#include <climits>

namespace meshard {

Lifetimes::Lifetimes(const Program& program, const Function& f)
    : made(f.values.size(), -1),
      first_read(f.values.size(), INT_MAX),
      last_read(f.values.size(), -1),
      gone(f.values.size(), INT_MAX),
      reads(f.values.size(), 0),
      returned(f.values.size(), false),
      in_place(f.values.size(), false) {
  // In whose memory a value lies: the first argument of a chain of calls that return in place.
  std::vector<ValueId> origin(f.values.size());
  for (size_t v = 0; v < f.values.size(); ++v) origin[v] = ValueId(static_cast<int32_t>(v));
  const auto read = [&](ValueId v, int at) {
    if (v == ValueId::none) return;
    first_read[index(v)] = std::min(first_read[index(v)], at);
    last_read[index(v)] = std::max(last_read[index(v)], at);
    ++reads[index(v)];
  };
  const int ops = static_cast<int>(f.ops.size());
  for (int i = 0; i < ops; ++i) {
    const Op& op = f.ops[static_cast<size_t>(i)];
    for (ValueId v : op.operands) read(v, i);
    for (ValueId v : op.results) made[index(v)] = i;
    if (op.kind != Op::call && op.kind != Op::repeat) continue;
    const Function& callee = program.functions[static_cast<size_t>(op.callee)];
    for (size_t r = 0; r < op.results.size(); ++r) {
      if (callee.returns[r].in_place == ValueId::none) continue;
      const ValueId argument = op.operands[static_cast<size_t>(callee.param_index(callee.returns[r].in_place))];
      gone[index(argument)] = std::min(gone[index(argument)], i);
      in_place[index(argument)] = in_place[index(op.results[r])] = true;
      origin[index(op.results[r])] = origin[index(argument)];
    }
  }
  for (const Return& r : f.returns) {
    read(r.value, ops);
    returned[index(r.value)] = true;
    if (r.in_place == ValueId::none || r.in_place == r.value) continue;
    const ValueId from = origin[index(r.value)];
    const int taker = made[index(from == r.in_place ? r.value : from)];
    gone[index(r.in_place)] = std::min(gone[index(r.in_place)], taker);
    in_place[index(r.in_place)] = in_place[index(r.value)] = in_place[index(from)] = true;
  }
}

namespace {

// Whether the function is already as `reordered` would write it.
bool in_order(const Function& f, const std::vector<int>& order) {
  size_t values = 0;
  const auto next = [&](ValueId v) { return index(v) == values++; };
  if (order.size() != f.ops.size()) return false;
  for (ValueId v : f.params) {
    if (!next(v)) return false;
  }
  for (size_t i = 0; i < order.size(); ++i) {
    if (order[i] != static_cast<int>(i)) return false;
    for (ValueId v : f.ops[i].results) {
      if (!next(v) || f.value(v).op != static_cast<int>(i)) return false;
    }
  }
  return values == f.values.size();
}

}  // namespace

Function reordered(Function f, const std::vector<int>& order) {
  if (in_order(f, order)) return f;
  Function out;
  out.name = f.name;
  out.param_info = std::move(f.param_info);
  out.values.reserve(f.values.size());
  out.ops.reserve(order.size());
  std::vector<ValueId> map(f.values.size(), ValueId::none);
  const auto add = [&](ValueId v, int op) {
    out.values.push_back(std::move(f.value(v)));
    out.values.back().op = op;
    map[index(v)] = ValueId(static_cast<int32_t>(out.values.size()) - 1);
  };
  const auto rename = [&](ValueId& v) { v = v == ValueId::none ? v : map[index(v)]; };
  for (ValueId v : f.params) add(v, -1);
  out.params = f.params;
  for (ValueId& v : out.params) rename(v);
  for (ParamInfo& info : out.param_info) rename(info.of);
  for (int i : order) {
    if (i < 0) continue;
    Op op = std::move(f.ops[static_cast<size_t>(i)]);
    for (ValueId& v : op.operands) rename(v);
    for (ValueId v : op.results) add(v, static_cast<int>(out.ops.size()));
    for (ValueId& v : op.results) rename(v);
    out.ops.push_back(std::move(op));
  }
  out.returns = std::move(f.returns);
  for (Return& r : out.returns) {
    rename(r.value);
    rename(r.in_place);
  }
  return out;
}

Function kept(Function f, const std::vector<bool>& keep) {
  std::vector<int> order;
  for (size_t i = 0; i < f.ops.size(); ++i) order.push_back(keep[i] ? static_cast<int>(i) : -1);
  return reordered(std::move(f), order);
}

bool is_plain_collective(const Op& op) {
  return op.kind == Op::apply && op.def->collective && op.def->collective != Collective::slice && !op.start;
}

}  // namespace meshard
