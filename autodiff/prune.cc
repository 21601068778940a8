#include "meshard/autodiff/prune.h"

#include <functional>

namespace meshard {

std::vector<ValueId> prune(Function& f, const std::vector<ValueId>& roots, const PruneOptions& options) {
  std::vector<bool> read(f.values.size(), false);
  for (ValueId v : roots) read[index(v)] = true;
  for (const Return& r : f.returns) read[index(r.value)] = true;

  std::vector<bool> keep(f.ops.size(), true);
  for (size_t i = f.ops.size(); i-- > 0;) {
    if (i >= options.first) {
      keep[i] = false;
      for (ValueId r : f.ops[i].results) keep[i] = keep[i] || read[index(r)];
    }
    if (!keep[i]) continue;
    for (ValueId v : f.ops[i].operands) {
      if (v != ValueId::none) read[index(v)] = true;
    }
  }

  std::vector<bool> dropped(f.values.size(), false);
  for (size_t i = 0; i < f.ops.size(); ++i) {
    for (ValueId r : f.ops[i].results) dropped[index(r)] = !keep[i];
  }
  if (options.parameters) {
    std::vector<ValueId> params;
    std::vector<ParamInfo> info;
    for (size_t p = 0; p < f.params.size(); ++p) {
      dropped[index(f.params[p])] = !read[index(f.params[p])];
      if (dropped[index(f.params[p])]) continue;
      params.push_back(f.params[p]);
      info.push_back(f.param_info[p]);
    }
    f.params = std::move(params);
    f.param_info = std::move(info);
  }

  std::vector<ValueId> renumbered(f.values.size(), ValueId::none);
  std::vector<ValueInfo> values;
  for (size_t v = 0; v < f.values.size(); ++v) {
    if (dropped[v]) continue;
    renumbered[v] = static_cast<ValueId>(values.size());
    values.push_back(std::move(f.values[v]));
  }
  const auto renumber = [&](ValueId& v) {
    if (v != ValueId::none) v = renumbered[index(v)];
  };

  std::vector<int> new_index(f.ops.size(), -1);
  std::vector<Op> ops;
  const std::vector<Op> old = std::move(f.ops);
  std::vector<int> maker(renumbered.size(), -1);
  for (size_t i = 0; i < old.size(); ++i) {
    for (ValueId r : old[i].results) maker[index(r)] = static_cast<int>(i);
  }
  const std::function<void(size_t)> emit = [&](size_t i) {
    if (new_index[i] >= 0) return;
    for (ValueId v : old[i].operands) {
      const int made = v == ValueId::none ? -1 : maker[index(v)];
      if (made >= 0 && options.late.contains(made)) emit(static_cast<size_t>(made));
    }
    new_index[i] = static_cast<int>(ops.size());
    ops.push_back(old[i]);
    for (ValueId& v : ops.back().operands) renumber(v);
    for (ValueId& r : ops.back().results) {
      renumber(r);
      values[index(r)].op = new_index[i];
    }
  };
  for (size_t i = 0; i < old.size(); ++i) {
    if (keep[i] && !options.late.contains(static_cast<int>(i))) emit(i);
  }
  // Made again only to be returned.
  for (size_t i = 0; i < old.size(); ++i) {
    if (keep[i]) emit(i);
  }

  f.ops = std::move(ops);
  f.values = std::move(values);
  for (ValueId& p : f.params) renumber(p);
  for (ParamInfo& info : f.param_info) renumber(info.of);
  for (Return& r : f.returns) {
    renumber(r.value);
    renumber(r.in_place);
  }
  return renumbered;
}

}  // namespace meshard
