#include "meshard/ir/trace.h"
