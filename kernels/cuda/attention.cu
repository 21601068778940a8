#define MESHARD_DEVICE cuda
#include "meshard/kernels/device/attention_family-inl.h"
