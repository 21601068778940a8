#include "meshard/ir/runs.h"

#include <algorithm>
#include <charconv>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "fmt/format.h"

namespace meshard {
namespace {

// Where each name stands; only looked up.
using Positions = absl::flat_hash_map<std::string, size_t>;

struct Found {
  size_t part = 0;    // which part counts
  size_t period = 0;  // items in one repetition
  int64_t rounds = 0;
};

bool same_prefix(const NameParts& a, const NameParts& b, size_t parts) {
  return a.size() > parts && b.size() > parts &&
         std::equal(a.begin(), a.begin() + static_cast<int64_t>(parts), b.begin());
}

// Whether a link counts along with its name: it has the same prefix and number.
bool link_runs(const RunItem& item, size_t part) {
  return same_prefix(item.link, item.name, part) && item.link[part] == item.name[part];
}

NameParts with_part(NameParts name, size_t part, std::string text) {
  name[part] = std::move(text);
  return name;
}

// Whether `later` is `item` with the number at `part` replaced.
bool repeats(const RunItem& item, const RunItem& later, size_t part, const std::string& number) {
  if (item.text != later.text || later.name != with_part(item.name, part, number)) return false;
  return later.link == (link_runs(item, part) ? with_part(item.link, part, number) : item.link);
}

std::optional<Found> find_run(std::span<const RunItem> items, size_t begin, const Positions& positions) {
  const NameParts& name = items[begin].name;
  for (size_t part = 0; part < name.size(); ++part) {
    const std::optional<int64_t> number = part_number(name[part]);
    if (!number) continue;
    const auto next = positions.find(join_parts(with_part(name, part, std::to_string(*number + 1))));
    if (next == positions.end() || next->second <= begin) continue;
    const size_t period = next->second - begin;
    bool alike = true;
    for (size_t k = begin; k < begin + period && alike; ++k) {
      alike = same_prefix(name, items[k].name, part) && items[k].name[part] == name[part];
    }
    int64_t rounds = alike ? 1 : 0;
    for (size_t at = begin + period; alike && at + period <= items.size(); at += period) {
      const std::string text = std::to_string(*number + rounds);
      for (size_t k = 0; k < period && alike; ++k) alike = repeats(items[begin + k], items[at + k], part, text);
      if (alike) ++rounds;
    }
    if (rounds >= 2) return Found{part, period, rounds};
  }
  return std::nullopt;
}

// Two entries with ranges belong to one run when the first range of both stands behind the same parts.
bool same_run(const NameParts& a, const NameParts& b) {
  const std::optional<size_t> at = find_range(a);
  return at && at == find_range(b) && same_prefix(a, b, *at) && a[*at] == b[*at];
}

// `depth`: ranges that already stand in the names.
std::vector<RunItem> compress(std::span<const RunItem> items, int depth) {
  Positions positions;
  for (size_t i = 0; i < items.size(); ++i) positions[join_parts(items[i].name)] = i;
  std::vector<RunItem> out;
  for (size_t i = 0; i < items.size();) {
    const std::optional<Found> run = depth < kMostRanges ? find_run(items, i, positions) : std::nullopt;
    std::vector<RunItem> body;
    if (run) {
      const int64_t first = *part_number(items[i].name[run->part]);
      const std::string range = range_text({first, first + run->rounds - 1});
      body = compress(items.subspan(i, run->period), depth + 1);
      for (RunItem& item : body) {
        if (link_runs(item, run->part)) item.link[run->part] = range;
        item.name[run->part] = range;
      }
    }
    const bool merges = run && !out.empty() && same_run(out.back().name, body.front().name);
    // A ";" would end the outer run too, so inside one the second of two mergeable runs stays spelled out.
    if (!run || (merges && depth > 0)) {
      out.push_back(items[i++]);
      continue;
    }
    if (merges) out.back().ends_run = true;
    out.insert(out.end(), std::make_move_iterator(body.begin()), std::make_move_iterator(body.end()));
    i += run->period * static_cast<size_t>(run->rounds);
  }
  return out;
}

void expand(std::span<const RunItem> items, int64_t most, const RunFail& fail, std::vector<RunItem>& out) {
  for (size_t i = 0; i < items.size();) {
    const std::optional<size_t> part = find_range(items[i].name);
    if (!part) {
      if (find_range(items[i].link)) {
        fail(items[i].place,
             fmt::format("%{} has a range that %{} has not", join_parts(items[i].link), join_parts(items[i].name)));
      }
      if (static_cast<int64_t>(out.size()) >= most) {
        fail(items[i].place, fmt::format("the runs expand to more than {} entries", most));
      }
      out.push_back(items[i++]);
      continue;
    }
    const auto ranges = std::count_if(items[i].name.begin(), items[i].name.end(), part_range);
    if (ranges > kMostRanges)
      fail(items[i].place, fmt::format("a name may have {} ranges, this has {}", kMostRanges, ranges));
    const Range range = *part_range(items[i].name[*part]);
    if (range.from >= range.to) {
      fail(items[i].place,
           fmt::format("%{}: the range {} must count up", join_parts(items[i].name), range_text(range)));
    }
    size_t end = i + 1;
    while (end < items.size() && !items[end - 1].ends_run && same_run(items[i].name, items[end].name)) ++end;
    for (int64_t round = 0; round < range.length(); ++round) {
      std::vector<RunItem> body(items.begin() + static_cast<int64_t>(i), items.begin() + static_cast<int64_t>(end));
      for (RunItem& item : body) {
        item.ends_run = false;
        if (link_runs(item, *part)) item.link[*part] = std::to_string(range.at(round));
        item.name[*part] = std::to_string(range.at(round));
      }
      expand(body, most, fail, out);
    }
    i = end;
  }
}

// The pattern that all of `values` follow, the k-th for number numbers.at(begin + k).
std::optional<NameParts> common_pattern(std::span<const NameParts> values, Range numbers, int64_t begin,
                                        const NameParts& prefix, size_t at) {
  NameParts pattern = values[0];
  for (const NameParts& value : values) {
    if (value.size() != pattern.size()) return std::nullopt;
  }
  for (size_t p = 0; p < pattern.size(); ++p) {
    const bool same =
        std::all_of(values.begin(), values.end(), [&](const NameParts& v) { return v[p] == values[0][p]; });
    // One value alone says nothing about what runs; beside the calls' own prefix it is their number.
    if (same && (values.size() > 1 || p != at || !same_prefix(values[0], prefix, at))) continue;
    const std::optional<int64_t> first = part_number(values[0][p]);
    if (!first && same) continue;
    if (!first) return std::nullopt;
    const int64_t offset = *first - numbers.at(begin);
    for (size_t k = 0; k < values.size(); ++k) {
      if (part_number(values[k][p]) != numbers.at(begin + static_cast<int64_t>(k)) + offset) return std::nullopt;
    }
    pattern[p] = offset == 0 ? "#" : fmt::format("#{:+}", offset);
  }
  return pattern;
}

}  // namespace

NameParts split_name(std::string_view name) {
  const std::vector<std::string_view> pieces = split_at(name, '.');
  NameParts out;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].empty()) {
      out.emplace_back(pieces[i]);
      continue;
    }
    // Two points: a range of the numbers on both sides.
    if (out.empty() || i + 1 == pieces.size() || !part_number(out.back()) || !part_number(pieces[i + 1])) return {};
    out.back() += fmt::format("..{}", pieces[++i]);
  }
  return out;
}

