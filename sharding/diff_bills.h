// What a change of plan costs: two bills of one program set side by side, value by value.
//
//   BillDiff diff = diff_bills(compile(p, zero1).bill, compile(p, zero3).bill);
//   fmt::print("{}", diff.table("zero1", "zero3"));
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "meshard/sharding/bill.h"

namespace meshard {

struct BillDiff {
  // The collectives of one value of the global program, copies in other layouts included, in one function; of a parameter those
  // of all its roles, in all functions.
  struct Row {
    std::string value;               // "block: %add", "parameter %up"
    std::string before_what, after_what;  // "all_gather over data"; "" where there is none
    int64_t before = 0, after = 0;   // bytes of the busiest device of each collective, summed
    int64_t count_before = 0, count_after = 0;
  };
  std::vector<Row> rows;             // that differ, by the size of the difference, then in program order
  int64_t same = 0;                  // values whose collectives are the same in both
  struct Total {
    int64_t bytes = 0, bytes_all_devices = 0, collectives = 0, peak_bytes = 0, flops = 0;
  } before, after;

  std::string table(std::string_view before_name, std::string_view after_name) const;
  std::string json(std::string_view before_name, std::string_view after_name) const;
};

BillDiff diff_bills(const Bill& before, const Bill& after);

// "+1,024", "-12,345,678", "0".
std::string signed_text(int64_t bytes);

}  // namespace meshard
