#include "meshard/base/error.h"
#include "meshard/kernels/device_kernels.h"

namespace meshard {

void BoxCopy::push(int64_t n, int64_t from_step, int64_t to_step) {
  if (n == 1) return;
  if (dims > 0 && from[dims - 1] == n * from_step && to[dims - 1] == n * to_step) {
    size[dims - 1] *= n;
    from[dims - 1] = from_step;
    to[dims - 1] = to_step;
    return;
  }
  MESHARD_CHECK(dims < kMost, "a block has too many dimensions to be copied on a device");
  size[dims] = n;
  from[dims] = from_step;
  to[dims++] = to_step;
}

int64_t BoxCopy::elements() const {
  int64_t n = 1;
  for (int d = 0; d < dims; ++d) n *= size[d];
  return n;
}

}  // namespace meshard
