#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/map_family-inl.h"
