// Windows: values that lie inside a parameter's or state's memory instead of in memory of their own. Where the
// optimizer's state is split and a parameter is not, a rank reads its block of the parameter, updates it, and gathers
// all blocks into the parameter again. Both copies of the own block vanish:
//
//   %w@1 = slice %w {over = data}            another name for this device's block of %w
//   %w.new, ... = adamw %w@1, ...            writes where it reads, inside %w
//   %w.new@1 = all_gather %w.new             brings the other blocks; `return %w.new@1 -> %w`
#pragma once

#include "meshard/mesh/mesh.h"
#include "meshard/runtime/flat.h"

namespace meshard {

// Puts values of `flat`, which is what flatten made for `rank`, into windows where
// - the block is contiguous in the memory and begins at a multiple of kAlignment,
// - no step between its first and its last use writes or reads the same bytes under another name, except an op that may
//   work in place,
// - and no loop begins or ends meanwhile.
// A slice that became a name is no step any more (FlatStep::skip).
void find_windows(const Mesh& mesh, Rank rank, Flat& flat);

}  // namespace meshard
