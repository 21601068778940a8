#include "meshard/runtime/alias.h"

#include <algorithm>

namespace meshard {
namespace {

bool is_alias(const Op& op) { return op.kind == Op::apply && op.def->identity && !op.def->collective; }

// When the memory of each value is overwritten, as the index of an op; the end of the function is the op after the last.
std::vector<int> overwritten(const Program& program, const Function& f) {
  const int end = static_cast<int>(f.ops.size());
  std::vector<int> at(f.values.size(), end + 2);
  for (const Return& r : f.returns) {
    if (r.in_place == ValueId::none || r.in_place == r.value) continue;
    const int made = f.value(r.value).op;
    const bool late = made < 0 || is_alias(f.ops[static_cast<size_t>(made)]);
    at[index(r.in_place)] = late ? end : made;
  }
  for (int i = 0; i < end; ++i) {
    const Op& op = f.ops[static_cast<size_t>(i)];
    if (op.callee < 0) continue;
    const Function& callee = program.functions[static_cast<size_t>(op.callee)];
    for (const Return& r : callee.returns) {
      if (r.in_place == ValueId::none) continue;
      const ValueId argument = op.operands[static_cast<size_t>(callee.param_index(r.in_place))];
      at[index(argument)] = std::min(at[index(argument)], i);
    }
  }
  return at;
}

}  // namespace

Aliases find_aliases(const Program& program, const Function& f) {
  Aliases out;
  const int end = static_cast<int>(f.ops.size());
  const bool is_main = &f == &program.main();
  out.copied.assign(f.values.size(), false);
  for (size_t v = 0; v < f.values.size(); ++v) out.source.push_back(static_cast<ValueId>(v));
  bool any = false;
  for (const Op& op : f.ops) {
    if (!is_alias(op)) continue;
    out.source[index(op.results[0])] = out.source[index(op.operands[0])];
    any = true;
  }
  if (!any) return out;

  const std::vector<int> overwrite = overwritten(program, f);
  // The last reading of each value. A call may read an argument after it has overwritten another; what is returned is
  // read after the end, but what is copied into a parameter's memory at the end is read before any such copy is made.
  std::vector<int> last(f.values.size(), -1);
  std::vector<int> leaves(f.values.size(), 0);  // how many values that lie in its memory are returned
  for (int i = 0; i < end; ++i) {
    const Op& op = f.ops[static_cast<size_t>(i)];
    for (ValueId v : op.operands) {
      if (v != ValueId::none) last[index(v)] = op.callee >= 0 ? i + 1 : i;
    }
  }
  for (const Return& r : f.returns) {
    last[index(r.value)] = std::max(last[index(r.value)], r.in_place == ValueId::none ? end + 1 : end);
    ++leaves[index(out.source[index(r.value)])];
  }
  // A name of a name is read where its source lies, as long as neither is copied.
  for (int i = end; i-- > 0;) {
    const Op& op = f.ops[static_cast<size_t>(i)];
    if (is_alias(op)) last[index(op.operands[0])] = std::max(last[index(op.operands[0])], last[index(op.results[0])]);
  }
  for (const Op& op : f.ops) {
    if (!is_alias(op)) continue;
    const ValueId v = op.results[0], source = out.source[index(op.operands[0])];
    out.source[index(v)] = source;
    const bool of_parameter = f.value(source).op < 0;
    const bool returned = std::any_of(f.returns.begin(), f.returns.end(),
                                      [&](const Return& r) { return r.value == v && r.in_place == ValueId::none; });
    const bool two = !is_main && returned && (of_parameter || leaves[index(source)] > 1);
    const bool own = overwrite[index(v)] < end;  // a call takes it over: the source stays
    if (overwrite[index(source)] >= last[index(v)] && !two && !own) continue;
    out.copied[index(v)] = true;
    out.source[index(v)] = v;
  }
  return out;
}

}  // namespace meshard
