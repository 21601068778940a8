// A bill as a test, for a project's own CI: this program on this mesh must not communicate more than that. It works in any
// test framework, and without one.
//
//   Compiled step = compile(trace.program(), plan, Mesh::parse("data=4"));
//   BillCheck check = expect_bill(step.bill).at_most_bytes(20 << 20).at_most_collectives(53).none(Collective::all_reduce);
//   REQUIRE(check);            // Catch2; EXPECT_TRUE(check) << check.message() with GoogleTest, assert(check)
//   check.or_throw();          // or this: a UserError whose text says what is over and which values cause it
//
// The same on the command line: meshard plan ... --max-bytes N --max-collectives K ends with status 2 where the bill is over.
#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "meshard/sharding/bill.h"

namespace meshard {

// A chain of limits on one bill, which must outlive it. Each limit that is passed is kept; good() is true if none is.
class BillCheck {
 public:
  explicit BillCheck(const Bill& bill) : bill_(&bill) {}

  BillCheck& at_most_bytes(int64_t bytes);              // received by the busiest device in one step
  BillCheck& at_most_bytes_all_devices(int64_t bytes);  // received by all devices together in one step
  BillCheck& at_most_collectives(int64_t count);        // run in one step by a device; one in a function called n times is n
  BillCheck& at_most_peak_bytes(int64_t bytes);         // of memory, of the largest device
  BillCheck& none(Collective kind);
  // No collective over an axis or a part of it: none_over("model"). UserError: the mesh has no such axis.
  BillCheck& none_over(std::string_view axis);

  bool good() const { return over_.empty(); }
  explicit operator bool() const { return good(); }
  // What is over, a line each, with the collectives that cost most; "" if nothing is.
  std::string message() const;
  void or_throw() const;  // UserError with that message

 private:
  void limit(std::string_view what, int64_t seen, int64_t most);

  const Bill* bill_;
  std::vector<std::string> over_;
};

BillCheck expect_bill(const Bill& bill);
BillCheck expect_bill(Bill&&) = delete;  // it must outlive the check

std::ostream& operator<<(std::ostream& out, const BillCheck& check);

}  // namespace meshard
