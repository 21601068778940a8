#include "meshard/runtime/alias.h"

#include <algorithm>

namespace meshard {
namespace {

bool is_alias(const Op& op) { return op.kind == Op::apply && op.def->identity && !op.def->collective; }

// `name` is another name for `value`, from the op at this place on.
struct Link {
  int op;
  ValueId name, value;
};

std::vector<Link> find_links(const Program& program, const Function& f) {
  std::vector<Link> links;
  for (size_t i = 0; i < f.ops.size(); ++i) {
    const Op& op = f.ops[i];
    if (is_alias(op)) links.push_back({static_cast<int>(i), op.results[0], op.operands[0]});
    if (op.kind != Op::call) continue;
    const Function& callee = program.functions[static_cast<size_t>(op.callee)];
    const std::vector<ValueId> from = passed(callee);
    for (size_t r = 0; r < op.results.size(); ++r) {
      if (from[r] == ValueId::none) continue;
      links.push_back({static_cast<int>(i), op.results[r], op.operands[static_cast<size_t>(callee.param_index(from[r]))]});
    }
  }
  return links;
}

// When the memory of each value is overwritten, as the index of an op; the end of the function is the op after the last.
std::vector<int> overwritten(const Program& program, const Function& f, const std::vector<Link>& links) {
  std::vector<bool> is_name(f.values.size(), false);
  for (const Link& link : links) is_name[index(link.name)] = true;
  const int end = static_cast<int>(f.ops.size());
  std::vector<int> at(f.values.size(), end + 2);
  for (const Return& r : f.returns) {
    if (r.in_place == ValueId::none || r.in_place == r.value) continue;
    const int made = f.value(r.value).op;
    const bool late = made < 0 || is_name[index(r.value)];
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

std::vector<ValueId> passed(const Function& callee) {
  std::vector<ValueId> source(callee.values.size(), ValueId::none);  // the parameter that a value is a name of
  for (ValueId v : callee.params) source[index(v)] = v;
  for (const Op& op : callee.ops) {
    if (is_alias(op)) source[index(op.results[0])] = source[index(op.operands[0])];
  }
  std::vector<int> leaves(callee.values.size(), 0);
  for (const Return& r : callee.returns) {
    if (const ValueId from = source[index(r.value)]; from != ValueId::none) ++leaves[index(from)];
    if (r.in_place != ValueId::none) leaves[index(r.in_place)] = 2;  // overwritten: what is returned is not what came
  }
  std::vector<ValueId> out;
  for (const Return& r : callee.returns) {
    const ValueId from = source[index(r.value)];
    out.push_back(from != ValueId::none && leaves[index(from)] == 1 ? from : ValueId::none);
  }
  return out;
}

Aliases find_aliases(const Program& program, const Function& f, bool called) {
  Aliases out;
  const int end = static_cast<int>(f.ops.size());
  const bool is_main = &f == &program.main();
  out.copied.assign(f.values.size(), false);
  for (size_t v = 0; v < f.values.size(); ++v) out.source.push_back(static_cast<ValueId>(v));
  const std::vector<Link> links = find_links(program, f);
  for (const Link& link : links) out.source[index(link.name)] = out.source[index(link.value)];
  if (links.empty()) return out;

  std::vector<bool> is_passed(f.values.size(), false);
  if (called && !is_main) {
    const std::vector<ValueId> from = passed(f);
    for (size_t r = 0; r < from.size(); ++r) {
      if (from[r] != ValueId::none) is_passed[index(f.returns[r].value)] = true;
    }
  }
  const std::vector<int> overwrite = overwritten(program, f, links);
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
  for (size_t i = links.size(); i-- > 0;) {
    last[index(links[i].value)] = std::max(last[index(links[i].value)], last[index(links[i].name)]);
  }
  for (const Link& link : links) {
    const ValueId v = link.name, source = out.source[index(link.value)];
    out.source[index(v)] = source;
    const bool of_parameter = f.value(source).op < 0;
    const bool returned = std::any_of(f.returns.begin(), f.returns.end(),
                                      [&](const Return& r) { return r.value == v && r.in_place == ValueId::none; });
    const bool two = !is_main && returned && !is_passed[index(v)] && (of_parameter || leaves[index(source)] > 1);
    const bool own = overwrite[index(v)] < end;  // a call takes it over: the source stays
    if (overwrite[index(source)] >= last[index(v)] && !two && !own) continue;
    out.copied[index(v)] = true;
    out.source[index(v)] = v;
  }
  return out;
}

}  // namespace meshard
