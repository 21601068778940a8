#include "meshard/base/buffer.h"
