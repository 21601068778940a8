// The planner's search, for the pairs of layouts that its rules do not settle: the steps of least bytes, found from the
// cheapest on (A*). See layout/reshard.h for what the planner is asked; search_reshard.h is its slow twin.
#pragma once

#include <optional>

#include "meshard/layout/reshard.h"

namespace meshard {

// The least elements, summed over all ranks, that any steps from -> to receive: (P - 1) for the P parts of each pending
// element, one for each copy of the result that is not where it was reduced, and without a reduction what ranks need and
// do not hold.
int64_t least_elements(const Mesh& mesh, const Shape& shape, const Layout& from, const Layout& to);

// Both closed, and reshard_obstacle allows them. With `exchange`, whatever is left to move once nothing is to be
// reduced goes in one exchange; without, steps are slices, gathers, all_to_alls, permutes and reductions. Empty where
// the search would take longer than its budget (some milliseconds), which takes many axes that go separate ways.
std::optional<std::vector<ReshardStep>> shortest_steps(const Mesh& mesh, const Shape& shape, const Layout& from,
                                                       const Layout& to, bool exchange);

}  // namespace meshard
