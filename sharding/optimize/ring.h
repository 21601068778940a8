// Products next to a gather or a scatter, and what becomes of them when blocks travel round a ring of devices. Internal
// to sharding/optimize/.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "meshard/ir/program.h"

namespace meshard {

// A dimension of a tensor that the ring cuts into `parts` blocks: shape and layout of one block.
struct RingPart {
  ValueId from = ValueId::none;
  std::string rule;  // of BlockOps::part: the block that the operand needs
  Attributes sizes;  // of its letters
  Type type;
};

// A product, made in as many steps as the ring has devices.
struct RingProduct {
  int op = 0;  // in the function
  std::string rule;
  Attributes sizes;
  Type type;  // of what one step makes
  Layout layout;
  std::optional<RingPart> part[2];  // operands of which a step reads one block; the travelling one is none of them
  // A step's result is a block of the whole (else they are added up): the rule of BlockOps::place.
  std::string place_rule;
  Attributes place_sizes;
};

// What the steps of one ring do.
struct Ring {
  int op = 0;  // the gather or the scatter
  AtomSet over;
  int64_t steps = 1;
  bool scatters = false;            // partial sums travel, else blocks of a product's operand
  ValueId travels = ValueId::none;  // the gathered value's operand; of a scatter none
  int position = 0;                 // the op before which all of it stands
  std::vector<RingProduct> products;
  std::vector<int> sums;  // ops that add up what is scattered, where that is a sum of several products
};

// The ring that the gather or scatter f.ops[op] and its products may become; none where it may not: sizes that the ring
// does not divide, readers that are no products, products that the ring's devices do alike.
std::optional<Ring> find_ring(const Program& program, const Function& f, int op);

}  // namespace meshard
