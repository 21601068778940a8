#include "meshard/ir/verify.h"
