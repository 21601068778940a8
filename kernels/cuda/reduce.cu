#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/reduce_family-inl.h"
