// Training on a GPU gives the host's losses, on one device and on meshes in lockstep, step by step and captured.
#include <catch2/catch.hpp>

#include "meshard/backend/backend.h"
#include "meshard/tests/models/on_backend.h"

namespace meshard {

TEST_CASE("training on a GPU gives the host's losses") {
  const auto gpu = cuda_backend(0);
  check_training(gpu.get(), 1e-4);
}

}  // namespace meshard
