// Training on a device beside the host, emulated: its memory closed to the host, its work done when it is waited for. On
// a GPU the same is done by tests/cuda.
#include "meshard/tests/models/on_backend.h"

namespace meshard {

TEST_CASE("training on an emulated device gives the host's losses") {
  const auto device = emulated_backend();
  check_training(device.get(), 1e-4);
}

}  // namespace meshard
