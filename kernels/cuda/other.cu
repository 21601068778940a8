#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/other_family-inl.h"
