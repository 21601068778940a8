#include "meshard/kernels/reference/ring.h"

#include <cstring>

#include "meshard/kernels/reference/reference.h"
#include "meshard/kernels/reference/types.h"

namespace meshard::reference {

Prepared ring_part(const KernelSpec& spec) {
  const RingBlocks blocks(spec, spec.operands[0], spec.results[0]);
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [blocks, elements = spec.results[0].type.shape.elements()](const KernelCall& call) {
              const T* x = in<T>(call, 0);
              T* y = out<T>(call);
              if (blocks.misses) std::fill_n(y, elements, T{});
              blocks.each([&](int64_t wide, int64_t narrow) {
                blocks.nest.each({wide, narrow}, [&](const Offsets<2>& at) { y[at[1]] = x[at[0]]; });
              });
            }};
  });
}

Prepared ring_place(const KernelSpec& spec) {
  const RingBlocks blocks(spec, spec.operands[0], spec.operands[1]);
  return for_any(spec.results[0].type.dtype, [&]<class T>() -> Prepared {
    return {0, [blocks, bytes = spec.results[0].type.bytes()](const KernelCall& call) {
              const T* u = in<T>(call, 1);
              T* y = out<T>(call);
              if (bytes > 0 && call.results[0] != call.operands[0])
                std::memcpy(y, call.operands[0], static_cast<size_t>(bytes));
              blocks.each([&](int64_t wide, int64_t narrow) {
                blocks.nest.each({wide, narrow}, [&](const Offsets<2>& at) { y[at[0]] = u[at[1]]; });
              });
            }};
  });
}

}  // namespace meshard::reference
