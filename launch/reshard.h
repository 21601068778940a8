// What `meshard reshard` prints: the steps between two layouts of a tensor, their bytes, messages and estimated time, the
// lower bound, and what the other choices would have cost: without an exchange, and by time.
#pragma once

#include <string>

namespace meshard {

// `json`: a file to write too, "" for none. `ranks_per_host`: as in CostModel. Returns the exit status. Errors: those of the type, the layouts and the mesh.
int print_reshard(const std::string& type, const std::string& from, const std::string& to, const std::string& mesh, const std::string& json,
                  int64_t ranks_per_host = 0);

}  // namespace meshard
