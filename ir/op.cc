#include "meshard/ir/op.h"
