// Chosen by CMake where there is no CUDA.
#include "meshard/backend/backend.h"
#include "meshard/base/error.h"

namespace meshard {
namespace {

[[noreturn]] void fail() {
  throw UserError("this build of Meshard has no CUDA: install nvcc and configure again, or leave out --device cuda");
}

}  // namespace

bool cuda_built() { return false; }
int cuda_device_count() { fail(); }
std::unique_ptr<Backend> cuda_backend(int) { fail(); }

}  // namespace meshard
