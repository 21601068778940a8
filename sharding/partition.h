// partition: the global program, with layouts, becomes the local program that every rank runs, with exactly the collectives
// it needs. It only inserts: erase() gives the global program back.
//
// Names: the k-th other layout of X is X@k and has X's value. A function is partitioned once for all its calls. Pending sums
// stay pending while their readers are linear.
#pragma once

#include <optional>

#include "meshard/ir/program.h"
#include "meshard/sharding/propagate.h"

namespace meshard {

enum class Mode { automatic, explicit_only, budget };

// What is allowed of the result: see strict.h.
struct PartitionOptions {
  Mode mode = Mode::automatic;
  int64_t budget_bytes = 0;  // Mode::budget: more than this, for the busiest device, is an error
};

// Parses "auto", "explicit", "budget=BYTES".
PartitionOptions parse_mode(std::string_view text);

// Requires closed layouts (propagate). Leaves Level::local. `origins` says whom the collectives' causes name.
Program partition(const Program& program, const Origins* origins = nullptr);

// Layouts, collectives and role ops taken out, values renumbered: equal for a global program and its partitioned one (where
// no op was lowered).
Program erase(const Program& program);

}  // namespace meshard
