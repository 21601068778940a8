#include "meshard/ir/program.h"

#include <algorithm>

#include "meshard/base/error.h"

namespace meshard {

ValueId Function::find(std::string_view name) const {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].name == name) return static_cast<ValueId>(i);
  }
  return ValueId::none;
}

int Function::param_index(ValueId v) const {
  // Mostly parameters stand in the order in which they were made: thousands of them are asked for one by one.
  size_t low = 0;
  for (size_t high = params.size(); low < high;) {
    const size_t middle = (low + high) / 2;
    if (params[middle] < v) low = middle + 1;
    else high = middle;
  }
  if (low < params.size() && params[low] == v) return static_cast<int>(low);
  const auto at = std::find(params.begin(), params.end(), v);
  return at == params.end() ? -1 : static_cast<int>(at - params.begin());
}

int Program::find(std::string_view function) const {
  for (size_t i = 0; i < functions.size(); ++i) {
    if (functions[i].name == function) return static_cast<int>(i);
  }
  return -1;
}

std::string join_name(std::string_view prefix, std::string_view name) {
  std::string out(prefix);
  if (!out.empty()) out += '.';
  return out.append(name);
}

std::string_view base_name(std::string_view name) {
  const size_t at = name.rfind('@');
  if (at == std::string_view::npos || at + 1 == name.size()) return name;
  const bool number = name.find_first_not_of("0123456789", at + 1) == std::string_view::npos;
  return number ? name.substr(0, at) : name;
}

std::vector<std::vector<int>> users(const Function& f) {
  std::vector<std::vector<int>> out(f.values.size());
  for (size_t i = 0; i < f.ops.size(); ++i) {
    for (ValueId v : f.ops[i].operands) {
      if (v != ValueId::none) out[index(v)].push_back(static_cast<int>(i));
    }
  }
  return out;
}

std::vector<int64_t> run_counts(const Program& program) {
  // More than anything is run; what multiplies it by a few bytes still fits.
  constexpr int64_t kMost = int64_t{1} << 58;
  std::vector<int64_t> counts(program.functions.size());
  counts.back() = 1;
  // Callees stand before callers.
  for (size_t f = program.functions.size(); f-- > 0;) {
    for (const Op& op : program.functions[f].ops) {
      if (op.callee < 0) continue;
      int64_t& count = counts[static_cast<size_t>(op.callee)];
      int64_t more = 0;
      if (__builtin_mul_overflow(counts[f], op.count, &more) || more > kMost - count) more = kMost - count;
      count += more;
    }
  }
  return counts;
}

}  // namespace meshard
