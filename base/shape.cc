#include "meshard/base/shape.h"
