#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/rows_family-inl.h"
