#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/index_family-inl.h"
