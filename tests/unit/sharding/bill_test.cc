// Limits on a bill, and two bills set side by side.
#include <catch2/catch.hpp>
#include <sstream>

#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "meshard/sharding/diff_bills.h"
#include "meshard/sharding/expect_bill.h"
#include "meshard/sharding/partition.h"
#include "meshard/sharding/pin.h"
#include "meshard/sharding/propagate.h"

namespace meshard {
namespace {

// 5 rows over 2 devices of data, 9 columns over 2 of model: y is a sum over model of [3 or 2, 6].
Bill product(const std::string& result_layout) {
  const std::string text = R"(mesh data=2, model=2

func main(%x: f32[5,6] [data, -], %up: f32[6,9] [-, model], %down: f32[9,6] [model, -]) {
  %h = einsum %x, %up {rule = "b i, i j -> b j"} : f32[5,9]
  %g = gelu %h : f32[5,9]
  %y = einsum %g, %down {rule = "b j, j i -> b i"} : f32[5,6] )" + result_layout + R"(
  return %y
}
)";
  return make_bill(partition(propagate(parse_program(text, "product.mesh", op_table()))));
}

TEST_CASE("a bill within its limits passes every check") {
  const Bill bill = product("[data, -]");
  CHECK(bill.bytes == 72);
  CHECK(bill.collectives() == 1);
  const BillCheck check =
      expect_bill(bill).at_most_bytes(72).at_most_bytes_all_devices(240).at_most_collectives(1).none(Collective::all_gather).none_over("data");
  CHECK(check);
  CHECK(check.message().empty());
  CHECK_NOTHROW(check.or_throw());
}

TEST_CASE("a bill over its limits says what is over, by how much, and what most of it is") {
  const Bill bill = product("[data, -]");
  const BillCheck check =
      expect_bill(bill).at_most_bytes(71).at_most_bytes_all_devices(239).at_most_collectives(0).none(Collective::all_reduce).none_over("model");
  CHECK_FALSE(check);
  const std::string message =
      "the bill is over its limits\n"
      "  bytes that the busiest device receives: 72, at most 71 allowed\n"
      "  bytes that all devices receive: 240, at most 239 allowed\n"
      "  collectives in a step: 1, at most 0 allowed\n"
      "  no all_reduce allowed: all_reduce over model of %y@1: 72 bytes, 1 run\n"
      "  nothing over model allowed: all_reduce over model of %y@1: 72 bytes, 1 run\n"
      "most of it:\n"
      "  all_reduce over model of %y@1: 72 bytes, 1 run";
  CHECK(check.message() == message);
  CHECK_THROWS_WITH(check.or_throw(), message);
  std::ostringstream out;
  out << check;
  CHECK(out.str() == message);
  CHECK_THROWS_WITH(expect_bill(bill).none_over("modle"), "no axis \"modle\" in mesh data=2, model=2; did you mean \"model\"?");
}

TEST_CASE("a limit on memory counts what the memory plan says") {
  Bill bill = product("[data, -]");
  bill.peak_bytes = 1000;
  CHECK(expect_bill(bill).at_most_peak_bytes(1000));
  CHECK(expect_bill(bill).at_most_peak_bytes(999).message().starts_with("the bill is over its limits\n  bytes of memory on a device: 1000, at most 999 allowed"));
}

TEST_CASE("two bills side by side") {
  const BillDiff diff = diff_bills(product("[data, -]"), product("[data, model]"));
  REQUIRE(diff.rows.size() == 1);
  CHECK(diff.rows[0].value == "%y");
  CHECK(diff.rows[0].before == 72);
  CHECK(diff.rows[0].after == 36);
  CHECK(diff.before.bytes_all_devices == 240);
  CHECK(diff.after.bytes_all_devices == 120);
  CHECK(diff.table("whole", "split") ==
        "from whole to split                               before           after          change\n"
        "bytes, busiest device                                 72              36             -36 (-50.0 %)\n"
        "bytes, all devices                                   240             120            -120 (-50.0 %)\n"
        "collectives                                            1               1               0 (+0.0 %)\n"
        "memory, bytes a device                                 0               0               0\n"
        "flops, busiest device                                570             570               0 (+0.0 %)\n"
        "\nbytes by value, largest change first:\n"
        "%y                                                    72              36             -36 (-50.0 %)\n"
        "    1 x all_reduce over model -> 1 x reduce_scatter over model\n");
  const BillDiff none = diff_bills(product("[data, -]"), product("[data, -]"));
  CHECK(none.rows.empty());
  CHECK(none.same == 1);
  CHECK(none.table("a", "b").ends_with("\nno value's communication changes\n1 value is the same in both\n"));
}

}  // namespace
}  // namespace meshard
