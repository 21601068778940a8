// Bill: what a local program communicates, exactly: the one account that the planner chooses by, `explain` prints and the
// executor is held against.
//
//   Bill bill = make_bill(local);
//   bill.bytes             received by the busiest device in one run of main
//   bill.bytes_all_devices the sum over devices
#pragma once

#include <string>
#include <vector>

#include "meshard/ir/program.h"
#include "meshard/sharding/device_sum.h"

namespace meshard {

struct BillLine {
  Collective kind = Collective::all_gather;
  AtomSet over;
  int64_t group = 1;        // ranks that talk
  int64_t count = 1;        // runs in one run of main
  int64_t bytes = 0;        // of its busiest device, all runs
  int64_t bytes_all = 0;    // over all devices, all runs
  int64_t lower_bound = 0;  // of its busiest device, all runs: what it must receive in any case
  std::string value;        // "block: %p@1"
  std::string cause;
  bool asked = false;       // by a layout that is written
  Place source;
  int function = 0, op = 0;         // where it stands in the local program
  std::vector<std::string> values;  // that its message carries, without what tells copies apart: "block: %p"
};

struct Bill {
  Mesh mesh;
  std::vector<BillLine> lines;            // in program order
  DeviceSum device_bytes;                 // received by each device: device_bytes[rank]
  int64_t bytes = 0, bytes_all_devices = 0, busiest_device = 0;
  int64_t flops = 0;                      // of the busiest device
  int64_t peak_bytes = 0;                 // set by runtime's memory plan

  int64_t collectives() const;            // run in one step, each call of a function counted

  // The same communication: kinds, axes, counts and bytes.
  std::string table(bool causes) const;   // text for people; lines alike in all but the value are added up unless `causes`
  std::string json() const;               // DESIGN section 11
};

// Requires Level::local.
Bill make_bill(const Program& local);

std::string bytes_text(int64_t bytes);    // "12.4 MiB"

}  // namespace meshard
