// Runs: names that differ in one number, written once. The text of a 12-layer and of a 100-layer model then have the
// same number of lines. The printer and the parser share this notation; each function here has its inverse beside it.
//
//   %block.0..11.wq          twelve names; entries next to one another with the same range are expanded index by index
//   %block.#-1.y             in a run of calls: "#" is the number of the call
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/base/error.h"

namespace meshard {

// Numbers in a range; from > to counts down.
struct Range {
  int64_t from = 0;
  int64_t to = 0;
  int64_t length() const { return (from < to ? to - from : from - to) + 1; }
  int64_t at(int64_t i) const { return from < to ? from + i : from - i; }
  bool operator==(const Range&) const = default;
};

// A dotted name in parts: "block.0..11.wq" is {"block", "0..11", "wq"}. Empty if a part is empty or a range is none.
using NameParts = std::vector<std::string>;
NameParts split_name(std::string_view name);
bool is_value_name(std::string_view name);  // of one value, "block.0.wq@1": words of letters, digits, _ and @; no range
std::vector<std::string_view> split_at(std::string_view text, char mark);  // "a,,b" -> {"a", "", "b"}
std::string join_parts(const NameParts& parts);
std::optional<int64_t> part_number(std::string_view part);  // "12": plain decimal, no leading zero, below 10^9
std::optional<Range> part_range(std::string_view part);     // "0..11"
std::optional<size_t> find_range(const NameParts& parts);   // the first part that is a range
std::string range_text(Range range);

inline constexpr int kMostRanges = 4;  // in one name

// An entry of a function's header, or a returned value.
struct RunItem {
  NameParts name;
  NameParts link;      // the parameter that this is the state of, or whose memory a returned value takes; may be empty
  std::string text;    // all else that is printed; equal within a run
  size_t payload = 0;  // the caller's: which entry this is (in a run: the first one's)
  bool ends_run = false;  // printed with ";" instead of ",": the next entry begins a run of its own
  Place place;
};

// Writes sequences that repeat with one number counting up as one repetition with a range, from the outermost number
// inwards.
std::vector<RunItem> compress_runs(std::span<const RunItem> items);
// The inverse. `fail` throws. More than `most` items are an error.
using RunFail = std::function<void(const Place&, std::string)>;
std::vector<RunItem> expand_runs(std::span<const RunItem> items, int64_t most, const RunFail& fail);

// What the calls of a run pass for one parameter. The k-th call has number `numbers.at(k)`; `prefix` is how the calls
// are named, the number at part `at`. "%block.#-1.y", with " first %x@1" or " last %h" where the first or last call
// does otherwise; nullopt: no such pattern.
std::optional<std::string> argument_pattern(std::span<const std::string> values, Range numbers, const NameParts& prefix,
                                            size_t at);
// "block.#-1.y" and 3 -> "block.2.y"; nullopt: a part with "#" that is not "#", "#+k" or "#-k", or a number below 0.
std::optional<std::string> pattern_name(std::string_view pattern, int64_t number);

}  // namespace meshard
