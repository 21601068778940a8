// Random programs: ops of the table on small uneven shapes, functions called several times, loops with carried values,
// results in place of arguments, parameters and states, layouts here and there on a mesh of up to 8 devices.
//
//   Generated g = generate(op_table(), /*seed=*/7, /*backward=*/true);
//   print(g.program)
//
// While it is made, a program is run on the data that it will be checked on: an op that gives infinite or very large
// numbers is drawn again, and integers are in range.
#pragma once

#include "meshard/runtime/simulate.h"
#include "random.h"

namespace meshard::fuzz {

struct Generated {
  Program program;
  CheckOptions data;
  bool backward = false;  // it has gradients
};

// A function of the seed alone. With `backward` the gradients of a sum of squares are appended; where an op on the way
// has none, the program is made without.
Generated generate(const OpTable& table, uint64_t seed, bool backward);

// A mesh of 1 to 3 axes and up to 8 devices, its factors in a random order.
Mesh random_mesh(Rng& rng);
// Nothing pending unless `may_pend`.
Layout random_layout(Rng& rng, const Mesh& mesh, const Type& type, bool may_pend);
// Gives the program a mesh and pins layouts on some of its values.
void lay_out(Rng& rng, Program& program);

}  // namespace meshard::fuzz
