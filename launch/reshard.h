// What `meshard reshard` prints: the steps between two layouts of a tensor, their bytes, and the lower bound.
#pragma once

#include <string>

namespace meshard {

// `json`: a file to write too, "" for none. Returns the exit status. Errors: those of the type, the layouts and the mesh.
int print_reshard(const std::string& type, const std::string& from, const std::string& to, const std::string& mesh, const std::string& json);

}  // namespace meshard