bool is_value_name(std::string_view name) {
  if (name.empty() || name.front() == '.' || name.back() == '.') return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '.' && name[i - 1] == '.') return false;
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_' && c != '.' && c != '@') return false;
  }
  return true;
}

std::vector<std::string_view> split_at(std::string_view text, char mark) {
  std::vector<std::string_view> out;
  for (size_t begin = 0;;) {
    const size_t end = text.find(mark, begin);
    out.push_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return out;
    begin = end + 1;
  }
}

std::string join_parts(const NameParts& parts) { return absl::StrJoin(parts, "."); }

std::optional<int64_t> part_number(std::string_view part) {
  constexpr size_t kDigits = 9;
  if (part.empty() || part.size() > kDigits || (part.size() > 1 && part[0] == '0')) return std::nullopt;
  int64_t value = 0;
  const auto result = std::from_chars(part.data(), part.data() + part.size(), value);
  if (result.ec != std::errc() || result.ptr != part.data() + part.size() || value < 0 || part[0] == '-')
    return std::nullopt;
  return value;
}

std::optional<Range> part_range(std::string_view part) {
  const size_t dots = part.find("..");
  if (dots == std::string_view::npos) return std::nullopt;
  const std::optional<int64_t> from = part_number(part.substr(0, dots)), to = part_number(part.substr(dots + 2));
  if (!from || !to) return std::nullopt;
  return Range{*from, *to};
}

std::optional<size_t> find_range(const NameParts& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (part_range(parts[i])) return i;
  }
  return std::nullopt;
}

std::string range_text(Range range) { return fmt::format("{}..{}", range.from, range.to); }

std::vector<RunItem> compress_runs(std::span<const RunItem> items) { return compress(items, 0); }

std::vector<RunItem> expand_runs(std::span<const RunItem> items, int64_t most, const RunFail& fail) {
  std::vector<RunItem> out;
  expand(items, most, fail, out);
  return out;
}

std::optional<std::string> argument_pattern(std::span<const std::string> values, Range numbers, const NameParts& prefix,
                                            size_t at) {
  if (std::all_of(values.begin(), values.end(), [&](const std::string& v) { return v == values[0]; }))
    return "%" + values[0];
  std::vector<NameParts> names;
  for (const std::string& value : values) names.push_back(split_name(value));
  // Exceptions at neither end, the first, the last, both.
  for (const auto& [first, last] : {std::pair{0, 0}, {1, 0}, {0, 1}, {1, 1}}) {
    const size_t inner = names.size() - static_cast<size_t>(first + last);
    if (inner == 0 || inner > names.size()) continue;
    const auto pattern =
        common_pattern(std::span(names).subspan(static_cast<size_t>(first), inner), numbers, first, prefix, at);
    if (!pattern) continue;
    std::string out = "%" + join_parts(*pattern);
    if (first) out += " first %" + values.front();
    if (last) out += " last %" + values.back();
    return out;
  }
  return std::nullopt;
}

std::optional<std::string> pattern_name(std::string_view pattern, int64_t number) {
  const std::vector<std::string_view> pieces = split_at(pattern, '.');
  NameParts parts(pieces.begin(), pieces.end());
  for (std::string& part : parts) {
    if (part.find_first_of("#+-") == std::string::npos) continue;
    int64_t offset = 0;
    if (part[0] != '#' || (part.size() > 1 && part[1] != '+' && part[1] != '-')) return std::nullopt;
    if (part.size() > 1) {
      const std::optional<int64_t> size = part_number(std::string_view(part).substr(2));
      if (!size) return std::nullopt;
      offset = part[1] == '-' ? -*size : *size;
    }
    if (number + offset < 0) return std::nullopt;
    part = std::to_string(number + offset);
  }
  return join_parts(parts);
}

}  // namespace meshard
