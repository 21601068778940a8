#include "meshard/kernels/kernel.h"
