// explain: for each collective of a local program why it is there: the ops and source lines on its two sides, the plan
// lines (or places in the text) that asked for the two layouts, its bytes, estimated seconds and lower bound, the choices
// that were not taken, and the smallest change of a plan line that removes it.
//
//   Explained e = explain_plan(program, plan, mesh);     // runtime/explained.h: compiles, explains, searches for edits
//   fmt::print("{}", e.why.text());
//
//   1. all_gather over data of block: %up.use f32[64,256], 2 runs: 98,304 bytes, 9.0 % of the step, at its lower bound
//        messages 6, about 36.6 us
//        from  [data, -]  an argument of block; data by zero3.plan:9:68 (parameter %block.0.up)
//        to    [-, -]     read by einsum %c, %up.use (layers.cc:74); by zero3.plan:9:50
//        without it: zero3.plan:9:68: store [data, -] -> [-, -]: bytes of all devices -12,345 (-1.1 %), memory +1,024
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "meshard/layout/cost.h"
#include "meshard/layout/plan.h"
#include "meshard/sharding/bill.h"
#include "meshard/sharding/propagate.h"

namespace meshard {

// Who asked for a layout: one pin that put axes there, or that keeps them away.
struct Asked {
  std::string axes;   // "data", "(data,model)"; "" for the whole layout
  std::string value;  // whose layout is given there: "block: %up.use"
  Place place;        // of the plan's line or the text; line 0: no line of the plan names it
  int function = -1;  // and the pinned value itself, in the closed program
  ValueId id = ValueId::none;
  bool pending = false;  // axes that it splits became a sum, or a maximum or minimum
  bool elsewhere = false;  // axes that another tensor of the reader has
  Reduction reduction = Reduction::sum;  // of a pending one
};

// One change of one line that removes a collective, or at least makes it cheaper.
struct RemovingEdit {
  bool removes = true;
  Place place;         // of the layout that is changed; line 0: the line is added at the end of the plan
  std::string change;  // "store [data, -] -> [-, -]", "add the line \"block.*.add [-, model, -]\""
  int64_t bytes = 0, bytes_all_devices = 0, peak_bytes = 0, flops = 0, collectives = 0;  // of the bill then, less this bill's
};

// A choice of layouts at the op that reads the value (or makes it), which was not taken.
struct NotTaken {
  std::string what;              // "%x as [-, -], %w as [-, model]"
  int64_t bytes_all_devices = 0;  // more than the choice that was taken
};

// Why one value moves.
struct Cause {
  std::string value, type;      // "block: %up.use", "f32[64,256]"
  std::string made_value;       // from which: "block: %up"
  std::string from, to;         // layouts, of the whole change of layout that this step is part of
  int step = 0, steps = 1;      // which of its steps
  std::string made, read;       // "by einsum %g, %down (product.mesh:6:3)"; "an argument of block"
  std::vector<Asked> from_asked, to_asked;
  int64_t bytes = 0;                // of the line's bytes, the value's share
  int64_t reshard_bytes = 0;        // of the whole change of layout, busiest device, all runs
  int64_t reshard_lower_bound = 0;  // least that any sequence of steps could receive
};

// The members of Cause are those of the message's first value, but the bytes of the change of layout and their bound, which
// are of all values; `with` has the others, each with a cause of its own.
struct Explanation : Cause {
  size_t line = 0;              // in Bill::lines
  std::vector<Cause> with;      // the message's other values
  std::string ring;             // a block on its way round a ring (sharding/optimize/ring.cc): which, and of what
  int64_t messages = 0;             // of the busiest device, all runs
  int64_t nanoseconds = 0;          // estimated, all runs
  std::vector<NotTaken> not_taken;
  std::vector<RemovingEdit> edits;  // best first: those that remove it, or, where none does, those that make it cheaper
  bool edits_searched = false;      // all edits of the layouts involved were tried
  int closed_function = -1, closed_op = -1;  // the op whose choice it follows from, in the closed program; -1: none is known
};

struct Explanations {
  Mesh mesh;
  std::vector<Explanation> list;  // by bytes, largest first, then in program order
  int64_t bytes = 0, bytes_all_devices = 0, collectives = 0, peak_bytes = 0, flops = 0;
  int64_t messages = 0, nanoseconds = 0;  // of all collectives, one after the other
  std::vector<BillLine> lines;            // the bill's

  std::string text(size_t most = 0) const;  // 0: all
  std::string json() const;                 // {"version": 1, "kind": "explanation", ...}: the members above, by their names
};

struct ExplainInput {
  const Program* closed = nullptr;  // the global program with every layout, as partition got it; null: nobody says who asked
  const Origins* origins = nullptr;
  const Program* local = nullptr;
  const Bill* bill = nullptr;
  CostModel cost;
  int64_t least_bytes = 0;          // collectives of fewer bytes are left out of the list
};

Explanations explain(const ExplainInput& input);

// Fills in the choices not taken at the ops that read what moves (or make it), for the largest collectives, at most `most` ops:
// all else is chosen anew for each.
void find_alternatives(Explanations& all, const Program& closed, size_t most);

}  // namespace meshard
