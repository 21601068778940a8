#include "meshard/base/error.h"
#include "meshard/launch/process.h"

namespace meshard {

void process_start(int*, char***) { throw InternalError("built without MPI"); }
void process_end() {}

}  // namespace meshard
